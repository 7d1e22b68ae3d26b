"""A training set's views joined by shard tasks, on whatever engine runs them.

labels               ->  shards of labels     on the driver, once for all views with the same keys
pieces of the rows   ->  shards of rows       deal tasks
a shard, or a slice  ->  values of labels     join tasks
values               ->  in labels' order     on the driver, a range at a time
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastserve.offline.history import visible_range
from fastserve.offline.pieces import Piece
from fastserve.offline.schema import TIMESTAMP
from fastserve.offline.window import Window
from materializer.engine import Engine, run_tasks
from materializer.joining import Count, Join, RowReader, Rule
from materializer.pit.stow import RANGE_ROWS
from materializer.progress import Watch, unwatched
from materializer.shards.answers import ShardAnswers
from materializer.shards.blocks import BlockFile
from materializer.shards.deal import ByKeys, Dealer, DealTask, deal
from materializer.shards.near import read_pieces
from materializer.shards.plan import Limits, groups, shard_count, slices
from materializer.shards.shard import Asked, JoinTask, join_shard, label_schema
from materializer.shards.workdir import OwnedDir
from materializer.stop import Stop

_LABEL_ROWS = 1 << 16  # handed to the dealer at a time


@dataclass(frozen=True, slots=True)
class Shards:
    """Where a training set is joined by tasks.

    Attributes:
        engine: runs them.
        work: path or URL of storage that the driver and all workers see; files go to a directory of their own in it.
    """

    engine: Engine
    work: str


@dataclass(slots=True)
class _View:
    """One join on its way.

    Attributes:
        join: what is asked for.
        pieces: its rows.
        count: for those who watch.
        labels: the labels, dealt out by its keys.
        dealt: the files of its deal tasks, in source order.
        found: number of a join task -> its file.
    """

    join: Join
    pieces: Sequence[Piece]
    count: Count
    labels: BlockFile
    dealt: list[BlockFile] = field(default_factory=list)
    found: dict[int, BlockFile] = field(default_factory=dict)


def join_sharded(
    joins: Sequence[Join],
    rule: Rule,
    history: RowReader,
    shards: Shards,
    limits: Limits,
    watch: Watch = unwatched,
) -> list[ShardAnswers]:
    """The answers of each join; what they are read from goes with them.

    Raises:
        OfflineStoreError: the work directory cannot be written or read.
        FastserveError: what a task raised; the others are stopped.
    """
    # Listed once, so that all labels see the same rows, whoever writes meanwhile.
    reads = [join.reads() for join in joins]
    pieces = [history.pieces(rv, columns, rule.times) for rv, columns in reads]
    count = shard_count(pieces, shards.engine.slots, limits)
    work = OwnedDir(shards.work)
    try:
        labels = {join.same_keys: join for join in joins}
        dealt = {same: _deal_labels(join, rule, work, count, limits) for same, join in labels.items()}
        views = [
            _View(
                join,
                read,
                Count(watch, join.rv.view.name, 2 * sum(p.n_rows for p in read)),
                dealt[join.same_keys],
            )
            for join, read in zip(joins, pieces, strict=True)
        ]
        _deal_rows(views, rule, work, shards.engine, count, limits)
        _join_shards(views, rule, work, shards.engine, count, limits)
    except BaseException:
        work.close()
        raise
    for name in {file.name for view in views for file in (view.labels, *view.dealt)}:
        work.dir.delete(name)
    return [_answers(view, work) for view in views]


def _deal_labels(join: Join, rule: Rule, work: OwnedDir, count: int, limits: Limits) -> BlockFile:
    """Keys, times and positions of the labels, by the hash of the keys."""
    keys = _keys(join)
    names = zip((f"key{i}" for i in range(len(keys))), join.rv.join_keys.values(), strict=True)
    schema = label_schema(keys)
    by = ByKeys(tuple(names), count)
    with Dealer(work.dir, "labels", schema, by, limits.buffer_bytes) as dealer:
        for first in range(0, len(rule.times), _LABEL_ROWS):
            times = rule.times[first : first + _LABEL_ROWS]
            columns: list[Any] = [values.slice(first, _LABEL_ROWS) for values in keys]
            columns += [pa.array(times).cast(TIMESTAMP), pa.array(np.arange(first, first + len(times)))]
            dealer.add(pa.RecordBatch.from_arrays(columns, schema=schema))
        return dealer.close()


def _keys(join: Join) -> list[pa.Array]:
    return [join.keys[name] for name in join.rv.join_keys]


def _deal_rows(
    views: Sequence[_View], rule: Rule, work: OwnedDir, engine: Engine, count: int, limits: Limits
) -> None:
    """The rows of all views, by the hash of their keys; of a view that is joined twice on different columns once."""
    same: dict[tuple[int, tuple[str, ...]], list[_View]] = {}
    for view in views:
        same.setdefault((view.join.rv.view_id, tuple(view.join.reads()[1])), []).append(view)
    tasks: list[DealTask] = []
    of: list[list[_View]] = []
    for (_, columns), several in same.items():
        (rv, _), pieces = several[0].join.reads(), several[0].pieces
        by = ByKeys(tuple(rv.join_keys.items()), count)
        window = Window(*visible_range(rule.times, rv.view.ttl_us)) if pieces else Window()
        for some in groups(pieces, engine.slots):
            tasks.append(DealTask(len(tasks), rv, some, columns, window, by, work.dir, limits.buffer_bytes))
            of.append(several)
    made: dict[int, BlockFile] = {}
    for task, file in read_pieces(engine, deal, tasks, Stop(), "training set"):
        made[task.number] = file
        for view in of[task.number]:
            view.count.add(sum(piece.n_rows for piece in task.pieces))
    for number, file in sorted(made.items()):
        for view in of[number]:
            view.dealt.append(file)


def _join_shards(
    views: Sequence[_View], rule: Rule, work: OwnedDir, engine: Engine, count: int, limits: Limits
) -> None:
    tasks: list[JoinTask] = []
    of: list[_View] = []
    for view in views:
        for task in _join_tasks(view, rule, work, count, limits, len(tasks)):
            tasks.append(task)
            of.append(view)
    for task, file in run_tasks(engine, join_shard, tasks, Stop(), where="training set"):
        view = of[task.number]
        view.found[task.number] = file
        view.count.add(sum(block.n_rows for _, blocks in task.rows for block in blocks))
    for view in views:
        view.count.reach(view.count.total)  # of rows outside the window too


def _join_tasks(
    view: _View, rule: Rule, work: OwnedDir, count: int, limits: Limits, first: int
) -> Iterator[JoinTask]:
    """The tasks of a view, by shard and then by time."""
    join = view.join
    by_label = isinstance(rule.cutoff, np.ndarray)
    asked = Asked(
        join.rv,
        tuple(join.features),
        label_schema(_keys(join)),
        by_label=by_label,
        cutoff=None if by_label else rule.cutoff,  # type: ignore[arg-type]
        range_rows=RANGE_ROWS,
        most_labels=limits.labels,
        work=work.dir,
    )
    mean = sum(file.n_rows for file in view.dealt) / count
    for shard, labels in sorted(view.labels.blocks.items()):
        rows = [(file.name, file.blocks[shard]) for file in view.dealt if shard in file.blocks]
        blocks = [block for _, blocks in rows for block in blocks]
        cuts = [(None, None)] if join.is_windowed else slices(blocks, mean, limits)  # windows reach across
        for start, end in cuts:
            seen = tuple(
                (name, kept)
                for name, found in rows
                if (kept := tuple(b for b in found if _overlaps(b.first_us, b.last_us, start, end)))
            )
            if seen:
                yield JoinTask(first, asked, (view.labels.name, labels), seen, (start, end))
                first += 1


def _overlaps(first_us: int, last_us: int, start: int | None, end: int | None) -> bool:
    return (start is None or last_us >= start) and (end is None or first_us < end)


def _answers(view: _View, work: OwnedDir) -> ShardAnswers:
    files = [file for _, file in sorted(view.found.items())]
    return ShardAnswers(view.join.rv, list(view.join.features), RANGE_ROWS, work, files)
