"""Statistics of runs in SQL: a row a run, or a month of older ones.

A run that read all rows of its window takes the place of those whose rows lie within it, so that a run that is
repeated counts once. An incremental run adds what no run before it had read.

    run 1   all of       [───── 1 ─────)
    run 2   new rows           · ·     [─ 2 ─)      beside 1: its late rows are no part of it
    run 3   all of       [────────── 3 ──────)      in the place of both
    run 4   all of                    [── 4 ──)     beside 3: both have read the rows they share: `overlapping`
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastserve.registry.schema import statistics as table
from fastserve.timeutil import format_timestamp

if TYPE_CHECKING:
    from fastserve.statistics import ViewStatistics

KEEP_RUNS: Final = 90
"""Runs of a view whose statistics are kept apart; once there are twice as many, older ones are merged by month."""


@dataclass(frozen=True, slots=True, eq=False)
class RunStatistics:
    """What a run leaves.

    Attributes:
        found: of the rows it read; None when there were none.
        start_us, end_us: event times ``[start_us, end_us)`` of which it read all rows; start None for all before.
        late: it also read rows from before `start_us`, those that no run before it had read.
    """

    found: ViewStatistics | None
    start_us: int | None
    end_us: int
    late: bool = False


def write_statistics(connection: sa.Connection, view_id: int, run_id: int, run: RunStatistics) -> None:
    """Note what a run read, instead of what it read again."""
    again = [table.c.view_id == view_id, table.c.end_us <= run.end_us]
    if run.start_us is not None:
        again.append(table.c.start_us >= run.start_us)
    connection.execute(sa.delete(table).where(*again))
    if run.found is None:
        return
    found = run.found
    if _shares_rows(connection, view_id, run, found):
        found = replace(found, overlapping=True)
    _insert(connection, view_id, run_id, found, run.late)
    _compact(connection, view_id)


def read_statistics(
    connection: sa.Connection, view_id: int, start_us: int | None, end_us: int | None
) -> ViewStatistics | None:
    """Those within the times, merged."""
    where = [table.c.view_id == view_id]
    if start_us is not None:
        where.append(table.c.start_us >= start_us)
    if end_us is not None:
        where.append(table.c.end_us <= end_us)
    query = sa.select(table.c.body).where(*where).order_by(table.c.start_us, table.c.id)
    return _merged([row.body for row in connection.execute(query)])


def _shares_rows(connection: sa.Connection, view_id: int, run: RunStatistics, found: ViewStatistics) -> bool:
    """Whether an earlier run, whose statistics stay, has read some of the rows too."""
    first = found.start_us
    if run.late and run.start_us is not None:
        first = max(first, run.start_us)
    where = (table.c.view_id == view_id, table.c.start_us < found.end_us, table.c.end_us > first)
    return connection.execute(sa.select(table.c.id).where(*where).limit(1)).first() is not None


def _insert(
    connection: sa.Connection, view_id: int, run_id: int | None, found: ViewStatistics, late: bool
) -> None:
    values = {"view_id": view_id, "run_id": run_id, "late": late, "body": found.to_bytes()}
    connection.execute(sa.insert(table).values(start_us=found.start_us, end_us=found.end_us, **values))


def _compact(connection: sa.Connection, view_id: int) -> None:
    """Merge by the month they begin in all but the newest KEEP_RUNS, once there are twice as many."""
    where = table.c.view_id == view_id
    n = connection.scalar(
        sa.select(sa.func.count()).select_from(table).where(where, table.c.run_id.is_not(None))
    )
    if int(n or 0) < 2 * KEEP_RUNS:
        return
    query = sa.select(table).where(where).order_by(table.c.start_us, table.c.id)
    rows = list(connection.execute(query))
    newest = {row.id for row in sorted(rows, key=lambda row: row.id)[-KEEP_RUNS:]}
    for _, group in groupby((row for row in rows if row.id not in newest), key=_month):
        month = list(group)
        if len(month) < 2:
            continue
        found = _merged([row.body for row in month])
        assert found is not None
        connection.execute(sa.delete(table).where(table.c.id.in_([row.id for row in month])))
        _insert(connection, view_id, None, found, all(row.late for row in month))


def _month(row: Any) -> str:
    return format_timestamp(row.start_us)[:7]


def _merged(bodies: list[bytes]) -> ViewStatistics | None:
    from fastserve.statistics import ViewStatistics  # noqa: PLC0415  (Arrow: most readers need none of it)

    merged: ViewStatistics | None = None
    for body in bodies:
        one = ViewStatistics.from_bytes(body)
        merged = one if merged is None else merged.merged(one)
    return merged
