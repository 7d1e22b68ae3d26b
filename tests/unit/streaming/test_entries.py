"""Entries: what a producer writes is read again; nothing that anybody writes raises."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.streaming.applying import prepare
from fastserve.streaming.entries import Entry, decode_entries, encode_entry
from fastserve.streaming.events import cast_events
from fastserve.streaming.seen import SeenIds
from fastserve.streaming.state import ShardState
from fastserve.streaming.tiles import ViewTiles
from tests.unit.streaming.feeds import T0, feed_of, payments, spend

SOURCE = payments()
FEED = feed_of(SOURCE, spend(SOURCE), spend(SOURCE, "paid", filter="status = 'paid' AND amount / 2 > 1"))
VIEWS = [ViewTiles(rv) for rv in FEED.views]


def batch_of(n: int = 50) -> pa.RecordBatch:
    times = pa.array([T0 + i for i in range(n)], pa.timestamp("us", "UTC"))
    table = pa.table({"card_id": list(range(n)), "event_timestamp": times, "payment_id": [f"p{i}" for i in range(n)],
                      "amount": [i / 2 for i in range(n)], "status": (["paid", None] * n)[:n]})  # fmt: skip
    return cast_events(FEED, table, [])


def entry(fields: dict[bytes, bytes], number: int = 0) -> Entry:
    return Entry(f"{T0 // 1_000}-{number}", T0 + 999, fields)


def apply(fields: dict[bytes, bytes]) -> int:
    """How many dead letters; a good entry beside it counts all the same."""
    entries = [entry(fields), entry(encode_entry(batch_of(2)), 1)]
    made = prepare(FEED, VIEWS, ShardState(), SeenIds(SOURCE.lateness_us), entries)
    assert made.batch.num_rows >= 2 or b"arrow" in fields
    return len(made.decoded.dead)


def test_what_was_written_is_read() -> None:
    batch = batch_of()
    found = decode_entries(FEED, [entry(encode_entry(batch)), entry(encode_entry(batch_of(3)), 1)])
    assert found.batch.slice(0, 50).equals(batch)
    assert found.entry.tolist() == [0] * 50 + [1] * 3
    assert found.row.tolist() == [*range(50), 0, 1, 2]
    assert found.dead == []


def test_an_entry_is_no_larger_than_it_must_be() -> None:
    """Arrow's frame is paid once for 500 events."""
    assert len(encode_entry(batch_of(500))[b"arrow"]) < 500 * 60


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_arrow_never_raises(data: st.DataObject) -> None:
    whole = bytearray(encode_entry(batch_of())[b"arrow"])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    apply({b"arrow": bytes(whole[: len(whole) - cut * 40])})


@given(body=st.binary(max_size=60) | st.from_regex(r"\{.*\}", fullmatch=True).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_any_json_never_raises(body: bytes) -> None:
    apply({b"json": body})


ODD = [
    pa.array([2**63 - 1, 1], pa.timestamp("ns")),
    pa.array([2**62, 1], pa.timestamp("s", "UTC")),
    pa.array([dt.timedelta(1), None]),
    pa.array([{"a": 1}, None]),
    pa.array([[1], None]),
    pa.array([b"\xff\xfe", b""]),
    pa.array(["a", "a"]).dictionary_encode(),
    pa.nulls(2),
    pa.array([1.5, float("nan")]),
    pa.array([2**63, 2**64 - 1], pa.uint64()),
    pa.array([True, False]),
    pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    pa.array([10**30, 1], pa.decimal128(38, 3)),
    pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    pa.array(np.float16([1, 2])),
]


@pytest.mark.parametrize("values", ODD, ids=lambda values: str(values.type))
@pytest.mark.parametrize("name", FEED.columns)
def test_columns_of_any_type_never_raise(name: str, values: pa.Array) -> None:
    batch = batch_of(2)
    columns = {n: values if n == name else batch[n] for n in batch.schema.names}
    apply(dict(encode_entry(pa.RecordBatch.from_pydict(columns))))


def test_two_columns_of_one_name_are_a_dead_letter() -> None:
    batch = batch_of(2)
    twice = pa.RecordBatch.from_arrays([*batch.columns, batch["amount"]], [*batch.schema.names, "amount"])
    assert apply(dict(encode_entry(twice))) >= 1
