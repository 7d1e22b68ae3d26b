"""The ledger of materialization in SQL: runs and their partitions, covered intervals, cursors."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fastserve.errors import AlreadyRunningError, RegistryError
from fastserve.registry.engine import Database
from fastserve.registry.run_statistics import RunStatistics, read_statistics, write_statistics
from fastserve.registry.runs import (
    Cursor,
    Interval,
    Partition,
    Run,
    RunTarget,
    Target,
    coalesce,
)
from fastserve.registry.schema import backfill_dates, cursors, intervals, meta, partitions, runs, views
from fastserve.timeutil import DAY_US, MAX_US, format_timestamp, now_us

if TYPE_CHECKING:
    from fastserve.statistics import ViewStatistics

KEEP_INTERVALS: Final = 500
"""Raw intervals kept per view and target; older ones are merged, so that the table stays small."""

_RECONCILED: Final = "reconciled:"
_INTERVAL: Final = (
    intervals.c.view_id,
    intervals.c.target,
    intervals.c.start_us,
    intervals.c.end_us,
    intervals.c.rows,
    intervals.c.run_id,
    intervals.c.finished_us,
)


class Ledger:
    """What has been materialized. Callers hold `lock_view` while they run."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self.project = project

    # ---- intervals and cursors -------------------------------------------------------------------

    def record_interval(self, interval: Interval, *, cursor: Cursor | None = None) -> None:
        """Record what a finished write covers and how far the source was read, in one transaction."""
        with self._database.write() as connection:
            _record(connection, [interval], [cursor] if cursor else [])

    def intervals(self, view_id: int, target: Target, *, raw: bool = False) -> list[Interval]:
        """What a target holds, merged and ascending; or `raw`, in the order recorded."""
        with self._database.read() as connection:
            found = _read_intervals(connection, view_id, target)
        return found if raw else coalesce(found)

    def get_cursor(self, view_id: int, target: Target) -> Cursor | None:
        """How far the source has been read; None when it never was."""
        query = sa.select(cursors).where(cursors.c.view_id == view_id, cursors.c.target == target)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return Cursor(**row._mapping) if row else None

    def set_cursor(self, cursor: Cursor) -> None:
        """Set a cursor exactly; also back, to have the source read again."""
        with self._database.write() as connection:
            _record(connection, [], [cursor])

    # ---- runs ------------------------------------------------------------------------------------

    def start_run(
        self,
        view_id: int,
        target: RunTarget,
        start_us: int | None,
        end_us: int,
        *,
        fingerprint: str = "",
    ) -> int:
        """Begin a run over event times ``[start_us, end_us)``; returns its id.

        A run of the view still marked running lost its process (the caller holds the lock): it is marked
        failed. Partitions of runs that completed earlier are forgotten.
        """
        run = {
            "view_id": view_id,
            "target": target,
            "start_us": start_us,
            "end_us": end_us,
            "fingerprint": fingerprint,
        }
        with self._database.write() as connection:
            _bury(connection, view_id)
            done = sa.select(runs.c.run_id).where(runs.c.view_id == view_id, runs.c.status == "complete")
            connection.execute(sa.delete(partitions).where(partitions.c.run_id.in_(done)))
            values = run | _running() | {"started_us": now_us()}
            made = connection.execute(sa.insert(runs).values(**values)).inserted_primary_key
            assert made is not None
            return int(made[0])

    def unfinished_run(self, view_id: int, target: RunTarget | None = None) -> Run | None:
        """The view's newest run (of that target), if it did not complete: the one to resume."""
        query = sa.select(runs).where(runs.c.view_id == view_id)
        if target is not None:
            query = query.where(runs.c.target == target)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(runs.c.run_id.desc()).limit(1)).one_or_none()
        return Run(**row._mapping) if row and row.status != "complete" else None

    def resume_run(self, run_id: int) -> Run:
        """Take over a run that did not complete; its finished partitions need not be done again."""
        with self._database.write() as connection:
            run = _open_run(connection, run_id)
            _bury(connection, run.view_id)
            connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(**_running()))
            return _open_run(connection, run_id)

    def mark_partitions(self, finished: Sequence[Partition]) -> None:
        """Note dates of one run as written, in one transaction; again, it replaces the note.

        Raises:
            AlreadyRunningError: this process lost the run: another one resumed or superseded it.
        """
        if not finished:
            return
        with self._database.write() as connection:
            _own_run(connection, finished[0].run_id)
            for one in finished:
                key = {"run_id": one.run_id, "date": one.date, "target": one.target}
                values = {"rows": one.rows, "digest": one.digest, "finished_us": now_us()}
                upsert(connection, partitions, key, values)

    def partitions(self, run_id: int) -> list[Partition]:
        """The run's finished partitions, by date and target."""
        query = (
            sa.select(partitions)
            .where(partitions.c.run_id == run_id)
            .order_by(partitions.c.date, partitions.c.target)
        )
        with self._database.read() as connection:
            return [Partition(**row._mapping) for row in connection.execute(query)]

    def finish_run(
        self,
        run_id: int,
        intervals: Sequence[Interval] = (),
        cursors: Sequence[Cursor] = (),
        statistics: RunStatistics | None = None,
    ) -> None:
        """Complete a run: its status, what it covered, the cursors and statistics, all in one transaction.

        Raises:
            AlreadyRunningError: this process lost the run: another one resumed or superseded it.
        """
        with self._database.write() as connection:
            run = _own_run(connection, run_id)
            done = {"status": "complete", "finished_us": now_us(), "error": ""}
            connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(**done))
            _record(connection, intervals, cursors)
            if statistics is not None:
                write_statistics(connection, run.view_id, run_id, statistics)

    def statistics(
        self, view_id: int, start_us: int | None = None, end_us: int | None = None
    ) -> ViewStatistics | None:
        """Statistics of the view's rows with event times in ``[start_us, end_us)``; None where there are none.

        They are kept by run: those of runs whose rows all lie within are merged, others are left out.
        """
        with self._database.read() as connection:
            return read_statistics(connection, view_id, start_us, end_us)

    def fail_run(self, run_id: int, error: str) -> None:
        """Note why a run stopped; its finished partitions stay for a later resume."""
        with self._database.write() as connection:
            _open_run(connection, run_id)
            failed = {"status": "failed", "finished_us": now_us(), "error": error}
            connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(**failed))

    def runs(self, limit: int = 50, *, view_id: int | None = None) -> list[Run]:
        """The newest runs of the project (of one view), newest first."""
        query = (
            sa.select(runs)
            .join(views, views.c.view_id == runs.c.view_id)
            .where(views.c.project == self.project)
            .order_by(runs.c.run_id.desc())
            .limit(limit)
        )
        if view_id is not None:
            query = query.where(runs.c.view_id == view_id)
        with self._database.read() as connection:
            return [Run(**row._mapping) for row in connection.execute(query)]

    # ---- reconciliations -------------------------------------------------------------------------

    def note_reconciled(self, view_id: int, outcome: Mapping[str, Any]) -> None:
        """Keep the outcome of a view's newest reconciliation, a JSON object, in place of the one before."""
        with self._database.write() as connection:
            value = {"value": json.dumps(outcome)}
            upsert(connection, meta, {"key": f"{_RECONCILED}{view_id}"}, value)

    def reconciled(self, view_id: int) -> dict[str, Any] | None:
        """The outcome of a view's newest reconciliation; None before the first."""
        query = sa.select(meta.c.value).where(meta.c.key == f"{_RECONCILED}{view_id}")
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else json.loads(found)


# ---- SQL -----------------------------------------------------------------------------------------


def _running() -> dict[str, Any]:
    here = {"pid": os.getpid(), "host": socket.gethostname()}
    return {"status": "running", "finished_us": None, "error": ""} | here


def _bury(connection: sa.Connection, view_id: int) -> None:
    lost = {"status": "failed", "finished_us": now_us(), "error": "its process ended without finishing it"}
    where = (runs.c.view_id == view_id, runs.c.status == "running")
    connection.execute(sa.update(runs).where(*where).values(**lost))


def _open_run(connection: sa.Connection, run_id: int) -> Run:
    row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        raise RegistryError(f"no run {run_id}", hint="`start_run` makes one")
    if row.status == "complete":
        raise RegistryError(f"run {run_id} is complete", hint="start another run")
    return Run(**row._mapping)


def _own_run(connection: sa.Connection, run_id: int) -> Run:
    """The run, which must still be ours: a lock can be lost (its server restarted) without our knowing."""
    run = _open_run(connection, run_id)
    if run.status != "running":
        raise AlreadyRunningError(f"run {run_id} was ended: {run.error}", hint="resume it, or start another")
    if (run.pid, run.host) != (os.getpid(), socket.gethostname()):
        holder = f"pid {run.pid} on {run.host}"
        raise AlreadyRunningError(f"run {run_id} was taken over by {holder}", hint="let that one finish")
    return run


def _record(connection: sa.Connection, done: Iterable[Interval], at: Iterable[Cursor]) -> None:
    touched = set()
    for interval in done:
        _insert_interval(connection, interval)
        _settle(connection, interval)
        touched.add((interval.view_id, interval.target))
    for view_id, target in touched:
        _compact(connection, view_id, target)
    for cursor in at:
        key = {"view_id": cursor.view_id, "target": cursor.target}
        values = {"event_hw_us": cursor.event_hw_us, "created_hw_us": cursor.created_hw_us}
        upsert(connection, cursors, key, values)


def _settle(connection: sa.Connection, interval: Interval) -> None:
    """Dates that wait for a backfill, and are written now, wait no longer; the next backfill reads them again."""
    waits = [
        backfill_dates.c.view_id == interval.view_id,
        backfill_dates.c.target == interval.target,
        backfill_dates.c.status == "pending",
        backfill_dates.c.until_us <= interval.end_us,
    ]
    if interval.start_us is not None:
        first = -(-interval.start_us // DAY_US) * DAY_US  # the first date that it covers from its midnight on
        waits.append(backfill_dates.c.date >= format_timestamp(min(first, MAX_US))[:10])
    connection.execute(sa.update(backfill_dates).where(*waits).values(status="complete", source=""))


def record_intervals(connection: sa.Connection, done: Iterable[Interval]) -> None:
    """Record what finished writes cover, within a transaction."""
    _record(connection, done, [])


def _insert_interval(connection: sa.Connection, interval: Interval) -> None:
    values = {column.name: getattr(interval, column.name) for column in _INTERVAL}
    values["finished_us"] = interval.finished_us or now_us()
    connection.execute(sa.insert(intervals).values(**values))


def _read_intervals(connection: sa.Connection, view_id: int, target: Target) -> list[Interval]:
    query = (
        sa.select(*_INTERVAL)
        .where(intervals.c.view_id == view_id, intervals.c.target == target)
        .order_by(intervals.c.id)
    )
    return [Interval(**row._mapping) for row in connection.execute(query)]


def _compact(connection: sa.Connection, view_id: int, target: Target) -> None:
    """Merge the older half once there are twice as many intervals as are kept."""
    where = (intervals.c.view_id == view_id, intervals.c.target == target)
    count = connection.scalar(sa.select(sa.func.count()).select_from(intervals).where(*where))
    if int(count or 0) < 2 * KEEP_INTERVALS:
        return
    found = _read_intervals(connection, view_id, target)
    connection.execute(sa.delete(intervals).where(*where))
    for interval in [*coalesce(found[:-KEEP_INTERVALS]), *found[-KEEP_INTERVALS:]]:
        _insert_interval(connection, interval)


def upsert(connection: sa.Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Write a row of a table, over the one of that key if there is one."""
    where = [table.c[name] == value for name, value in key.items()]
    if connection.execute(sa.update(table).where(*where).values(**values)).rowcount == 0:
        connection.execute(sa.insert(table).values(**key, **values))
