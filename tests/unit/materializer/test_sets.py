"""Dates into every row set: how often the store is asked, and what happens when the sets move meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fastserve.errors import UnknownObjectError
from fastserve.online import OnlineStore
from fastserve.online.live import RowSets, look, move
from fastserve.registry import Registry, open_registry
from materializer.reclaim import count
from materializer.sets import SetsWriter
from materializer.stop import Stop
from materializer.write import PUT_ROWS, OnlineSink
from tests.integration.registry.objects import USER, view

DAYS = [date(2024, 1, 3) - timedelta(days=n) for n in range(3)]
TIME = pa.timestamp("us", "UTC")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(f"sqlite:///{tmp_path}/registry.db", "demo") as opened:
        opened.apply([USER, view(ttl=None)])
        yield opened


class Counting(OnlineSink):
    """A sink that counts what is asked, and moves the row sets after the n-th write.

    Attributes:
        calls: name of the call -> how often.
        moves: number of the write -> what is done after it was written.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, "registry")
        self.calls = {"look": 0, "write": 0}
        self.moves: dict[int, RowSets] = {}

    def look(self, registered: Any) -> RowSets:
        self.calls["look"] += 1
        return super().look(registered)

    def write(self, writer: Any, dates: Any) -> int:
        written = super().write(writer, dates)
        self.calls["write"] += 1
        if (after := self.moves.pop(self.calls["write"], None)) is not None:
            self.do(lambda store: moved(store, after))
        return written


async def moved(store: OnlineStore, after: RowSets) -> None:
    view_id = after.view_id
    await move(store, (await look(store, {view_id: view_id}))[view_id], after)


def chunks(n: int) -> Callable[[date], Iterator[pa.RecordBatch]]:
    """n rows of users 0 … n - 1 on each date."""

    def of(day: date) -> Iterator[pa.RecordBatch]:
        moment = (day - date(1970, 1, 1)).days * 86_400_000_000
        times = pa.array([moment] * n, pa.int64()).cast(TIME)
        yield pa.record_batch(
            {
                "user_id": pa.array(range(n), pa.int64()),
                "event_timestamp": times,
                "created_timestamp": times,
                "clicks": pa.array([1] * n, pa.int64()),
                "spend": pa.array([0.5] * n),
            }
        )

    return of


def test_one_look_a_group_whatever_its_rows(registry: Registry) -> None:
    with Counting("memory://looks") as online:
        writer = SetsWriter(online, registry, registry.snapshot().view("stats"), 0, Stop())
        for group in range(1, 4):
            assert writer.write(DAYS[group - 1 : group], chunks(3 * PUT_ROWS)) in (3 * PUT_ROWS, 0)
            assert online.calls == {"look": 1 + group, "write": group}


def test_a_set_that_comes_up_gets_the_whole_group_and_all_that_follow(registry: Registry) -> None:
    rv = registry.snapshot().view("stats")
    other = registry.online_ids.allocate(rv.view_id)
    with Counting("memory://comes") as online:
        online.moves[1] = RowSets(rv.view_id, rv.view_id, other, "building")
        writer = SetsWriter(online, registry, rv, 0, Stop())
        assert writer.write(DAYS[:2], chunks(5)) == 5
        assert [online.do(lambda store, n=n: count(store, n)) for n in (rv.view_id, other)] == [5, 5]
        assert online.calls == {"look": 3, "write": 2}
        writer.write(DAYS[2:], chunks(7))
        assert [online.do(lambda store, n=n: count(store, n)) for n in (rv.view_id, other)] == [7, 7]


def test_a_set_that_is_given_up_meanwhile_is_looked_at_again(registry: Registry) -> None:
    rv = registry.snapshot().view("stats")
    other = registry.online_ids.allocate(rv.view_id)
    with Counting("memory://goes") as online:
        online.do(lambda store: moved(store, RowSets(rv.view_id, other, rv.view_id, "kept")))
        online.moves[1] = RowSets(rv.view_id, other)
        registry.online_ids.mark_gone(rv.view_id, [rv.view_id])
        SetsWriter(online, registry, rv, 0, Stop()).write(DAYS[:1], chunks(2))
        assert [one.gone_us for one in registry.online_ids.of_view(rv.view_id)] == [None, None]


def test_a_retired_view_is_not_written(registry: Registry) -> None:
    rv = registry.snapshot().view("stats")
    with Counting("memory://retired") as online:
        online.do(lambda store: moved(store, RowSets(rv.view_id, rv.view_id, role="retired")))
        with pytest.raises(UnknownObjectError, match="retired"):
            SetsWriter(online, registry, rv, 0, Stop()).write(DAYS, chunks(1))
        assert online.calls["write"] == 0


def test_a_newer_date_may_come_after_an_older_one(tmp_path: Path, registry: Registry) -> None:
    """Tasks that are run again come late, in a process that has done older dates."""
    rv = registry.snapshot().view("stats")
    with Counting(f"lmdb://{tmp_path}/online?sync=off") as online:
        writer = SetsWriter(online, registry, rv, 0, Stop())
        assert writer.write(DAYS[1:2], chunks(3)) == 3
        assert writer.write(DAYS[2:3], chunks(4)) == 1
        assert writer.write(DAYS[:1], chunks(3)) == 3
        assert writer.write(DAYS[1:], chunks(3)) == 0
