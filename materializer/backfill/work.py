"""What a worker does with a few dates: scan them into a spill, then write per date and store what is not there as it
is.

A worker writes files and rows, never the ledger: its process may die at any moment, and one that outlives its
backfill for a moment does no harm. Rows of the offline table are staged, not committed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import pyarrow as pa

from fastserve.config import Config
from fastserve.errors import RegistryConflictError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.latest import timestamps
from fastserve.offline.options import ReadOptions
from fastserve.offline.schema import CREATED_TS, canonical_schema
from fastserve.offline.source import scan_source
from fastserve.offline.staged import Staged, stage
from fastserve.registry import RegisteredView, open_registry
from fastserve.timeutil import DAY_US
from materializer.backfill.digest import rows_digest
from materializer.backfill.survey import start_of
from materializer.engine import inside
from materializer.select import Target, choose
from materializer.sets import SetsWriter
from materializer.spill import Spill
from materializer.stop import Stop
from materializer.write import OnlineSink

TASK_DATES: Final = 32


@dataclass(frozen=True, slots=True)
class Spec:
    """What all tasks of a backfill share.

    Attributes:
        salt: that of the view as the backfill began.
        token: no other backfill has it.
    """

    config: Config
    view: str
    target: str
    now_us: int
    salt: str
    token: str


@dataclass(frozen=True, slots=True)
class Task:
    """Dates to do, following one another.

    Attributes:
        days: ascending.
        known: (date, store) to write -> the digest of the rows it holds already; '' where it holds none to trust.
        start_us, end_us: their event times, ``[start_us, end_us)``.
    """

    days: tuple[date, ...]
    known: Mapping[tuple[date, Target], str]
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one date of one store.

    Attributes:
        settled: whether all its rows were known by the backfill's present: none waits to be read later.
        unchanged: the store holds these rows already.
        staged: of the offline table, to be committed.
    """

    day: date
    target: Target
    digest: str
    rows: int
    settled: bool
    unchanged: bool = False
    rows_new: int = 0
    n_bytes: int = 0
    seconds: float = 0.0
    staged: Staged | None = None


def options_of(config: Config, now_us: int) -> ReadOptions:
    """What a query or transform is told, in every worker the same."""
    return ReadOptions(now_us, config.sql_memory)


def salt_of(registered: RegisteredView) -> str:
    """What else decides the rows that are written, beside those of the source."""
    return f"layout {registered.layout.layout_id}, ttl {registered.view.ttl_us}"


def do(spec: Spec, task: Task) -> list[Written]:
    """Do a task wherever an engine runs it; a process keeps its Worker from task to task. Raises as Worker.do."""
    return inside.keep(spec.token, lambda: Worker(spec, inside.stop())).do(task)


class Worker:
    """Does tasks of one backfill, newest dates first. A context manager."""

    def __init__(self, spec: Spec, stop: Stop) -> None:
        self._spec = spec
        self._stop = stop
        config = spec.config
        self._registry = open_registry(config.registry, config.project)
        snapshot = self._registry.snapshot()
        [self._chosen] = choose(snapshot, [spec.view], spec.target)
        self._view = self._chosen.registered
        if salt_of(self._view) != spec.salt:
            raise RegistryConflictError(
                "the view was changed since the backfill began",
                where=f"view {spec.view}",
                hint="run it again: what is done and still right is kept",
            )
        self._online = OnlineSink(config.online_store, snapshot.registry_id)
        self._sets = SetsWriter(self._online, self._registry, self._view, spec.now_us, stop)
        self._table = OfflineTable(config.offline_store, config.project, self._view)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of store and registry."""
        with self._online, self._registry:
            pass

    def do(self, task: Task) -> list[Written]:
        """Do a task.

        Raises:
            Stopped: between two batches.
            FastserveError: the source cannot be read, or a store not written; part of the dates may be written.
        """
        started = time.monotonic()
        done = []
        with Spill(canonical_schema(self._view)) as spill:
            settled = self._scan(task, spill)
            scan_s = (time.monotonic() - started) / max(len(task.known), 1)
            there = set(spill.dates())
            for (day, target), known in sorted(task.known.items(), key=lambda item: item[0], reverse=True):
                self._stop.check()
                begun = time.monotonic()
                if day in there:
                    made = self._one(day, target, known, spill, settled)
                else:
                    made = Written(day, target, "", 0, settled, unchanged=True)
                done.append(_timed(made, scan_s + time.monotonic() - begun))
        return done

    def restage(self, day: date, task: Task) -> Staged:
        """Stage a date again, whose files another writer changed."""
        with Spill(canonical_schema(self._view)) as spill:
            self._scan(task, spill)
            return stage(self._table, day, lambda: spill.chunks(day))

    def _scan(self, task: Task, spill: Spill) -> bool:
        """Read the dates; whether no row was left for later because it was created after the present."""
        settled = True
        source, repo = self._chosen.source, self._spec.config.repo
        options = replace(options_of(self._spec.config, self._spec.now_us), check=self._stop.check)
        batches = scan_source(
            source, self._view, repo, start_us=task.start_us, end_us=task.end_us, options=options
        )
        for batch in batches:
            self._stop.check()
            known = timestamps(batch, CREATED_TS) <= self._spec.now_us
            settled &= bool(known.all())
            spill.add(batch if known.all() else batch.filter(pa.array(known)))
        spill.flush()
        return settled

    def _one(self, day: date, target: Target, known: str, spill: Spill, settled: bool) -> Written:
        rows = spill.rows_of(day)
        digest = rows_digest(spill.chunks(day), self._spec.salt)
        if digest == known:
            return Written(day, target, digest, rows, settled, unchanged=True)
        if target == "offline":
            staged = stage(self._table, day, lambda: spill.chunks(day))
            return Written(
                day, target, digest, rows, settled, False, staged.rows_new, staged.n_bytes, staged=staged
            )
        written = self._sets.write([day], lambda one: spill.chunks(one, last_first=True))
        return Written(day, target, digest, rows, settled, rows_new=written)


def _timed(made: Written, seconds: float) -> Written:
    return replace(made, seconds=seconds)


def tasks_of(
    known: Mapping[tuple[date, Target], str], rows: Mapping[date, float], ends: Sequence[int], size: float
) -> list[Task]:
    """Neighbouring dates together, newest first, up to `size` rows or TASK_DATES dates; see Task.

    Args:
        known: as Task's.
        rows: of each date, about.
        ends: the window's event times, ``[start, end)``: no task reaches outside.
    """
    groups: list[list[date]] = []
    held = 0.0
    for day in sorted({day for day, _ in known}, reverse=True):
        after = groups[-1][-1] if groups else None
        apart = after is None or (after - day).days != 1 or len(groups[-1]) >= TASK_DATES
        if apart or held + rows.get(day, 0) > size:
            groups.append([])
            held = 0.0
        groups[-1].append(day)
        held += rows.get(day, 0)
    return [_task(sorted(days), known, ends) for days in groups]


def _task(days: list[date], known: Mapping[tuple[date, Target], str], ends: Sequence[int]) -> Task:
    mine = {pair: digest for pair, digest in known.items() if pair[0] in set(days)}
    start, end = start_of(days[0]), start_of(days[-1]) + DAY_US
    return Task(tuple(days), mine, max(start, ends[0]), min(end, ends[1]))
