"""The online answer at t is the point-in-time answer at t, for any history and any rhythm of runs.

FASTSERVE_REPLAY_EXAMPLES says how many histories, others in every run of the tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.materializer.repo import DAY, HOUR, T0, Repo
from tests.servers import start_redis

USERS = ["", "a", "b", "c|d", "ü", "nobody"]
TTL_HOURS = 30
EXAMPLES = int(os.environ.get("FASTSERVE_REPLAY_EXAMPLES", "16"))
_numbers = count()


@pytest.fixture(scope="module", autouse=True)
def tiny_steps() -> Iterator[None]:
    """Chunks and batches of a few rows, so that small histories cross their borders too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("materializer.spill.BUFFER_BYTES", 1)
        patch.setattr("materializer.spill.CHUNK_BYTES", 1)
        patch.setattr("materializer.write.PUT_ROWS", 2)
        patch.setattr("materializer.write.SEEN_KEYS", 3)
        yield


@dataclass(frozen=True)
class Template:
    """Repos with the definitions applied; every example works on a copy, with an empty online store.

    Attributes:
        redis: the server's URL; '' for LMDB in the repo's own directory.
    """

    applied: Path
    folder: Path
    redis: str

    def copy(self, ttl: bool) -> Repo:
        if self.redis:
            redis.Redis.from_url(self.redis).flushall()
        repo = Repo.at(self.applied / ("ttl" if ttl else "forever"))
        return repo.copy(self.folder / f"copy-{next(_numbers)}", self.redis)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def template(
    request: pytest.FixtureRequest, applied: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Template]:
    folder = tmp_path_factory.mktemp("replay")
    if request.param == "lmdb":
        yield Template(applied, folder, "")
        return
    server = start_redis(folder)
    yield Template(applied, folder, server.url)
    server.stop()


def naive_pit(rows: Sequence[dict[str, Any]], user: str, t: int, ttl_us: int | None) -> tuple[Any, ...]:
    """The rule of the design, row by row: largest (event, created, position) in (t - ttl, t]."""
    best: tuple[Any, ...] | None = None
    found = None
    for position, row in enumerate(rows):
        event, created = row["event_timestamp"], row["created"]
        order = (event, event if created is None else created, position)
        alive = event <= t and (ttl_us is None or event > t - ttl_us)
        if row["user"] == user and alive and (best is None or order > best):
            best, found = order, row
    if found is None:
        return (False, None, -1, None)  # visits has a default
    return (True, found["amount"], found["visits"], found["city"])


def known_at(rows: Sequence[dict[str, Any]], t: int) -> list[dict[str, Any]]:
    """What the source holds at t: rows turn up at their created time, in the place that is theirs."""
    return [r for r in rows if (r["event_timestamp"] if r["created"] is None else r["created"]) <= t]


def write_files(repo: Repo, rows: Sequence[dict[str, Any]]) -> None:
    """The rows in source order, in files of four."""
    for n in range(0, max(len(rows), 1), 4):
        repo.write(rows[n : n + 4], f"{n:03}.parquet")


hours = (st.integers(0, 120) | st.integers(20, 26)).map(lambda n: T0 + n * HOUR)  # many of them equal
history = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(USERS[:-1]),
            "event_timestamp": hours,
            "created": st.none() | hours,
            "amount": st.none() | st.integers(0, 99).map(float),
            "visits": st.none() | st.integers(0, 99),
            "city": st.none() | st.sampled_from(["", "Köln", "Rome"]),
        }
    ),
    max_size=25,
)
grid = st.lists(hours, min_size=1, max_size=5, unique=True).map(sorted)


def check(repo: Repo, rows: Sequence[dict[str, Any]], t: int, ttl_us: int | None) -> None:
    expected = [naive_pit(rows, user, t, ttl_us) for user in USERS]
    assert repo.read_online(USERS, t) == expected


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(rows=history, times=grid, ttl=st.booleans(), both=st.booleans())
def test_incremental_runs_replay_any_history(
    template: Template, rows: list[dict[str, Any]], times: list[int], ttl: bool, both: bool
) -> None:
    repo = template.copy(ttl)
    ttl_us = TTL_HOURS * HOUR if ttl else None
    for t in times:
        known = known_at(rows, t)
        write_files(repo, known)
        repo.materialize(t, incremental=True, target="both" if both else "online")
        check(repo, known, t, ttl_us)
        if both:
            key = {(r["user"], r["event_timestamp"], r["created"] or r["event_timestamp"]) for r in known}
            assert repo.offline_rows() == sorted(k for k in key if k[1] <= t)
    shutil.rmtree(repo.path)


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=history, t=hours, ttl=st.booleans(), cut=hours)
def test_explicit_windows_in_any_order_give_the_same(
    template: Template, rows: list[dict[str, Any]], t: int, ttl: bool, cut: int
) -> None:
    repo = template.copy(ttl)
    write_files(repo, rows)
    rows = known_at(rows, t)  # what is created later is not known at t, although the source has it
    cut = min(cut, t)
    repo.materialize(t, start_us=cut, end_us=t, target="online")
    repo.materialize(t, start_us=T0 - DAY, end_us=cut, target="online")
    check(repo, rows, t, TTL_HOURS * HOUR if ttl else None)
    shutil.rmtree(repo.path)


def test_a_row_at_the_very_end_of_the_window_is_in_it(template: Template) -> None:
    repo = template.copy(ttl=False)
    repo.write([{"user": "a", "event_timestamp": T0 + 5, "created": None, "amount": 1.0}])
    repo.materialize(T0 + 4, start_us=T0, end_us=T0 + 4)
    assert repo.read_online(["a"], T0 + 5) == [(False, None, -1, None)]
    repo.materialize(T0 + 5, start_us=T0, end_us=T0 + 5)
    assert repo.read_online(["a"], T0 + 5) == [(True, 1.0, None, None)]


def test_the_ttl_ends_a_row_to_the_microsecond(template: Template) -> None:
    repo = template.copy(ttl=True)
    repo.write([{"user": "a", "event_timestamp": T0, "created": None, "amount": 1.0}])
    end = T0 + TTL_HOURS * HOUR
    repo.materialize(end, incremental=True)
    assert repo.read_online(["a"], end - 1)[0][0]
    assert not repo.read_online(["a"], end)[0][0]
