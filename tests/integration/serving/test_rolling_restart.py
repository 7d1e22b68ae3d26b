"""SIGHUP under load: every worker is replaced, again and again, and no request fails."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fastserve import FeatureStore
from fastserve.online import open_store
from tests.integration.serving.restart_kit import Load, Told
from tests.integration.serving.test_serve_process import (
    BODY,
    CLOCK,
    FEATURES,
    RIGHT,
    certificate,
    repo,
)
from tests.servers import Serving, serving, start_redis
from tests.support import make_repo, put

__all__ = ["certificate", "repo"]  # the fixtures
WORKERS = 2
RESTARTS = 3


@pytest.fixture
async def redis_repo(tmp_path: Path) -> AsyncIterator[Path]:
    """The same rows in a Redis."""
    server = start_redis(tmp_path)
    folder = make_repo(tmp_path / "repo", FEATURES, online_store=server.url)
    with FeatureStore(folder) as store:
        snapshot = store.apply().snapshot
    online = open_store(server.url)
    rows = [{"user_id": i, "clicks": 10 * i, "name": f"u{i}"} for i in (1, 2)]
    await put(online, snapshot.view("stats"), rows)
    await online.close()
    yield folder
    server.stop()


@pytest.fixture(params=["lmdb", "redis"])
def store_repo(request: pytest.FixtureRequest) -> Path:
    """A repo on each kind of store."""
    found: Path = request.getfixturevalue("repo" if request.param == "lmdb" else "redis_repo")
    return found


def supervised(repo: Path, *options: str) -> AbstractContextManager[Serving]:
    """A server of two workers whose stderr is a pipe."""
    words = ("--workers", str(WORKERS), "--clock", CLOCK, *options)
    return serving(repo, *words, stderr=subprocess.PIPE)


def restart_under(load: Load, told: Told) -> None:
    """Several restarts, each while every client is asking."""
    try:
        for _ in range(RESTARTS):
            load.everybody_asked()
            told.restart(WORKERS)
        load.everybody_asked()
    finally:
        load.stop()
    assert not load.wrong, load.wrong
    assert not [line for line in told.lines if "WARNING" in line or "ERROR" in line]


def test_no_request_fails(store_repo: Path, tmp_path: Path) -> None:
    (tmp_path / "body").write_text(BODY)
    with supervised(store_repo) as (port, process):
        load = Load(port, BODY, RIGHT)
        load.start("HTTP/2", load.own_client("2"))
        load.start("HTTP/1.1", load.own_client("1.1"))
        for i in range(2):
            load.start(f"keep-alive {i}", load.keep_alive)
            load.start(f"fresh {i}", load.fresh)
        restart_under(load, Told(process))


def test_no_request_fails_over_tls(repo: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    with supervised(repo, "--cert", cert, "--key", key) as (port, process):
        load = Load(port, BODY, RIGHT, ssl.create_default_context(cafile=cert))
        load.start("HTTP/2", load.own_client("2", Path(cert)))
        load.start("HTTP/1.1", load.own_client("1.1", Path(cert)))
        load.start("keep-alive", load.keep_alive)
        load.start("fresh", load.fresh)
        restart_under(load, Told(process))


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
@pytest.mark.parametrize("options", [("--h1",)])
def test_no_request_of_h2load_fails(repo: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "body").write_text(BODY)
    with supervised(repo) as (port, process):
        load = Load(port, BODY, RIGHT)
        load.start("h2load", load.h2load(*options, body=tmp_path / "body"))
        told = Told(process)
        try:
            for _ in range(RESTARTS):
                load.everybody_asked(1)
                told.restart(WORKERS)
            load.everybody_asked(1)
        finally:
            load.stop()
        assert not load.wrong, load.wrong
