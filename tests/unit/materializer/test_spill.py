"""The spill: rows come back by date, in source order, whatever the order they came in."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.timeutil import DAY_US
from materializer.spill import Spill, grouped

TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([("event_timestamp", TIME), ("n", pa.int64()), ("text", pa.string())])


def batch_of(times: list[int], first: int = 0) -> pa.RecordBatch:
    numbers = range(first, first + len(times))
    texts = [None if n % 3 == 0 else f"row {n}" for n in numbers]
    columns = [pa.array(times, pa.int64()).cast(TIME), pa.array(numbers), pa.array(texts, pa.string())]
    return pa.record_batch(columns, schema=SCHEMA)


def filled(batches: list[list[int]], **options: int) -> Spill:
    spill = Spill(SCHEMA, **options)
    first = 0
    for times in batches:
        spill.add(batch_of(times, first))
        first += len(times)
    spill.flush()
    return spill


def day_of(us: int) -> date:
    return date(1970, 1, 1) + timedelta(days=us // DAY_US)


times_of_some_days = st.lists(
    st.lists(st.integers(-3 * DAY_US, 3 * DAY_US) | st.sampled_from([0, -1, DAY_US - 1, DAY_US])), max_size=6
)


@settings(deadline=None)  # it writes files: how long that takes is the machine's
@given(times_of_some_days, st.sampled_from([1, 400, 1 << 20]))
def test_rows_come_back_by_date_in_source_order(batches: list[list[int]], buffer_bytes: int) -> None:
    expected: dict[date, list[int]] = defaultdict(list)
    for n, us in enumerate(us for times in batches for us in times):
        expected[day_of(us)].append(n)
    with filled(batches, buffer_bytes=buffer_bytes) as spill:
        assert spill.dates() == sorted(expected, reverse=True)
        assert spill.n_rows == sum(map(len, batches))
        for day, numbers in expected.items():
            chunks = list(spill.chunks(day))
            assert [n for chunk in chunks for n in chunk.column("n").to_pylist()] == numbers
            assert all(chunk.schema == SCHEMA for chunk in chunks)
            texts = [t for chunk in chunks for t in chunk.column("text").to_pylist()]
            assert texts == [None if n % 3 == 0 else f"row {n}" for n in numbers]
            assert spill.rows_of(day) == len(numbers)


def test_last_first_turns_the_chunks_around_and_not_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.spill.CHUNK_BYTES", 1)
    with filled([[0, 1], [2, 3], [4, 5]], buffer_bytes=1) as spill:
        [day] = spill.dates()
        assert [c.column("n").to_pylist() for c in spill.chunks(day, last_first=True)] == [
            [4, 5],
            [2, 3],
            [0, 1],
        ]


def test_small_messages_are_read_together() -> None:
    with filled([[n] for n in range(100)], buffer_bytes=1) as spill:
        [day] = spill.dates()
        assert len(list(spill.chunks(day))) == 1


def test_the_digest_is_of_the_rows_their_order_and_the_salt() -> None:
    def digest(batches: list[list[int]], salt: str = "") -> str:
        spill = Spill(SCHEMA, salt=salt)
        with spill:
            for times in batches:
                spill.add(batch_of(times))
            spill.flush()
            return spill.digest(date(1970, 1, 1))

    base = digest([[1, 2, 3]])
    assert digest([[1, 2, 3]]) == base
    assert digest([[1, 2], [3]]) != base  # other rows: the numbers start again
    assert digest([[1, 3, 2]]) != base
    assert digest([[1, 2]]) != base
    assert digest([[1, 2, 3]], salt="layout 2") != base
    assert digest([[1, 2, 3], [DAY_US]]) == base  # other dates do not matter


def test_nothing_is_left_behind_and_files_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    many_days = [[day * DAY_US for day in range(500)]] * 3
    with filled(many_days, buffer_bytes=1) as spill:
        assert len(spill.dates()) == 500
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert list(tmp_path.iterdir()) == []  # unlinked: a killed run leaves nothing
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_empty_scan_has_no_dates() -> None:
    with filled([[]]) as spill:
        assert spill.dates() == []
        assert spill.n_rows == 0


def test_small_dates_go_together_and_large_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.spill.GROUP_ROWS", 4)
    monkeypatch.setattr("materializer.spill.GROUP_DATES", 3)
    sizes = [1, 1, 1, 1, 9, 2, 2, 1]  # of days 0, 1, …
    with filled([[day * DAY_US] * size for day, size in enumerate(sizes)]) as spill:
        groups = [[(day - date(1970, 1, 1)).days for day in group] for group in grouped(spill)]
    assert groups == [[7, 6], [5], [4], [3, 2, 1], [0]]
