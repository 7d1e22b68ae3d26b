"""In this process: the rows go through a spill, then into the stores, a few small dates at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from typing import Final

import pyarrow as pa

from fastserve.offline.schema import canonical_schema
from fastserve.offline.source import scan_source
from fastserve.offline.window import known_by
from fastserve.registry import Registry
from materializer.aside import Aside
from materializer.moves.base import Finished, Job, Wrote, newest_created
from materializer.select import Target
from materializer.sets import SetsWriter
from materializer.spill import Spill, grouped
from materializer.statistics import Collector
from materializer.write import OnlineSink

ONLINE_ROWS: Final = 500_000
"""Dates of the online store alone go together up to this; of the offline table, up to what one commit may hold."""


class Here:
    """Moves the rows of one job; see Mover.

    Args:
        registry, online: of the run.
    """

    def __init__(self, job: Job, registry: Registry, online: OnlineSink) -> None:
        self._job = job
        self._writer = SetsWriter(online, registry, job.registered, job.now_us, job.stop)
        self._spill = Spill(canonical_schema(job.registered), salt=job.salt)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc: object) -> None:
        self._spill.__exit__(*exc)

    def read(self, collector: Collector | None, told: Callable[[int], None]) -> int | None:
        newest: int | None = None
        with Aside(ahead=2) as aside:
            for batch in self._batches():
                self._job.stop.check()
                batch = known_by(batch, self._job.now_us, self._job.window.floor_us)
                newest = newest_created(batch, newest)
                self._spill.add(batch)
                if collector is not None:
                    aside.do(partial(collector.add, batch))
                told(self._spill.n_rows)
            if collector is not None:
                aside.do(collector.finish)
            self._spill.flush()
            aside.finish()
        return newest

    def _batches(self) -> Iterator[pa.RecordBatch]:
        job = self._job
        return scan_source(
            job.chosen.source,
            job.registered,
            job.config.repo,
            start_us=job.window.start_us,
            end_us=job.window.end_us + 1,
            created_after_us=job.window.created_after_us,
            options=job.options,
        )

    def dates(self) -> Sequence[date]:
        return self._spill.dates()

    def write(self, finished: Finished) -> Iterator[Wrote]:
        spill = self._spill
        alone = self._job.chosen.targets == ("online",)
        for days in grouped(spill, ONLINE_ROWS if alone else None):
            for target in self._job.chosen.targets:
                self._job.stop.check()
                todo = [
                    day for day in days if not self._is_done(day, finished.get((day.isoformat(), target)))
                ]
                rows_new = self._write(target, todo)
                yield Wrote(
                    target,
                    {day: (spill.rows_of(day), spill.digest(day)) for day in todo},
                    len(days) - len(todo),
                    sum(map(spill.rows_of, days)),
                    rows_new,
                )

    def _is_done(self, day: date, digest: str | None) -> bool:
        """Whether a killed run has written these rows; what none has is not read to find out."""
        return digest is not None and digest == self._spill.digest(day)

    def _write(self, target: Target, days: Sequence[date]) -> int:
        spill = self._spill
        if target == "offline":
            return self._job.table.append_new(chunk for day in days for chunk in spill.chunks(day)).rows_new
        return self._writer.write(days, lambda day: spill.chunks(day, last_first=True)) if days else 0
