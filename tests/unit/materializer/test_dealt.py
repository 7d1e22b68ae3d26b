"""Rows dealt out by date into files come back as a spill gives them: by date, in source order."""

from __future__ import annotations

import pickle
from collections import defaultdict
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve.errors import OfflineStoreError
from materializer.moves import dealt
from materializer.moves.dealt import Dealt
from materializer.shards.deal import ByDate, Dealer
from materializer.shards.workdir import OwnedDir
from materializer.spill import grouped
from tests.unit.materializer.test_spill import SCHEMA, batch_of, day_of, times_of_some_days


@given(files=st.lists(times_of_some_days, max_size=3), buffer_bytes=st.sampled_from([1, 400, 1 << 20]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_by_date_in_source_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[list[list[int]]], buffer_bytes: int
) -> None:
    expected: dict[date, list[int]] = defaultdict(list)
    work, written, n = OwnedDir(str(tmp_path)), [], 0
    for batches in files:
        with Dealer(work.dir, "rows", SCHEMA, ByDate(), buffer_bytes) as dealer:
            for times in batches:
                dealer.add(batch_of(times, n))
                for us in times:
                    expected[day_of(us)].append(n)
                    n += 1
            written.append(dealer.close())
    rows = pickle.loads(pickle.dumps(Dealt.of(work.dir, SCHEMA, written)))
    monkeypatch.setattr(dealt, "CHUNK_BYTES", 1_000)
    assert rows.dates() == sorted(expected, reverse=True)
    assert [day for days in grouped(rows, 3) for day in days] == rows.dates()
    for day, numbers in expected.items():
        assert rows.rows_of(day) == len(numbers)
        chunks = list(rows.only([day]).chunks(day))
        assert [n for chunk in chunks for n in chunk.column("n").to_pylist()] == numbers
        assert list(rows.chunks(day, last_first=True)) == chunks[::-1]
    work.close()
    for day in rows.dates()[:1]:
        with pytest.raises(OfflineStoreError, match="--work URL"):
            list(rows.chunks(day))
