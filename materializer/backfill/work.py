"""What a worker does with a few dates: scan them into a spill, then write what the stores do not hold as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from fastserve.config import Config
from fastserve.offline.options import ReadOptions
from fastserve.offline.schema import canonical_schema
from fastserve.offline.source import scan_source
from fastserve.offline.staged import Staged
from fastserve.offline.window import known_by
from fastserve.timeutil import DAY_US
from materializer.backfill.survey import start_of
from materializer.dates import DateWriter, Spec, Written
from materializer.engine import inside
from materializer.select import Target
from materializer.spill import Spill
from materializer.stop import Stop

TASK_DATES: Final = 32


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


def options_of(config: Config, now_us: int) -> ReadOptions:
    """What a query or transform is told, in every worker the same."""
    return ReadOptions(now_us, config.sql_memory)


def do(spec: Spec, task: Task) -> list[Written]:
    """Do a task wherever an engine runs it; a process keeps its Worker from task to task. Raises as Worker.do."""
    return inside.keep(spec.token, lambda: Worker(spec, inside.stop())).do(task)


class Worker:
    """Does tasks of one backfill, newest dates first. A context manager."""

    def __init__(self, spec: Spec, stop: Stop) -> None:
        self._spec = spec
        self._stop = stop
        self._writer = DateWriter(spec, stop)
        self._chosen = self._writer.chosen

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.__exit__(*exc)

    def do(self, task: Task) -> list[Written]:
        """Do a task.

        Raises:
            Stopped: between two batches.
            FastserveError: the source cannot be read, or a store not written; part of the dates may be written.
        """
        started = time.monotonic()
        with self._spill() as spill:
            settled = self._scan(task, spill)
            return self._writer.write(spill, task.known, settled=settled, spent_s=time.monotonic() - started)

    def restage(self, day: date, task: Task) -> Staged:
        """Stage a date again, whose files another writer changed."""
        with self._spill() as spill:
            self._scan(task, spill)
            return self._writer.stage(day, spill)

    def _spill(self) -> Spill:
        return Spill(canonical_schema(self._chosen.registered))

    def _scan(self, task: Task, spill: Spill) -> bool:
        """Read the dates; whether no row was left for later because it was created after the present."""
        settled = True
        source, repo = self._chosen.source, self._spec.config.repo
        options = replace(options_of(self._spec.config, self._spec.now_us), check=self._stop.check)
        batches = scan_source(
            source,
            self._chosen.registered,
            repo,
            start_us=task.start_us,
            end_us=task.end_us,
            options=options,
        )
        for batch in batches:
            self._stop.check()
            known = known_by(batch, self._spec.now_us)
            settled &= known.num_rows == batch.num_rows
            spill.add(known)
        spill.flush()
        return settled


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
