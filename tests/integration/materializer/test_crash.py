"""Killed at any moment and run again, a run leaves exactly what an undisturbed one leaves.

The process is killed from outside: after a random delay, or once it has reached a stage that shows on the file
system (the lock is taken, a partition is committed, the online store has grown). FASTSERVE_CRASH_KILLS says how
often; each kill hits the run that the one before left unfinished, until one is let through.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.materializer.repo import DAY, HOUR, T0, Repo

KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "5"))  # one a stage
N_DAYS = 140  # small dates are written 64 at a time
NOW = T0 + 300 * DAY
ARGS = ("--incremental", "--now", "2013-10-28")


def fill(repo: Repo, n_days: int = N_DAYS) -> None:
    """Days of 24 rows or so, in shuffled order, with ties, corrections and late rows."""
    rng = random.Random(7)
    rows = []
    for n in range(n_days * 24):
        event = T0 + rng.randrange(n_days * 24) * HOUR
        rows.append(
            {
                "user": f"u{rng.randrange(300)}",
                "event_timestamp": event,
                "created": event + rng.choice([0, 0, HOUR, 2 * DAY]),
                "amount": rng.random(),
                "visits": rng.choice([None, n]),
                "city": rng.choice([None, "Köln", "Rome"]),
            }
        )
    for part in range(3):
        repo.write(rows[part::3], f"{part}.parquet", row_group=500)


@pytest.fixture(scope="module")
def source(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The repo with its rows, before any run. With sync: what is marked as written survives."""
    folder = tmp_path_factory.mktemp("crash")
    made = Repo.at(applied / "forever").copy(folder / "source", "lmdb://.fastserve/online")
    fill(made)
    return made


@pytest.fixture(scope="module")
def undisturbed(source: Repo) -> Repo:
    """The same after one run in peace."""
    repo = source.copy(source.path.parent / "undisturbed")
    repo.materialize(NOW, incremental=True)
    return repo


def commits(repo: Repo) -> int:
    """How many commits the offline table has."""
    return len(list(repo.path.glob(".fastserve/offline/test/stats/v1/_delta_log/*.json")))


def parquet_files(repo: Repo) -> int:
    """How many data files it has; one is there before its commit."""
    return len(list(repo.path.glob(".fastserve/offline/test/stats/v1/*/*.parquet")))


def stage(repo: Repo, kind: int, rng: random.Random) -> Callable[[], bool]:
    """Something to wait for before the kill."""
    database = repo.path / ".fastserve" / "registry.db"
    written = database.with_name("registry.db-wal")
    size = written.stat().st_size if written.exists() else 0
    files, done, marked, more = parquet_files(repo), commits(repo), finished_dates(repo), rng.randint(1, 2)
    delay = time.monotonic() + rng.uniform(0.3, 2.0)
    return [
        lambda: finished_dates(repo) > marked,
        lambda: parquet_files(repo) >= files + 30 * more,
        lambda: commits(repo) >= done + more,
        lambda: written.exists() and written.stat().st_size > size + 4096 * more,
        lambda: time.monotonic() > delay,
    ][kind % 5]


def finished_dates(repo: Repo) -> int:
    """How many (date, target) pairs the ledger of the newest run has."""
    with repo.registry() as registry:
        return sum(len(registry.partitions(run.run_id)) for run in registry.runs(1))


def kill_at(process: subprocess.Popen[str], reached: Callable[[], bool], delay: float) -> bool:
    """Kill -9 when the stage is reached, and a little later; False when the run was done before."""
    while not reached():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)  # leaves the processor to the run
    time.sleep(delay)
    process.kill()
    return process.wait() == -9


def test_a_killed_run_is_taken_up_and_leaves_the_same_bytes(source: Repo, undisturbed: Repo) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    kills = runs = adopted = 0
    while kills < KILLS:
        repo = source.copy(source.path.parent / f"killed-{runs}")
        runs += 1
        assert runs < 3 * KILLS, "the runs are over before they can be killed"
        for _ in range(1 if runs == 1 else rng.randint(1, 4)):
            reached = stage(repo, kills, rng)
            process = repo.start(*ARGS)
            kills += (killed := kill_at(process, reached, rng.choice([0, rng.uniform(0, 0.03)])))
            process.communicate()
            if not killed:
                break
        code, summary, err = repo.cli(*ARGS)
        assert code == 0, err
        adopted += summary["totals"]["partitions_skipped"]
        check_same(repo, undisturbed)
    assert adopted, "no run took up what a killed one had finished"


def check_same(repo: Repo, undisturbed: Repo) -> None:
    assert repo.online_rows() == undisturbed.online_rows()
    assert repo.offline_table() == undisturbed.offline_table()
    for target in ("online", "offline"):
        found = []
        for each in (repo, undisturbed):
            with each.registry() as registry:
                view_id = each.view().view_id
                spans = [(i.start_us, i.end_us) for i in registry.intervals(view_id, target)]
                found.append((spans, registry.get_cursor(view_id, target)))
                assert registry.unfinished_run(view_id) is None
        assert found[0] == found[1]
    assert noted(repo) == noted(undisturbed)


def noted(repo: Repo) -> Any:
    """The view's statistics: every row counted, and none twice."""
    with repo.registry() as registry:
        found = registry.statistics(repo.view().view_id)
    assert found is not None and found.rows == N_DAYS * 24
    return found.to_dict()


def test_partitions_of_a_killed_run_that_changed_are_done_again(source: Repo, tmp_path: Path) -> None:
    repo = source.copy(tmp_path / "changed")
    process = repo.start(*ARGS)
    assert kill_at(process, lambda: commits(repo) >= 3, 0)
    process.communicate()
    newest = T0 + (N_DAYS - 1) * DAY + 23 * HOUR  # of the dates that were finished first
    late = {"user": "u1", "event_timestamp": newest, "created": NOW, "amount": -1.0}
    repo.write([late], "9.parquet")
    _, summary, _ = repo.cli("--incremental", "--now", "2013-10-29")
    assert summary["status"] == "ok"
    assert repo.read_online(["u1"], NOW)[0][1] == -1.0


def test_what_a_killed_run_finished_does_not_count_once_the_store_is_gone(
    source: Repo, undisturbed: Repo, tmp_path: Path
) -> None:
    """Not even when the run after that is killed as well, with the store half filled."""
    repo = source.copy(tmp_path / "lost")
    for n_runs in (1, 2):
        shutil.rmtree(repo.path / ".fastserve" / "online", ignore_errors=True)
        process = repo.start(*ARGS)
        assert kill_at(process, partial(has_written_online, repo, n_runs), 0)
        process.communicate()
    repo.cli(*ARGS)
    check_same(repo, undisturbed)


def has_written_online(repo: Repo, n_runs: int) -> bool:
    """Whether the view has that many runs, and the newest has finished a date of the online store."""
    with repo.registry() as registry:
        runs = registry.runs()
        return len(runs) == n_runs and any(p.target == "online" for p in registry.partitions(runs[0].run_id))


@pytest.mark.parametrize(("signal_name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_stops_the_run_between_batches(
    source: Repo, undisturbed: Repo, tmp_path: Path, signal_name: str, code: int
) -> None:
    repo = source.copy(tmp_path / "stopped")
    process = repo.start(*ARGS)
    while commits(repo) < 2 and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(getattr(signal, signal_name))
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    [line] = out.splitlines()
    summary = json.loads(line)
    assert summary["status"] == summary["views"][0]["status"] == "stopped"
    done = summary["totals"]["partitions_done"]
    assert 0 < done < 2 * N_DAYS
    _, resumed, _ = repo.cli(*ARGS)
    assert resumed["totals"]["partitions_skipped"] == done
    check_same(repo, undisturbed)
