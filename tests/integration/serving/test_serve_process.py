"""`fastserve serve` as a process of its own: every kind of client, a changing registry, a graceful end."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore, FeatureView, Field
from fastserve.app import App, ServeOptions
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.timeutil import format_timestamp
from tests import servers
from tests.servers import Serving, start_redis
from tests.support import NOW_US, make_repo, put

ROOT = Path(__file__).resolve().parents[3]
CLOCK = format_timestamp(NOW_US)
FEATURES = """
from fastserve import Entity, FeatureService, FeatureView, Field
user = Entity("user", join_keys="user_id", dtype="int64")
stats = FeatureView("stats", entities=[user], schema=[Field("clicks", "int64"), Field("name", "string")], ttl="1h")
ranking = FeatureService("ranking", features=[stats])
"""
BODY = json.dumps({"feature_service": "ranking", "entities": {"user_id": [1, 2, 3]}})
RIGHT = [[10, 20, None], ["u1", "u2", None]]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo on LMDB with two users' rows."""
    folder = make_repo(tmp_path_factory.mktemp("serve") / "repo", FEATURES)
    with FeatureStore(folder) as store:
        snapshot = store.apply().snapshot
        url = store.config.online_store

    async def fill() -> None:
        online = open_store(url)
        rows = [{"user_id": i, "clicks": 10 * i, "name": f"u{i}"} for i in (1, 2)]
        await put(online, snapshot.view("stats"), rows)
        await online.close()

    asyncio.run(fill())
    return folder


def serving(repo: Path, *options: str) -> AbstractContextManager[Serving]:
    """A running server whose clock stands still."""
    return servers.serving(repo, "--clock", CLOCK, *options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> tuple[str, str]:
    """A certificate for localhost, its own authority, and its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    return cert, key


def output(*command: str) -> str:
    """What a client program prints; the test is skipped on a machine without it."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def values(text: str) -> Any:
    return json.loads(text)["values"]


def post(port: int, path: str = "/online-features/batch", body: str = BODY) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        data = json.loads(answer.read())
    return answer.status, data


def get(port: int, path: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        data = json.loads(answer.read())
    return answer.status, data


def test_every_client_gets_the_right_answer(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "body").write_text(BODY)
    with serving(repo) as (port, _):
        url = f"http://127.0.0.1:{port}/online-features/batch"
        assert values(output("curl", "-sS", "--http2-prior-knowledge", "-d", BODY, url)) == RIGHT
        assert values(output("curl", "-sS", "--http1.1", "-d", BODY, url)) == RIGHT
        assert values(output("nghttp", "-d", str(tmp_path / "body"), url)) == RIGHT
        load = output("h2load", "-n", "2000", "-c", "4", "-m", "10", "-d", str(tmp_path / "body"), url)
        assert "2000 succeeded, 0 failed, 0 errored" in load and "2000 2xx" in load
        status, answer = post(port)
        assert (status, answer["values"]) == (200, RIGHT)


def test_every_client_gets_the_right_answer_over_tls(
    repo: Path, tmp_path: Path, certificate: tuple[str, str]
) -> None:
    cert, key = certificate
    (tmp_path / "body").write_text(BODY)
    with serving(repo, "--cert", cert, "--key", key) as (port, _):
        url = f"https://localhost:{port}/online-features/batch"
        curl = ("curl", "-sS", "--cacert", cert, "-w", "%{stderr}%{http_version}", "-d", BODY)
        assert values(output(*curl, "--http2", url)) == RIGHT
        assert values(output(*curl, "--http1.1", url)) == RIGHT
        assert values(output("nghttp", "-y", "-d", str(tmp_path / "body"), url)) == RIGHT
        load = output("h2load", "-n", "500", "-c", "2", "-m", "10", "-d", str(tmp_path / "body"), url)
        assert "500 succeeded, 0 failed, 0 errored" in load


def test_registry_changes_are_served_without_a_failed_request(tmp_path: Path, repo: Path) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    with serving(copy) as (port, _):
        grown = FeatureView(
            "stats",
            entities=["user"],
            schema=[Field("clicks", "int64"), Field("name", "string"), Field("added", "int32", default=7)],
            ttl="1h",
        )
        with FeatureStore(copy) as store:
            store.apply([grown])
        asked = json.dumps({"features": ["stats:added", "stats:clicks"], "entities": {"user_id": [1]}})
        for _ in range(10_000):  # bounded by requests, not by a clock: the watcher looks twice a second
            status, answer = post(port)
            assert (status, answer["values"]) == (200, RIGHT)
            status, answer = post(port, body=asked)
            if status == 200:
                break
            assert status == 404
        assert answer["values"] == [[7], [10]] and answer["metadata"]["revision"] == 2


def test_sigterm_finishes_what_is_in_flight(repo: Path) -> None:
    with serving(repo, "--workers", "2", "--json") as (port, process):
        wrong: list[object] = []
        refused = threading.Event()
        answered = threading.Semaphore(0)

        def load() -> None:
            while True:
                try:
                    status, answer = post(port)
                except (ConnectionError, http.client.RemoteDisconnected):
                    refused.set()  # no longer accepting: that is how it ends, and it is never half an answer
                    return
                if (status, answer["values"]) != (200, RIGHT):
                    wrong.append((status, answer))
                answered.release()

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            answered.acquire()
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert process.wait(30) == 0
        assert not wrong and refused.is_set()


def test_a_store_of_another_registry_is_refused(tmp_path: Path, repo: Path) -> None:
    other = make_repo(tmp_path / "other", FEATURES, online_store=f"lmdb://{repo}/.fastserve/online")

    async def claim_it() -> None:
        with FeatureStore(repo) as store:
            online = open_store(store.config.online_store)
            await claim(online, store.registry.registry_id)
            await online.close()

    asyncio.run(claim_it())
    with FeatureStore(other) as store:
        store.apply()
    done = refused(other)
    assert "belongs to registry" in done.stderr and done.stderr.count("\n") == 2
    assert refused(other, "--workers", "2").stderr == done.stderr, "said once, not by every worker"


def refused(repo: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What `fastserve serve` says when it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "fastserve.cli.main", "serve", "--port", "0", *options],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--port", "99999"), "--port"),  # once taken modulo 65536
        (("--port", "-1"), "--port"),
        (("--workers", "0"), "--workers"),
        (("--deadline-ms", "0"), "--deadline-ms"),
        (("--drain-s", "-1"), "--drain-s"),
        (("--limit", "max_conections=5"), "did you mean 'max_connections'"),
        (("--workers", "2", "--cert", "no.pem", "--key", "no.pem"), "cannot load the TLS certificate"),
    ],
)
def test_options_that_will_not_do(repo: Path, options: tuple[str, ...], says: str) -> None:
    assert says in refused(repo, *options).stderr


def test_limits_of_the_front_end(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the repo, the environment and an option, each goes before the one before it."""
    repo = shutil.copytree(repo, tmp_path / "repo")
    monkeypatch.setenv("FASTSERVE_LIMITS", "max_body_bytes=40, max_target_bytes=80")
    with (repo / "fastserve.toml").open("a") as file:
        file.write("[limits]\nmax_body_bytes = 20\nmax_header_bytes = 1_000\n")
    with serving(repo, "--limit", "max_target_bytes=50") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

        def status(method: str, path: str, body: bytes | None = None, **headers: str) -> int:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert status("POST", "/online-features/batch", b" " * 40) == 400, "it is no JSON"
        assert status("POST", "/online-features/batch", b" " * 41) == 413
        assert status("GET", "/health", x="v" * 500) == 200
        assert status("GET", "/health", x="v" * 1_000) == 431
        assert status("GET", "/health?" + "x" * 42) == 200
        assert status("GET", "/health?" + "x" * 43) == 414
        connection.close()


async def test_a_store_that_comes_back_as_another_registrys_is_not_read(tmp_path: Path, repo: Path) -> None:
    """Its rows have our keys and pass their checksums: only the owner's name tells."""
    server = start_redis(tmp_path)
    server.kill()
    copy = make_repo(tmp_path / "repo", FEATURES, online_store=server.url)
    with FeatureStore(copy) as store:
        snapshot = store.apply().snapshot
    app = App(ServeOptions(repo=str(copy), port=0, clock_us=NOW_US))
    try:
        await app.start()
        port = app.server.port
        assert (await asyncio.to_thread(post, port))[1]["statuses"] == [[5] * 3] * 2
        server.restart()
        online = open_store(server.url)
        await claim(online, "another registry")
        await put(online, snapshot.view("stats"), [{"user_id": 1, "clicks": -1, "name": "theirs"}])
        while (
            "belongs to" not in (answer := await asyncio.to_thread(post, port))[1]["metadata"]["unavailable"]
        ):
            pass
        assert answer[1]["values"] == [[None] * 3] * 2
        assert (await asyncio.to_thread(get, port, "/health"))[0] == 503
        await online.delete_many([key async for key in online.scan()])
        await put(online, snapshot.view("stats"), [{"user_id": 1, "clicks": 1, "name": "ours"}])
        await online.close()
        while "unavailable" in (answer := await asyncio.to_thread(post, port))[1]["metadata"]:
            pass
        assert answer[1]["values"] == [[1, None, None], ["ours", None, None]]
    finally:
        await app.stop()
        server.stop()


def test_files_that_are_gone_are_not_served_from_memory(tmp_path: Path, repo: Path) -> None:
    """LMDB and SQLite read a deleted file well for as long as it is open."""
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    registry = copy / ".fastserve" / "registry.db"
    with serving(copy) as (port, _):
        assert post(port)[1]["values"] == RIGHT
        registry.rename(registry.with_suffix(".old"))
        while (answer := get(port, "/health"))[1]["registry_stale_since"] is None:
            pass
        assert answer[0] == 200 and post(port)[1]["values"] == RIGHT, "it goes on with what it has"
        registry.with_suffix(".old").rename(registry)
        while get(port, "/health")[1]["registry_stale_since"] is not None:
            pass
        shutil.rmtree(copy / ".fastserve" / "online")
        while "unavailable" not in (answer := post(port))[1]["metadata"]:
            assert answer[1]["values"] == RIGHT
        assert "removed or replaced" in answer[1]["metadata"]["unavailable"]
        assert answer[1]["statuses"] == [[5] * 3] * 2 and get(port, "/health")[0] == 503
