"""Refreshes killed at any moment, while others push: what is served is whole, and in the end nothing is left over.

FASTSERVE_CRASH_KILLS says how often. The process is killed from outside, once the store shows that it has come so far
(a set is being built, some of its rows are there, it was switched to), or after a random time.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.online import open_store
from fastserve.online.live import MIN_KEEP_US, RowSets, look, move
from fastserve.timeutil import format_timestamp, now_us
from materializer.reclaim import count
from materializer.refresh import RefreshRequest, reclaim, refresh, rollback
from tests.integration.materializer.repo import DAY, HOUR, ROOT, T0, Repo
from tests.servers import start_redis

KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "4"))
USERS = [f"u{n}" for n in range(8_000)]
PUSHED = USERS[::100]


@pytest.fixture(params=["lmdb", "redis"])
def repo(request: pytest.FixtureRequest, applied: Path, tmp_path: Path) -> Iterator[Repo]:
    server = start_redis(tmp_path) if request.param == "redis" else None
    url = server.url if server else "lmdb://.fastserve/online"
    repo = Repo.at(applied / "forever").copy(tmp_path / "repo", url)
    repo.write([{"user": u, "event_timestamp": T0, "created": T0, "amount": 0.0} for u in USERS])
    repo.materialize(T0 + DAY, incremental=True)
    yield repo
    if server:
        server.stop()


class Pushing:
    """A thread that pushes rising numbers; `acknowledged` is the highest of each user that was taken."""

    def __init__(self, repo: Repo) -> None:
        self.acknowledged = dict.fromkeys(PUSHED, 0.0)
        self.errors: list[Exception] = []
        self._repo = repo
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push)

    def __enter__(self) -> Pushing:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _push(self) -> None:
        rng, n = random.Random(3), 0.0
        with FeatureStore(self._repo.path) as store:
            while not self._over.is_set():
                n += 1
                users = rng.sample(PUSHED, 5)
                try:
                    store.write_to_online_store(
                        "stats", {"user": users, "amount": [n] * 5, "visits": [1] * 5, "city": ["x"] * 5,
                                  "event_timestamp": [format_timestamp(now_us())] * 5}
                    )  # fmt: skip
                except Exception as error:
                    self.errors.append(error)
                    return
                self.acknowledged.update(dict.fromkeys(users, n))
                self._over.wait(0.02)


class Seen:
    """The store, looked at from outside."""

    def __init__(self, repo: Repo) -> None:
        self.view_id = repo.view().view_id
        self._runner = asyncio.Runner()
        self._store = self._runner.run(self._open(repo))

    async def _open(self, repo: Repo) -> Any:
        return open_store(repo.config.online_store)

    def sets(self) -> RowSets:
        return self._runner.run(look(self._store, {self.view_id: self.view_id}))[self.view_id]

    def rows(self, online_id: int | None) -> int:
        return 0 if online_id is None else self._runner.run(count(self._store, online_id))

    def age(self) -> None:
        """As if the last switch were long ago."""
        sets = self.sets()
        if sets.role == "kept":
            older = replace(sets, since_us=sets.since_us - 2 * MIN_KEEP_US)
            self._runner.run(move(self._store, sets, older))

    def close(self) -> None:
        self._runner.run(self._store.close())
        self._runner.close()


def stage(seen: Seen, kind: int, rng: random.Random) -> Callable[[], bool]:
    """Something to wait for before the kill."""
    before, enough = seen.sets().number, rng.randrange(len(USERS))
    delay = time.monotonic() + rng.uniform(0.4, 1.5)

    def building() -> bool:
        return (sets := seen.sets()).number > before and sets.role == "building"

    def half() -> bool:
        return (sets := seen.sets()).role == "building" and seen.rows(sets.other) > enough

    def switched() -> bool:
        return (sets := seen.sets()).number > before and sets.role == "kept"

    return [building, half, switched, lambda: time.monotonic() > delay][kind % 4]


def killed(repo: Repo, reached: Callable[[], bool], delay: float) -> bool:
    """Start a refresh and kill -9 it when the stage is reached; False when it was done before."""
    command = [
        sys.executable,
        "-m",
        "materializer.cli",
        "refresh",
        "stats",
        "--carry",
        "--repo",
        str(repo.path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    while not reached() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode in (0, -9)
    return process.returncode == -9


def check_served(repo: Repo, pushing: Pushing) -> None:
    """Every row is there, and every acknowledged push."""
    wanted = dict.fromkeys(USERS, 0.0) | pushing.acknowledged
    with FeatureStore(repo.path) as store:
        found = store.get_online_features(["stats:amount"], {"user": USERS}).to_dict()["amount"]
    lacking = {u: (v, wanted[u]) for u, v in zip(USERS, found, strict=True) if v is None or v < wanted[u]}
    assert lacking == {} and not pushing.errors


def test_killed_refreshes_lose_nothing_and_leave_nothing(repo: Repo) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    seen = Seen(repo)
    kills = runs = 0
    with Pushing(repo) as pushing:
        while kills < KILLS:
            runs += 1
            assert runs < 4 * KILLS, "they are over before they can be killed"
            kills += killed(repo, stage(seen, runs, rng), rng.choice([0, rng.uniform(0, 0.05)]))
            check_served(repo, pushing)
            if seen.sets().role == "kept" and rng.random() < 0.5:
                assert rollback(repo.config, "stats").status == "ok"
                check_served(repo, pushing)
            seen.age()
        last = refresh(repo.config, RefreshRequest(view="stats", carry=True))
        assert last.status == "ok", last.error
        check_served(repo, pushing)
        reclaim(repo.config, now_us=now_us() + 2 * HOUR)
        check_served(repo, pushing)
    check_served(repo, pushing)
    reclaim(repo.config, now_us=now_us() + 2 * HOUR)  # what pushes on their way put into a set that went
    sets = seen.sets()
    assert sets.ids == (last.online_id,) and seen.rows(sets.live) == len(USERS)
    assert len(repo.online_rows()) == len(USERS), "nothing is left of the others"
    seen.close()
