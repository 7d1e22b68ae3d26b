from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.datasets.kit import Shop


@pytest.fixture(scope="session")
def made_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Shop.make(tmp_path_factory.mktemp("datasets") / "shop").path


@pytest.fixture
def shop(made_shop: Path, tmp_path: Path) -> Shop:
    """A repo of its own for each test."""
    shutil.copytree(made_shop, tmp_path / "shop")
    return Shop(tmp_path / "shop")
