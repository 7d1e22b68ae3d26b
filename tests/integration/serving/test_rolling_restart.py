"""SIGHUP under load: every worker is replaced, again and again, and no request fails.

FASTSERVE_RESTARTS says how often.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import pytest

from fastserve import FeatureStore
from fastserve.online import open_store
from tests.integration.serving.restart_kit import PATH, Load, Told
from tests.integration.serving.test_serve_process import (
    BODY,
    CLOCK,
    FEATURES,
    RIGHT,
    certificate,
    make_certificate,
    repo,
)
from tests.servers import Serving, serving, start_redis
from tests.support import make_repo, put

__all__ = ["certificate", "repo"]  # the fixtures
WORKERS = 2
RESTARTS = int(os.environ.get("FASTSERVE_RESTARTS", "2"))


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


def restart_under(load: Load, told: Told, restarts: int, more: int = 20) -> None:
    """Several restarts, each while every client is asking."""
    try:
        for _ in range(restarts):
            load.everybody_asked(more)
            told.restart(WORKERS)
        load.everybody_asked(more)
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
        restart_under(load, Told(process), RESTARTS)


def test_no_request_fails_over_tls(repo: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    with supervised(repo, "--cert", cert, "--key", key) as (port, process):
        load = Load(port, BODY, RIGHT, ssl.create_default_context(cafile=cert))
        load.start("HTTP/2", load.own_client("2", Path(cert)))
        load.start("HTTP/1.1", load.own_client("1.1", Path(cert)))
        load.start("keep-alive", load.keep_alive)
        load.start("fresh", load.fresh)
        restart_under(load, Told(process), 1)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_no_request_of_h2load_fails(repo: Path, tmp_path: Path) -> None:
    """By HTTP/1.1: by HTTP/2 it opens no new connection after a GOAWAY, and counts what it never sent as failed."""
    (tmp_path / "body").write_text(BODY)
    with supervised(repo) as (port, process):
        load = Load(port, BODY, RIGHT)
        load.start("h2load", load.h2load("--h1", body=tmp_path / "body"))
        restart_under(load, Told(process), 1, 1)


def test_what_a_new_process_would_read_is_read_again(
    repo: Path, tmp_path: Path, certificate: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Certificates and settings; what is wrong with them leaves the old workers, and is said."""
    copy, cert, key = tmp_path / "repo", tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copytree(repo, copy)
    for old, new in zip(certificate, (cert, key), strict=True):
        shutil.copy(old, new)

    def served(port: int) -> tuple[bytes, object]:
        """The certificate, and the values."""
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
        connection.request("POST", PATH, BODY)
        values = json.loads(connection.getresponse().read())["values"]
        sock = cast(ssl.SSLSocket, connection.sock)
        found = sock.getpeercert(binary_form=True) or b""
        connection.close()
        return found, values

    with supervised(copy, "--cert", str(cert), "--key", str(key)) as (port, process):
        told = Told(process)
        before = served(port)
        assert before[1] == RIGHT
        right = cert.read_text()
        cert.write_text("no certificate")
        process.send_signal(signal.SIGHUP)
        said = told.until("the restart ends here")
        assert "cannot load the TLS certificate" in said and "serving as before: 0, 1" in said
        cert.write_text(right)
        assert served(port) == before
        for old, new in zip(make_certificate(tmp_path_factory.mktemp("new")), (cert, key), strict=True):
            shutil.copy(old, new)
        settings = copy / "fastserve.toml"
        settings.write_text(settings.read_text() + 'online_store = "lmdb://.fastserve/other"\n')
        told.restart(WORKERS)
        after = served(port)
        assert after[0] != before[0] and after[1] == [[None] * 3] * 2
