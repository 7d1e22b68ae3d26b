"""Every registry test runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastserve.registry import Registry, open_registry
from tests.servers import PG_BIN, PostgresServer, start_postgres

ROOT = Path(__file__).parents[3]
Worker = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if not PG_BIN.exists():
        pytest.skip(f"no PostgreSQL in {PG_BIN}")
    with start_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sub' / 'registry.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.make_database()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with open_registry(url, "demo") as opened:
        yield opened


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Start tests/integration/registry/worker.py with arguments, as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", "tests.integration.registry.worker", *map(str, args)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
