"""Backfills in SQL: for each (view, store, date) how far it is, and what was written.

    pending ──taken by a worker──▶ running ──written──▶ complete
       ▲                              │                     │
       └──── its process died ────────┴── source changed ───┘

The process of a backfill holds the view's lock, and it alone writes here, also for its workers. So there are no
time-outs: a date that is running while nobody holds the lock is pending again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from fastserve.errors import AlreadyRunningError
from fastserve.registry.engine import Database
from fastserve.registry.ledger import record_intervals, upsert
from fastserve.registry.locks import is_view_held
from fastserve.registry.runs import Interval, RunTarget, Target
from fastserve.registry.schema import backfill_dates, backfills
from fastserve.timeutil import MICROS, format_timestamp, now_us

Pair = tuple[str, Target]
DateStatus = Literal["pending", "running", "complete"]


@dataclass(frozen=True, slots=True)
class Backfill:
    """One backfill of a view over event times ``[start_us, end_us)``; `pid` and `host` are of its process."""

    backfill_id: int
    view_id: int
    target: RunTarget
    start_us: int
    end_us: int
    workers: int
    status: Literal["running", "complete", "failed"]
    started_us: int
    finished_us: int | None
    error: str
    pid: int
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DateState:
    """How far one date of one store is.

    Attributes:
        date: of the event times, UTC: 2013-01-31.
        until_us: it was asked for up to this event time, exclusive.
        source: which files it was read from, hashed; '' where that does not tell whether to read it again.
        digest: of its rows.
        rows, rows_new, bytes: of the source, those the store did not have, and what was written.
        seconds: of one worker.
    """

    view_id: int
    target: Target
    date: str
    status: DateStatus = "pending"
    until_us: int = 0
    source: str = ""
    digest: str = ""
    rows: int = 0
    rows_new: int = 0
    bytes: int = 0
    seconds: float = 0.0
    backfill_id: int = 0
    finished_us: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the backfill of some dates is.

    Attributes:
        backfill: the view's newest.
        first, last: the first and the last date that is not complete.
        done, total: dates.
        alive: whether its process runs.
        eta_s: at its pace so far; None before its first date and when it does not run.
    """

    backfill: Backfill
    first: str
    last: str
    done: int
    total: int
    alive: bool
    eta_s: float | None

    def __str__(self) -> str:
        text = f"{self.done:,} of {self.total:,} dates are done"
        if not self.alive:
            return f"{text}, and it does not run"
        if self.eta_s is None:
            return f"{text}, and it runs"
        return f"{text}, about {_duration(self.eta_s)} to go"


class Backfills:
    """The backfills of a registry. Writers hold the view's lock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- looking ---------------------------------------------------------------------------------

    def dates(self, view_id: int, first: str = "", last: str = "9999-12-31") -> dict[Pair, DateState]:
        """The dates that were ever asked for, from the first to the last."""
        where = (backfill_dates.c.view_id == view_id, backfill_dates.c.date.between(first, last))
        query = sa.select(backfill_dates).where(*where).order_by(backfill_dates.c.date)
        with self._database.read() as connection:
            found = [DateState(**row._mapping) for row in connection.execute(query)]
        return {(state.date, state.target): state for state in found}

    def latest(self, view_id: int) -> Backfill | None:
        """The view's newest backfill."""
        query = sa.select(backfills).where(backfills.c.view_id == view_id)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(backfills.c.backfill_id.desc()).limit(1)).one_or_none()
        return Backfill(**row._mapping) if row else None

    def incomplete(
        self, view_id: int, target: Target | None = None, first: str = "", last: str = "9999-12-31"
    ) -> Progress | None:
        """How far the dates are, if one of them is not complete; None when all that was asked for is there.

        Args:
            target: of one store; None for both.
        """
        backfill = self.latest(view_id)
        if backfill is None:
            return None
        states = [s for s in self.dates(view_id, first, last).values() if target in (None, s.target)]
        open_dates = sorted({state.date for state in states if state.status != "complete"})
        if not open_dates:
            return None
        total = len({state.date for state in states})
        alive = backfill.status == "running" and is_view_held(self._database, view_id)
        return Progress(
            backfill,
            open_dates[0],
            open_dates[-1],
            total - len(open_dates),
            total,
            alive,
            self._eta_s(backfill) if alive else None,
        )

    def running(self, view_id: int, error: AlreadyRunningError) -> AlreadyRunningError:
        """The error of one who could not take a view's lock; of a backfill it says how far that is."""
        found = self.incomplete(view_id)
        if found is None or not found.alive:
            return error
        start, end = found.backfill.start_us, found.backfill.end_us - 1
        return AlreadyRunningError(
            f"a backfill from {format_timestamp(start)} to {format_timestamp(end)} runs: {found}; {error.message}",
            where=error.where,
            hint=error.hint,
        )

    def _eta_s(self, backfill: Backfill) -> float | None:
        """Of the whole backfill: what it has done itself tells how long the rest takes."""
        states = self.dates(backfill.view_id).values()
        mine = sum(s.backfill_id == backfill.backfill_id and s.status == "complete" for s in states)
        left = sum(state.status != "complete" for state in states)
        elapsed = (now_us() - backfill.started_us) / MICROS
        return elapsed / mine * left if mine else None

    # ---- writing ---------------------------------------------------------------------------------

    def begin(self, backfill: Backfill, todo: Iterable[DateState], lost: Iterable[Target] = ()) -> Backfill:
        """Note a backfill and the dates it is to write, in one transaction; returns it with its id.

        Args:
            backfill: its id, process and times are filled in.
            todo: what is not complete; anything noted of these dates before is replaced.
            lost: stores that lost the view's rows: what was noted of any of their dates is void.
        """
        here = socket.gethostname()
        backfill = replace(
            backfill, pid=os.getpid(), host=here, started_us=now_us(), status="running", finished_us=None
        )
        view_id = backfill.view_id
        with self._database.write() as connection:
            self._bury(connection, view_id)
            for target in lost:
                mine = (backfill_dates.c.view_id == view_id, backfill_dates.c.target == target)
                void = {"status": "pending", "source": "", "digest": ""}
                connection.execute(sa.update(backfill_dates).where(*mine).values(**void))
            values = _row(backfill)
            del values["backfill_id"]
            made = connection.execute(sa.insert(backfills).values(**values)).inserted_primary_key
            assert made is not None
            for state in todo:
                _put(connection, state)
        return replace(backfill, backfill_id=int(made[0]))

    def _bury(self, connection: sa.Connection, view_id: int) -> None:
        lost = {
            "status": "failed",
            "finished_us": now_us(),
            "error": "its process ended without finishing it",
        }
        mine = (backfills.c.view_id == view_id, backfills.c.status == "running")
        connection.execute(sa.update(backfills).where(*mine).values(**lost))
        taken = (backfill_dates.c.view_id == view_id, backfill_dates.c.status == "running")
        connection.execute(sa.update(backfill_dates).where(*taken).values(status="pending"))

    def note(self, backfill: Backfill, states: Sequence[DateState]) -> None:
        """Note how far dates are, in one transaction.

        Raises:
            AlreadyRunningError: this process lost the view: its lock's server restarted, and another took over.
        """
        with self._database.write() as connection:
            self._check_ours(connection, backfill)
            for state in states:
                _put(connection, state)

    def finish(self, backfill: Backfill, intervals: Sequence[Interval] = (), error: str = "") -> None:
        """End it: complete with what it covers, or failed with why, in one transaction.

        Raises:
            AlreadyRunningError: as `note`.
        """
        ended = {"status": "failed" if error else "complete", "finished_us": now_us(), "error": error}
        with self._database.write() as connection:
            self._check_ours(connection, backfill)
            mine = backfills.c.backfill_id == backfill.backfill_id
            connection.execute(sa.update(backfills).where(mine).values(**ended))
            taken = (backfill_dates.c.view_id == backfill.view_id, backfill_dates.c.status == "running")
            connection.execute(sa.update(backfill_dates).where(*taken).values(status="pending"))
            record_intervals(connection, intervals)

    def _check_ours(self, connection: sa.Connection, backfill: Backfill) -> None:
        query = sa.select(backfills.c.status).where(backfills.c.backfill_id == backfill.backfill_id)
        if connection.scalar(query) != "running":
            raise AlreadyRunningError(
                f"backfill {backfill.backfill_id} was taken over by another process",
                hint="let that one finish",
            )


def _put(connection: sa.Connection, state: DateState) -> None:
    values = _row(state)
    key = {name: values.pop(name) for name in ("view_id", "target", "date")}
    upsert(connection, backfill_dates, key, values)


def _row(value: Backfill | DateState) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
