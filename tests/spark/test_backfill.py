"""A backfill on a cluster leaves the bytes that one on this machine leaves, also when an executor is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.errors import ConfigError, RequestError
from materializer.backfill import BackfillRequest, BackfillSummary, backfill
from tests.integration.materializer.repo import Repo
from tests.integration.materializer.test_backfill_crash import NOW, check_same, complete
from tests.integration.materializer.test_crash import fill
from tests.servers import start_redis

N_DATES = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """40 dates in three files, in shuffled order; see test_crash.py."""
    made = Repo.make(tmp_path_factory.mktemp("spark") / "source")
    fill(made, N_DATES)
    return made


@pytest.fixture(scope="module")
def local(source: Repo) -> Repo:
    """The same after a backfill on this machine, into another kind of online store."""
    repo = source.copy(source.path.parent / "local")
    run(repo)
    return repo


@pytest.fixture
def repo(source: Repo, tmp_path: Path) -> Iterator[Repo]:
    """The same before any, with a Redis of its own."""
    server = start_redis(tmp_path)
    yield source.copy(tmp_path / "repo", server.url)
    server.stop()


def run(repo: Repo, **options: Any) -> BackfillSummary:
    summary = backfill(repo.config, BackfillRequest(view="stats", now_us=NOW, **options))
    assert summary.status == "ok", summary.error
    return summary


def test_the_bytes_are_those_of_the_local_engine(cluster: Any, repo: Repo, local: Repo) -> None:
    summary = run(repo, engine="spark")
    assert (summary.dates, summary.dates_done, summary.workers) == (N_DATES, 2 * N_DATES, 2)
    check_same(repo, local)
    assert run(repo, engine="spark").dates_skipped == 2 * N_DATES


def test_an_executor_killed_in_the_middle_changes_nothing(cluster: Any, repo: Repo, local: Repo) -> None:
    killed: list[int] = []

    def kill() -> None:
        while not 0 < complete(repo) < 2 * N_DATES:
            time.sleep(0.005)
        killed.append(executors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = run(repo, engine="spark", workers=2)
    killer.join(10)
    assert killed, "the backfill was over before an executor could be killed"
    assert summary.dates_done == 2 * N_DATES
    check_same(repo, local)


def executors() -> list[int]:
    """The pids of the executors below this process."""
    parents: dict[int, int] = {}
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):  # it has ended
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return [pid for pid in below if b"CoarseGrainedExecutorBackend" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_one_engine_began_another_goes_on_with(cluster: Any, repo: Repo, local: Repo) -> None:
    with FeatureStore(repo.path) as store:
        first = store.backfill("stats", end="2013-01-20", now="2013-10-28", engine="spark")
    assert first.status == "ok"
    assert run(repo).dates_skipped == first.dates_done
    check_same(repo, local)


def test_the_command_starts_a_spark_of_its_own(repo: Repo, local: Repo) -> None:
    toml = repo.path / "fastserve.toml"
    toml.write_text(toml.read_text() + '[spark]\nspark.ui.enabled = false\nspark.driver.host = "127.0.0.1"\n')
    args = ("stats", "--now", "2013-10-28", "--engine", "spark", "--master", "local[2]")
    process = repo.start(*args, command="backfill")
    while not complete(repo):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    stopped = json.loads(out)
    assert stopped["status"] == "stopped"
    code, summary, err = repo.cli(*args, command="backfill")
    assert code == 0, err
    assert summary["dates_done"] + stopped["dates_done"] == 2 * N_DATES
    check_same(repo, local)


def test_workers_elsewhere_are_refused_before_anything_is_written(source: Repo, tmp_path: Path) -> None:
    repo = source.copy(tmp_path / "repo")
    request = BackfillRequest(view="stats", now_us=NOW, engine="spark", master="spark://far:7077")
    summary = backfill(repo.config, request)
    assert summary.status == "failed"
    assert isinstance(summary.error, ConfigError)
    assert summary.error.message.startswith("lmdb:// is a file of this machine")
    assert not complete(repo)
    assert not (repo.path / ".fastserve" / "offline").exists()
    with pytest.raises(RequestError, match="only Spark has a master"):
        backfill(repo.config, BackfillRequest(view="stats", master="local[2]"))
