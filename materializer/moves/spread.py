"""By the tasks of an engine: the rows go through files that all workers see, and the driver commits what they stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from uuid import uuid4

from fastserve.offline.pieces import source_pieces
from fastserve.offline.schema import canonical_schema, feature_types
from fastserve.offline.source import open_source
from fastserve.offline.staged import Staged, prepare
from fastserve.offline.window import Window
from materializer.dates import DateWriter, Spec, Written, commit_written
from materializer.engine import Engine, run_tasks
from materializer.moves.base import Finished, Job, Wrote
from materializer.moves.dealt import Dealt
from materializer.moves.tasks import HasRead, ReadTask, WriteTask, read, write
from materializer.select import Target
from materializer.shards.near import read_pieces
from materializer.shards.plan import groups
from materializer.shards.workdir import OwnedDir
from materializer.spill import grouped
from materializer.statistics import Collector

WRITE_ROWS = 500_000


class Spread:
    """Moves the rows of one job; see Mover.

    Args:
        engine: runs the tasks.
        work: path or URL of storage that driver and workers see.

    Raises:
        OfflineStoreError: nothing can be made there.
    """

    def __init__(self, job: Job, engine: Engine, work: str) -> None:
        self._job = job
        self._engine = engine
        self._work = OwnedDir(work)
        self._rows = Dealt(self._work.dir, canonical_schema(job.registered), {})
        self._spec = Spec(job.config, job.chosen.name, job.chosen.option, job.now_us, job.salt, uuid4().hex)

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, *exc: object) -> None:
        self._work.close()

    # ---- reading -----------------------------------------------------------------------------

    def read(self, collector: Collector | None, told: Callable[[int], None]) -> int | None:
        done: dict[int, HasRead] = {}
        tasks = self._read_tasks(collector)
        for task, found in read_pieces(self._engine, read, tasks, self._job.stop, self._where):
            done[task.number] = found
            told(sum(one.rows for one in done.values()))
        parts = [done[number] for number in sorted(done)]
        if collector is not None:
            for part in parts:
                if part.statistics is not None:
                    collector.take(part.statistics)
        self._rows = Dealt.of(self._work.dir, self._rows.schema, [part.file for part in parts])
        return max((one.newest_created for one in parts if one.newest_created is not None), default=None)

    def _read_tasks(self, collector: Collector | None) -> list[ReadTask]:
        job, window = self._job, self._job.window
        wanted = Window(window.start_us, window.end_us + 1, window.created_after_us)
        files = open_source(job.chosen.source, job.config.repo, wanted, job.options)
        pieces = source_pieces(
            files, job.chosen.source, job.registered, wanted, list(feature_types(job.registered))
        )
        counted = None if collector is None else collector.counted
        return [
            ReadTask(
                number, job.registered, some, job.now_us, window.floor_us, collector is not None, counted,
                self._work.dir,
            )
            for number, some in enumerate(groups(pieces, self._engine.slots))
        ]  # fmt: skip

    @property
    def _where(self) -> str:
        return f"view {self._job.chosen.name}"

    # ---- writing -----------------------------------------------------------------------------

    def dates(self) -> Sequence[date]:
        return self._rows.dates()

    def write(self, finished: Finished) -> Iterator[Wrote]:
        targets = self._job.chosen.targets
        if "offline" in targets and self._rows.blocks:
            prepare(self._job.table)
        n_rows = sum(map(self._rows.rows_of, self._rows.dates()))
        size = min(WRITE_ROWS, max(n_rows // (4 * self._engine.slots), 1))
        tasks = [
            WriteTask(
                self._rows.only(days),
                {
                    (day, target): finished.get((day.isoformat(), target), "")
                    for day in days
                    for target in targets
                },
            )
            for days in grouped(self._rows, size)
        ]
        work = partial(write, self._spec)
        for task, written in run_tasks(self._engine, work, tasks, self._job.stop, where=self._where):
            written = commit_written(self._job.table, written, partial(self._restaged, task))
            for target in targets:
                yield _wrote(target, [one for one in written if one.target == target])

    def _restaged(self, task: WriteTask, stale: Sequence[Staged]) -> list[Staged]:
        with DateWriter(self._spec, self._job.stop) as writer:
            return [writer.stage(one.day, task.rows) for one in stale]


def _wrote(target: Target, written: Sequence[Written]) -> Wrote:
    return Wrote(
        target,
        {one.day: (one.rows, one.digest) for one in written if not one.unchanged},
        sum(one.unchanged for one in written),
        sum(one.rows for one in written),
        sum(one.rows_new for one in written),
    )
