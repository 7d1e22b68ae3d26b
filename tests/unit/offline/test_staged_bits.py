"""Staged rows are seen once they are committed, bit by bit as given."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fastserve.offline.delta import OfflineTable
from fastserve.offline.schema import canonical_schema
from fastserve.offline.staged import Staged, commit, prepare, rows_by_date, stage
from tests.integration.materializer.repo import HOUR, T0, Repo

FIRST = date(2013, 1, 1)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo.make(tmp_path_factory.mktemp("staged") / "repo")


@pytest.fixture
def table(repo: Repo, tmp_path: Path) -> OfflineTable:
    made = OfflineTable(str(tmp_path), "test", repo.view())
    prepare(made)
    return made


def rows(table: OfflineTable, amounts: list[float], start: int = T0) -> pa.RecordBatch:
    """A row an hour."""
    times = [start + n * HOUR for n in range(len(amounts))]
    columns: dict[str, list[Any]] = {
        "user": [f"u{n}" for n in range(len(amounts))],
        "event_timestamp": times,
        "created_timestamp": times,
        "amount": amounts,
        "visits": [None] * len(amounts),
        "city": ["Köln"] * len(amounts),
        "_layout": [table.rv.layout.layout_id] * len(amounts),
    }
    schema = canonical_schema(table.rv)
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def staged(table: OfflineTable, *batches: pa.RecordBatch, day: date = FIRST) -> Staged:
    return stage(table, day, lambda: batches)


def test_rows_are_seen_after_the_commit_bit_by_bit(table: OfflineTable) -> None:
    amounts = [0.0, -0.0, math.nan, math.inf, 5e-324, -math.nan, 0.0]
    given = rows(table, amounts)
    one = staged(table, given)
    assert not list(table.read()) and one.rows_new == 7 and one.n_bytes > 0
    assert commit(table, [one]) == []
    found = pa.Table.from_batches(list(table.read())).sort_by("event_timestamp")
    read = found["amount"].to_numpy().tobytes()
    assert read == given.column("amount").to_numpy().tobytes()
    assert rows_by_date(table) == {"2013-01-01": 7}
    assert staged(table, given).adds == ()
    later = list(table.read(["amount"], T0 + 5 * HOUR, T0 + 6 * HOUR))
    assert [batch.num_rows for batch in later] == [1]
