"""The two kinds of task of a run: rows out of a source into files by date, dates out of those files into the stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from fastserve.offline.pieces import Piece
from fastserve.offline.schema import canonical_schema, feature_types
from fastserve.offline.source import BATCH_ROWS
from fastserve.offline.window import known_by
from fastserve.registry import RegisteredView
from materializer.dates import DateWriter, Spec, Written
from materializer.engine import inside
from materializer.moves.base import newest_created
from materializer.moves.dealt import Dealt
from materializer.select import Target
from materializer.shards.blocks import BlockFile
from materializer.shards.deal import ByDate, Dealer
from materializer.shards.workdir import WorkDir
from materializer.statistics import Collector, Part


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Some neighbouring pieces of a source.

    Attributes:
        number: of the task, in source order.
        now_us, floor_us: which rows are taken; see known_by.
        statistics: whether to say what the rows are like.
        counted: as Collector's.
        work: where the file goes.
    """

    number: int
    rv: RegisteredView
    pieces: Sequence[Piece]
    now_us: int
    floor_us: int | None
    statistics: bool
    counted: tuple[int, int] | None
    work: WorkDir


@dataclass(frozen=True, slots=True)
class HasRead:
    """What became of a ReadTask: its file, how many rows, their largest created time, what they are like."""

    file: BlockFile
    rows: int
    newest_created: int | None
    statistics: Part | None


def read(task: ReadTask) -> HasRead:
    """Do a task.

    Raises:
        InvalidDataError: a value does not fit, a key or time is null, or a file was changed since it was listed.
        OfflineStoreError: the work directory cannot be written.
    """
    stop, rows, newest = inside.stop(), 0, None
    collector = Collector(task.rv, task.counted) if task.statistics else None
    features = list(feature_types(task.rv))
    with Dealer(task.work, "rows", canonical_schema(task.rv), ByDate()) as dealer:
        for piece in task.pieces:
            for batch in piece.rows(features, BATCH_ROWS):
                stop.check()
                batch = known_by(batch, task.now_us, task.floor_us)
                newest = newest_created(batch, newest)
                rows += batch.num_rows
                dealer.add(batch)
                if collector is not None:
                    collector.add(batch)
        file = dealer.close()
    return HasRead(file, rows, newest, None if collector is None else collector.part())


@dataclass(frozen=True, slots=True)
class WriteTask:
    """Dates to write; `known` is as of DateWriter.write."""

    rows: Dealt
    known: Mapping[tuple[date, Target], str]


def write(spec: Spec, task: WriteTask) -> list[Written]:
    """Do a task; a process keeps its DateWriter from task to task. Raises as DateWriter.write."""
    return inside.keep(spec.token, lambda: DateWriter(spec, inside.stop())).write(task.rows, task.known)
