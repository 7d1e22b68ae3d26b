"""Fixtures shared by the suites of serving, API and HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sanitized import NATIVES_ONLY, SANITIZED, leave_out_twins, spare_programs
from tests.unit.serving.world import World, make_world


@pytest.fixture(scope="session", autouse=SANITIZED)
def programs_of_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    if SANITIZED:
        spare_programs(tmp_path_factory.mktemp("programs"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if NATIVES_ONLY:
        leave_out_twins(config, items)


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A registry and a memory store with rows of every kind; see tests/unit/serving/world.py."""
    async with make_world(tmp_path, request.node.name) as made:
        yield made
