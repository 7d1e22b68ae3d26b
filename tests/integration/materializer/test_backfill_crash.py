"""Backfills killed at any moment, their workers too, and run again leave exactly what an undisturbed run leaves.

As in test_crash.py; FASTSERVE_CRASH_KILLS says how often.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.materializer.repo import DAY, T0, Repo
from tests.integration.materializer.test_crash import commits, fill, kill_at, parquet_files

KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "2"))
ARGS = ("--now", "2013-10-28", "--start", "2013-01-01", "--workers")
NOW = T0 + 300 * DAY


@pytest.fixture(scope="module")
def source(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The repo with its rows, before any run."""
    made = Repo.at(applied / "forever").copy(
        tmp_path_factory.mktemp("crash") / "source", "lmdb://.fastserve/online"
    )
    fill(made)
    return made


@pytest.fixture(scope="module")
def undisturbed(source: Repo) -> Repo:
    """The same after one run in peace."""
    repo = source.copy(source.path.parent / "undisturbed")
    repo.materialize(NOW)
    return repo


def stage(repo: Repo, kind: int, rng: random.Random) -> Callable[[], bool]:
    """Something to wait for before the kill."""
    done, files, committed = complete(repo), parquet_files(repo), commits(repo)
    delay = time.monotonic() + rng.uniform(0.5, 3)
    return [
        lambda: complete(repo) > done,
        lambda: parquet_files(repo) >= files + 10,
        lambda: commits(repo) > committed,
        lambda: time.monotonic() > delay,
    ][kind % 4]


def complete(repo: Repo) -> int:
    """How many (date, store) pairs the ledger has as complete."""
    with repo.registry() as registry:
        states = registry.backfills.dates(repo.view().view_id)
        return sum(state.status == "complete" for state in states.values())


def children(pid: int) -> list[int]:
    """The processes a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_killed_backfills_leave_the_same_bytes(source: Repo, undisturbed: Repo) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    kills = runs = 0
    while kills < KILLS:
        repo = source.copy(source.path.parent / f"killed-{runs}")
        runs += 1
        assert runs < 3 * KILLS + 3, "the backfills are over before they can be killed"
        for _ in range(rng.randint(1, 4)):
            workers = "1" if rng.random() < 0.7 else "2"
            reached = stage(repo, kills, rng)
            process = repo.start("stats", *ARGS, workers, command="backfill")
            kills += (killed := kill_at(process, reached, rng.choice([0, rng.uniform(0, 0.05)])))
            process.communicate()
            if not killed:
                break
        code, summary, err = repo.cli("stats", *ARGS, "1", command="backfill")
        assert code == 0, err
        check_same(repo, undisturbed)
        assert summary["dates"] * 2 == complete(repo)


def test_a_worker_that_dies_is_replaced(source: Repo, undisturbed: Repo) -> None:
    repo = source.copy(source.path.parent / "worker")
    process = repo.start("stats", *ARGS, "2", command="backfill")
    while not (workers := [pid for pid in children(process.pid) if is_worker(pid)]) or not complete(repo):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)  # leaves the processor to the workers
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    check_same(repo, undisturbed)


def check_same(repo: Repo, undisturbed: Repo) -> None:
    assert repo.online_rows() == undisturbed.online_rows()
    assert repo.offline_table() == undisturbed.offline_table()
    with repo.registry() as registry:
        assert registry.backfills.incomplete(repo.view().view_id) is None
