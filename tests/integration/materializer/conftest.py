"""Repos to work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.materializer.repo import Repo, stats_view


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repos with their definitions applied, to be copied: making a registry takes longer."""
    folder = tmp_path_factory.mktemp("applied")
    Repo.make(folder / "forever")
    Repo.make(folder / "ttl", stats_view(ttl="30h"))
    return folder


@pytest.fixture
def repo(applied: Path, tmp_path: Path) -> Repo:
    """A repo with the view `stats` and no data."""
    return Repo.at(applied / "forever").copy(tmp_path / "repo")


@pytest.fixture
def repo_with_ttl(applied: Path, tmp_path: Path) -> Repo:
    """The same with a ttl of 30 hours."""
    return Repo.at(applied / "ttl").copy(tmp_path / "repo")
