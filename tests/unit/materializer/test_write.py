"""The online writer: what it sends, what it leaves out, and how long rows live."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest

from fastserve.codec.layout import Layout
from fastserve.codec.rows import read_header
from fastserve.definitions import FeatureView, Field
from fastserve.errors import StoreUnavailableError
from fastserve.online.base import Lifetimes
from fastserve.online.memory import MemoryStore
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US
from fastserve.types import Int64
from materializer.stop import Stop, Stopped
from materializer.write import ViewWriter

TIME = pa.timestamp("us", "UTC")
NOW = 100 * DAY_US


class Watched(MemoryStore):
    """A memory store that notes the batches it is given."""

    def __init__(self) -> None:
        super().__init__("memory://", read_only=False)
        self.puts: list[tuple[list[bytes], list[int] | None]] = []

    async def put_many(self, keys: Any, rows: Any, lifetimes_us: Lifetimes = None) -> int:
        self.puts.append((list(keys), None if lifetimes_us is None else [int(n or 0) for n in lifetimes_us]))
        return await super().put_many(keys, rows, lifetimes_us)


def writer_of(ttl: str | None = None, stop: Stop | None = None) -> ViewWriter:
    view = FeatureView("v", schema=[Field("a", Int64)], ttl=ttl)
    layout = Layout(1, ("a",), (Int64,))
    registered = RegisteredView(view, 7, MappingProxyType({"id": "int64"}), (layout,))
    return ViewWriter(registered, NOW, stop or Stop())


def chunk(*rows: tuple[int, int, int]) -> pa.RecordBatch:
    """Rows of (id, event time, a)."""
    ids, events, values = zip(*rows, strict=True)
    times = pa.array(events, pa.int64()).cast(TIME)
    return pa.record_batch(
        {"id": pa.array(ids), "event_timestamp": times, "created_timestamp": times, "a": pa.array(values)}
    )


async def test_the_latest_row_of_each_key_is_sent_once() -> None:
    store = Watched()
    assert await writer_of().write(store, [[chunk((1, 5, 0), (2, 5, 0), (1, 9, 0))]]) == 2
    assert sorted(store.puts[0][0]) == [b"7:1", b"7:2"]
    [row] = store.get_many([b"7:1"])
    assert row is not None and read_header(row) == (1, 9, 9)


async def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.write.PUT_ROWS", 2)
    store = Watched()
    await writer_of().write(store, [[chunk(*((n, 5, 0) for n in range(5)))]])
    assert [len(keys) for keys, _ in store.puts] == [2, 2, 1]


async def test_keys_of_a_newer_date_are_not_sent_again_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, writer = Watched(), writer_of()
    await writer.write(store, [[chunk((1, 2 * DAY_US, 0)), chunk((1, 2 * DAY_US + 1, 0))]])
    await writer.write(store, [[chunk((1, DAY_US, 0), (2, DAY_US, 0))]])
    # Within a date nothing is left out: its chunks are in no order of time.
    assert [keys for keys, _ in store.puts] == [[b"7:1"], [b"7:1"], [b"7:2"]]
    monkeypatch.setattr("materializer.write.SEEN_KEYS", 0)
    writer = writer_of()
    await writer.write(store, [[chunk((3, 0, 0))]])
    await writer.write(store, [[chunk((3, -1, 0))]])
    assert [keys for keys, _ in store.puts[3:]] == [[b"7:3"], [b"7:3"]]


async def test_without_ttl_rows_stay_for_ever() -> None:
    store = Watched()
    await writer_of().write(store, [[chunk((1, -DAY_US, 0))]])
    assert store.puts[0][1] is None


async def test_with_ttl_rows_live_for_two_of_it_and_a_day() -> None:
    store = Watched()
    oldest = NOW - 2 * DAY_US - DAY_US  # ttl 1d
    await writer_of("1d").write(store, [[chunk((1, NOW, 0), (2, oldest + 1, 0), (3, oldest, 0))]])
    assert store.puts == [([b"7:1", b"7:2"], [3 * DAY_US, 1])]


async def test_a_ttl_longer_than_time_itself_is_as_good_as_none() -> None:
    store = Watched()
    await writer_of("99999999d").write(store, [[chunk((1, NOW, 0))]])
    assert store.get_many([b"7:1"]) != [None]


async def test_stop_is_looked_at_before_every_batch() -> None:
    store, stop = Watched(), Stop()
    stop.signum = 15
    with pytest.raises(Stopped):
        await writer_of(stop=stop).write(store, [[chunk((1, 5, 0))]])
    assert store.puts == []


async def test_the_next_chunk_is_read_while_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.write.PUT_ROWS", 1)
    second_is_read = threading.Event()

    class Slow(Watched):
        async def put_many(self, keys: Any, rows: Any, lifetimes_us: Lifetimes = None) -> int:
            assert await asyncio.to_thread(second_is_read.wait, 10), "it reads only what it has room for"
            return await super().put_many(keys, rows, lifetimes_us)

    def chunks() -> Iterator[pa.RecordBatch]:
        yield chunk((1, 5, 0), (2, 5, 0))
        second_is_read.set()
        yield chunk((3, 5, 0))

    store = Slow()
    assert await writer_of().write(store, [chunks()]) == 3
    assert [keys for keys, _ in store.puts] == [[b"7:1"], [b"7:2"], [b"7:3"]]


async def test_it_is_not_left_before_what_it_reads_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.write.PUT_ROWS", 1)
    began, go_on, read = threading.Event(), threading.Event(), list[str]()

    class Down(Watched):
        async def put_many(self, keys: Any, rows: Any, lifetimes_us: Lifetimes = None) -> int:
            assert await asyncio.to_thread(began.wait, 10)
            asyncio.get_running_loop().call_later(0.01, go_on.set)
            raise StoreUnavailableError("down")

    def chunks() -> Iterator[pa.RecordBatch]:
        yield chunk((1, 5, 0), (2, 5, 0))
        began.set()
        assert go_on.wait(10)
        read.append("second")
        yield chunk((3, 5, 0))

    with pytest.raises(StoreUnavailableError):
        await writer_of().write(Down(), [chunks()])
    assert read == ["second"]


async def test_the_next_date_is_read_while_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.write.PUT_ROWS", 1)
    second_is_read = threading.Event()

    class Slow(Watched):
        async def put_many(self, keys: Any, rows: Any, lifetimes_us: Lifetimes = None) -> int:
            assert await asyncio.to_thread(second_is_read.wait, 10), "it waits for the date's end"
            return await super().put_many(keys, rows, lifetimes_us)

    def older() -> Iterator[pa.RecordBatch]:
        second_is_read.set()
        yield chunk((1, 5, 0), (3, 5, 0))

    store = Slow()
    newer = [chunk((1, DAY_US, 0), (2, DAY_US, 0))]
    assert await writer_of().write(store, [newer, older()]) == 3
    assert [keys for keys, _ in store.puts] == [[b"7:1"], [b"7:2"], [b"7:3"]]


@pytest.mark.parametrize("seen_keys", [10, 1])
async def test_batches_are_waited_for_where_their_order_counts(
    monkeypatch: pytest.MonkeyPatch, seen_keys: int
) -> None:
    """Between two chunks of a date; between dates once keys are not remembered any more."""
    monkeypatch.setattr("materializer.write.SEEN_KEYS", seen_keys)

    class Noting(Watched):
        said = ""

        async def put_many(self, keys: Any, rows: Any, lifetimes_us: Lifetimes = None) -> int:
            Noting.said += "("
            for _ in range(20):
                await asyncio.sleep(0)
            Noting.said += ")"
            return await super().put_many(keys, rows, lifetimes_us)

    dates = [
        [chunk((1, 2 * DAY_US, 0))],
        [chunk((2, DAY_US, 0)), chunk((3, DAY_US, 0))],
        [chunk((4, 0, 0))],
    ]
    assert await writer_of().write(Noting(), dates) == 4
    assert Noting.said == ("(())(())" if seen_keys == 10 else "()()()()")
