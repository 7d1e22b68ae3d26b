"""Rows staged by one process and committed by another, while others write to the table."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pytest

from fastserve.offline.delta import OfflineTable
from fastserve.offline.staged import commit, prepare, rows_by_date, stage
from fastserve.timeutil import DAY_US
from tests.unit.offline.test_delta import START, batch, read, view

FIRST = date(2024, 3, 10)
SECOND = FIRST + timedelta(days=1)


@pytest.fixture
def table(tmp_path):
    made = OfflineTable(str(tmp_path), "p", view())
    prepare(made)
    return made


def rows(table, values, day=FIRST):
    """A row of user `n` for each value, all of one date."""
    given = [(n, 5, 5, value) for n, value in enumerate(values)]
    return [batch(table.rv, given, START + (day - FIRST).days * DAY_US)]


def test_staged_rows_are_seen_once_they_are_committed_all_dates_at_once(table):
    staged = [stage(table, day, lambda day=day: rows(table, [1, 2], day)) for day in (FIRST, SECOND)]
    version = table.version
    assert read(table) == [] and [one.rows_new for one in staged] == [2, 2]
    assert commit(table, staged) == []
    assert read(table) == [1, 1, 2, 2] and table.version == version + 1
    assert rows_by_date(table) == {"2024-03-10": 2, "2024-03-11": 2}
    again = stage(table, FIRST, lambda: rows(table, [8, 9]))
    assert (again.adds, again.rows_new) == ((), 0)  # the first written stays
    assert commit(table, [again]) == [] and table.version == version + 1


def test_a_date_that_another_writer_changed_is_staged_again_and_no_other(table):
    staged = [stage(table, day, lambda day=day: rows(table, [1, 2], day)) for day in (FIRST, SECOND)]
    table.append_new(rows(table, [7]))  # a push of user 0, as staged
    stale = commit(table, staged)
    assert [one.day for one in stale] == [FIRST]
    assert read(table) == [1, 2, 7]
    once_more = stage(table, FIRST, lambda: rows(table, [1, 2]))
    assert once_more.rows_new == 1 and commit(table, [once_more]) == []
    assert read(table) == [1, 2, 2, 7]


def test_files_of_a_date_have_what_readers_prune_by(table):
    commit(table, [stage(table, SECOND, lambda: rows(table, [1, None], SECOND))])
    actions = pa.table(table.open().get_add_actions(flatten=True)).to_pylist()
    [found] = actions
    assert (found["num_records"], found["null_count.a"]) == (2, 1)
    assert read(table, start_us=START + DAY_US + 6) == []
    found = table.read(["a"], start_us=START + DAY_US, end_us=START + DAY_US + 6)
    assert sum(part.num_rows for part in found) == 2
