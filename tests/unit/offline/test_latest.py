"""The latest row of every key, against a dictionary that does the same row by row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.offline.latest import latest_rows

TIME = pa.timestamp("us", "UTC")
TYPES = {"string": pa.string(), "int64": pa.int64(), "bool": pa.bool_(), "bytes": pa.binary()}
VALUES = {
    "string": st.sampled_from(["", "a", "b", "a|b", "é"]),
    "int64": st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1]),
    "bool": st.booleans(),
    "bytes": st.sampled_from([b"", b"\x00", b"\x00\x00", b"a"]),
}


def batch_of(rows: list[tuple[Any, ...]], types: list[str]) -> pa.RecordBatch:
    """Rows of (*keys, event, created)."""
    columns = list(zip(*rows, strict=True)) or [()] * (len(types) + 2)
    arrays = {f"k{i}": pa.array(columns[i], TYPES[kind]) for i, kind in enumerate(types)}
    arrays["event_timestamp"] = pa.array(columns[-2], pa.int64()).cast(TIME)
    arrays["created_timestamp"] = pa.array(columns[-1], pa.int64()).cast(TIME)
    return pa.record_batch(arrays)


def naive_latest(rows: list[tuple[Any, ...]]) -> list[int]:
    best: dict[Any, int] = {}
    for i, (*key, event, created) in enumerate(rows):
        held = best.get(tuple(key))
        if held is None or (event, created) >= rows[held][-2:]:
            best[tuple(key)] = i
    return sorted(best.values())


@given(st.data())
def test_the_largest_event_created_and_position_wins(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=3))
    row = st.tuples(*(VALUES[kind] for kind in types), st.integers(-3, 3), st.integers(-2, 2))
    rows = data.draw(st.lists(row, max_size=40))
    names = [f"k{i}" for i in range(len(types))]
    assert latest_rows(batch_of(rows, types), names).tolist() == naive_latest(rows)


def test_of_equal_rows_the_last_position_wins() -> None:
    batch = batch_of([("a", 5, 5), ("b", 5, 5), ("a", 5, 5)], ["string"])
    assert latest_rows(batch, ["k0"]).tolist() == [1, 2]


def test_composite_keys_beyond_the_range_of_one_code_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastserve.offline.latest._CODE_LIMIT", 5)  # forces the codes to be made dense again
    rows = [(a, b, c, 1, 1) for a in range(3) for b in range(3) for c in range(3)]
    batch = batch_of(rows, ["int64"] * 3)
    assert latest_rows(batch, ["k0", "k1", "k2"]).tolist() == list(range(27))


def test_a_slice_counts_rows_from_its_own_start() -> None:
    batch = batch_of([("x", 9, 9), ("a", 1, 1), ("a", 2, 1), ("b", 1, 1)], ["string"]).slice(1)
    assert latest_rows(batch, ["k0"]).tolist() == [1, 2]
