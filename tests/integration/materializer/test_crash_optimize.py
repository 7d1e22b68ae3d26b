"""Killed at any moment and run again, an optimization leaves what an undisturbed one leaves: no row lost or doubled.

FASTSERVE_CRASH_KILLS says how often it is killed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from fastserve.offline.delta import OfflineTable
from fastserve.offline.inventory import inventory
from tests.integration.materializer.repo import DAY, HOUR, T0, USER, Repo, stats_view
from tests.integration.materializer.test_crash import commits, kill_at, parquet_files

KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "3"))
N_DAYS = 90
NOW = T0 + N_DAYS * DAY
ARGS = ("--json", "--now", "2013-04-01")


def fill(repo: Repo) -> None:
    """Three commits of two rows a day."""
    for part in range(3):
        rows = []
        for n in range(2 * N_DAYS):
            event = T0 + n * DAY // 2 + part * HOUR
            rows.append({"user": f"u{n % 7}", "event_timestamp": event, "created": event, "visits": n})
        repo.write(rows, f"{part}.parquet")
        repo.materialize(NOW, start_us=T0, end_us=NOW, target="offline")


def stage(repo: Repo, kind: int, rng: random.Random) -> Callable[[], bool]:
    """Something to wait for before the kill."""
    files, done = parquet_files(repo), commits(repo)
    more, delay = rng.randint(1, 60), time.monotonic() + rng.uniform(0.3, 1.5)
    return [
        lambda: parquet_files(repo) >= files + more,
        lambda: commits(repo) > done,
        lambda: commits(repo) > done + 1,
        lambda: time.monotonic() > delay,
    ][kind % 4]


def state(repo: Repo) -> tuple[object, ...]:
    view = repo.view()
    table = OfflineTable(repo.config.offline_store, repo.config.project, view)
    with repo.registry() as registry:
        spans = [(i.start_us, i.end_us) for i in registry.intervals(view.view_id, "offline")]
        removed = registry.upkeep(view.view_id).removed_before_us
    return repo.offline_table(), spans, removed, [len(day.sizes) for day in inventory(table.open())]


def test_a_killed_optimization_is_done_by_the_next(applied: Path, tmp_path: Path) -> None:
    source = Repo.at(applied / "forever").copy(tmp_path / "source")
    fill(source)
    with source.registry() as registry:
        registry.apply([USER, stats_view(ttl="10d", retention="60d")])
    kept = [each for each in source.offline_rows() if each[1] >= T0 + 30 * DAY]
    undisturbed = source.copy(tmp_path / "undisturbed")
    code, shown, err = undisturbed.cli(*ARGS, command="optimize")
    assert code == 0 and shown["totals"]["dates_removed"] == 30, err
    expected = state(undisturbed)
    assert undisturbed.offline_rows() == kept
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    kills = runs = 0
    while kills < KILLS:
        repo = source.copy(tmp_path / f"killed-{runs}")
        runs += 1
        assert runs < 4 * KILLS, "it is over before it can be killed"
        for _ in range(rng.randint(1, 3)):
            reached = stage(repo, kills, rng)
            process = repo.start(*ARGS, command="optimize")
            kills += (killed := kill_at(process, reached, rng.choice([0, rng.uniform(0, 0.02)])))
            process.communicate()
            assert [row for row in repo.offline_rows() if row[1] >= T0 + 30 * DAY] == kept
            if not killed:
                break
        code, _, err = repo.cli(*ARGS, command="optimize")
        assert code == 0, err
        assert state(repo) == expected
