"""`materializer run` on a cluster leaves the bytes and the statistics of one on this machine, whatever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from materializer.moves import spread
from materializer.run import Summary, materialize
from materializer.shards import plan
from tests.integration.materializer.repo import Repo
from tests.integration.materializer.test_crash import NOW, fill
from tests.integration.materializer.test_spread import check_same
from tests.servers import start_redis
from tests.spark.test_backfill import executors


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = Repo.make(tmp_path_factory.mktemp("spark") / "source")
    fill(made, 40)
    return made


@pytest.fixture(scope="module")
def local(source: Repo) -> Repo:
    """The same after a run on this machine, into another kind of online store."""
    repo = source.copy(source.path.parent / "local")
    repo.materialize(NOW, incremental=True)
    return repo


@pytest.fixture
def repo(source: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """The same before any, with a Redis of its own; small tasks."""
    monkeypatch.setattr(plan, "DEAL_ROWS", 200)
    monkeypatch.setattr(spread, "WRITE_ROWS", 150)
    server = start_redis(tmp_path)
    yield source.copy(tmp_path / "repo", server.url)
    server.stop()


def test_the_bytes_and_statistics_are_those_of_the_local_engine(
    cluster: Any, repo: Repo, local: Repo
) -> None:
    with FeatureStore(repo.path) as store:
        summary = store.materialize_incremental(now="2013-10-28", engine="spark")
    assert summary.status == "ok", summary.views[0].error
    check_same(repo, local)


@pytest.mark.parametrize("phase", ["scan", "write"])
def test_an_executor_killed_in_the_middle_changes_nothing(
    cluster: Any, repo: Repo, local: Repo, phase: str
) -> None:
    reached, killed = threading.Event(), []

    def kill() -> None:
        reached.wait()
        killed.append(executors()[0])
        os.kill(killed[0], signal.SIGKILL)

    def progress(view: str, at: str, done: int, total: int | None) -> None:
        if at == phase:
            reached.set()
            killer.join()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary: Summary = materialize(
        repo.config, incremental=True, now_us=NOW, engine="spark", progress=progress
    )
    assert summary.status == "ok", summary.views[0].error
    assert killed
    check_same(repo, local)


def test_the_command_starts_a_spark_of_its_own_and_stops(repo: Repo, local: Repo, tmp_path: Path) -> None:
    toml = repo.path / "fastserve.toml"
    toml.write_text(toml.read_text() + '[spark]\nspark.ui.enabled = false\nspark.driver.host = "127.0.0.1"\n')
    code, refused, _ = repo.cli("--incremental", "--work", "x")
    assert code == 2 and "only tasks hand files on" in refused["error"]["message"]
    args = ("--incremental", "--now", "2013-10-28", "--engine", "spark", "--master", "local[2]")
    work = tmp_path / "work"
    process = repo.start(*args, "--work", str(work))
    while not (work.exists() and any(work.iterdir())):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert not list(work.iterdir())
    code, _, err = repo.cli(*args)
    assert code == 0, err
    check_same(repo, local)
