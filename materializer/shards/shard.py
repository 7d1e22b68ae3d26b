"""A shard joined: some labels and all rows of their keys, or those of a slice of time, to the values the labels have.

Labels are dealt out like rows, with their positions. Only those that have a row are written, range by range of the
positions, as stow.py does it:

    positions 0 … 4: labels 0 3   5 … 9: labels 7 9      a block for each range

Of several slices' answers for a label the latest slice's is right: slices part event time, rows of equal time are in
one, and of the rows that a label can see the largest event time decides first. Whether it can see a row depends on
that row's times, the label's, the ttl and the cutoff alone, whatever kind of cutoff: a slice finds the best of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from fastserve.definitions import AggregatedFeatureView
from fastserve.offline.events import event_rows, what_is_read
from fastserve.offline.latest import timestamps
from fastserve.offline.schema import EVENT_TS, TIMESTAMP, canonical_schema, feature_types
from fastserve.types import arrow_type
from materializer.pit.asof import find_rows
from materializer.pit.chunks import Ints, Labels
from materializer.pit.join import answer, of_age, row_chunks
from materializer.shards.blocks import Block, BlockFile, BlockWriter, read_blocks
from materializer.shards.plan import Slice
from materializer.shards.workdir import WorkDir
from materializer.windows.join import join_windows

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

POSITION: Final = ""  # the name of no join key and no feature
_CHUNK_ROWS: Final = 1 << 18
_MAX: Final = 2**63 - 1


def label_schema(keys: Sequence[pa.Array]) -> pa.Schema:
    """Of labels dealt out: their keys, times and positions."""
    named = [pa.field(f"key{i}", values.type) for i, values in enumerate(keys)]
    return pa.schema([*named, pa.field(EVENT_TS, TIMESTAMP), pa.field(POSITION, pa.int64())])


def hit_schema(rv: RegisteredView, features: Sequence[str]) -> pa.Schema:
    """Of answers: the label, counted from the start of its range, and the features."""
    kinds = {name: arrow_type(dtype) for name, dtype in feature_types(rv, features).items()}
    return pa.schema([pa.field(POSITION, pa.int32()), *(pa.field(n, kind) for n, kind in kinds.items())])


@dataclass(frozen=True, slots=True)
class Asked:
    """What all tasks of a view share.

    Attributes:
        rv, features: the view, and what of it is wanted.
        labels: schema of the labels' file.
        by_label: a row counts only once it is known at the label's time.
        cutoff: only rows created by then, microseconds UTC; None for all.
        range_rows: labels of a range.
        most_labels: looked at in one go.
        work: where files are.
    """

    rv: RegisteredView
    features: tuple[str, ...]
    labels: pa.Schema
    by_label: bool
    cutoff: int | None
    range_rows: int
    most_labels: int
    work: WorkDir


@dataclass(frozen=True, slots=True)
class JoinTask:
    """A shard, or a slice of it.

    Attributes:
        number: of the task among those of its job.
        asked: what is joined.
        labels: file and blocks of the shard's labels.
        rows: the same of its rows, in source order.
        slice: the event times of the rows that are taken.
    """

    number: int
    asked: Asked
    labels: tuple[str, tuple[Block, ...]]
    rows: tuple[tuple[str, tuple[Block, ...]], ...]
    slice: Slice = (None, None)


def join_shard(task: JoinTask) -> BlockFile:
    """Do a task; where the values are, by range of the labels' positions.

    Raises:
        OfflineStoreError: files cannot be read or written.
    """
    asked = task.asked
    rv, features = asked.rv, asked.features
    batches = list(_in_chunks(_rows(task)))
    if isinstance(rv.view, AggregatedFeatureView):
        return _fold_shard(task, batches)
    found = [of_age(batch, rv, features) for batch in batches]
    with BlockWriter(asked.work, "hits", hit_schema(rv, features)) as out:
        for table in _labels(task):
            labels, positions = _read_labels(table, rv)
            places = find_rows(
                labels,
                [row_chunks([batch], rv) for batch in batches],
                ttl_us=rv.view.ttl_us,
                cutoff=labels.times if asked.by_label else asked.cutoff,
                threads=1,
            )
            _write(out, asked, positions, places, found)
        return out.close()


def _fold_shard(task: JoinTask, batches: Sequence[pa.RecordBatch]) -> BlockFile:
    """`join_shard` of an aggregated view: all labels have values."""
    asked = task.asked
    rows = event_rows(asked.rv)
    with BlockWriter(asked.work, "hits", hit_schema(asked.rv, asked.features)) as out:
        for table in _labels(task):
            labels, positions = _read_labels(table, asked.rv)
            values = join_windows(labels, batches, rows, asked.features, cutoff=asked.cutoff)
            found = [pa.RecordBatch.from_arrays(list(values.values()), names=list(values))]
            _write(out, asked, positions, np.arange(len(positions)), found)
        return out.close()


def _rows(task: JoinTask) -> Iterator[pa.RecordBatch]:
    """The rows of the shard that are in the slice, in source order."""
    start, end = task.slice
    schema = canonical_schema(*what_is_read(task.asked.rv, task.asked.features))
    for name, blocks in task.rows:
        for block, batch in zip(blocks, read_blocks(task.asked.work, name, blocks, schema), strict=True):
            if (start is None or block.first_us >= start) and (end is None or block.last_us < end):
                yield batch
                continue
            times = timestamps(batch, EVENT_TS)
            kept = np.ones(len(times), np.bool_)
            if start is not None:
                kept &= times >= start
            if end is not None:
                kept &= times < end
            yield batch.filter(pa.array(kept))


def _in_chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches joined: a shard has some of each file."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _CHUNK_ROWS:
            yield pa.concat_batches(held)
            held.clear()
    if held:
        yield pa.concat_batches(held)


def _labels(task: JoinTask) -> Iterator[pa.Table]:
    """The shard's labels that can see rows of the slice, some at a time, by ascending position."""
    name, blocks = task.labels
    held: list[Block] = []
    for block in blocks:
        if held and sum(one.n_rows for one in held) + block.n_rows > task.asked.most_labels:
            yield _seeing(task, name, held)
            held.clear()
        held.append(block)
    yield _seeing(task, name, held)


def _seeing(task: JoinTask, name: str, blocks: Sequence[Block]) -> pa.Table:
    asked, (start, end) = task.asked, task.slice
    table = pa.Table.from_batches(read_blocks(asked.work, name, blocks, asked.labels))
    times: Ints = table[EVENT_TS].cast(pa.int64()).to_numpy()
    kept = np.ones(len(times), np.bool_)
    if start is not None:
        kept &= times >= start
    if end is not None and asked.rv.view.ttl_us is not None:
        kept &= times <= min(end - 1 + asked.rv.view.ttl_us, _MAX)
    return table if kept.all() else table.filter(pa.array(kept))


def _read_labels(table: pa.Table, rv: RegisteredView) -> tuple[Labels, Ints]:
    """Labels as the kernel takes them, and their positions."""
    columns: list[Any] = [
        column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns
    ]
    *keys, times, positions = columns
    asked = Labels(keys, times.cast(pa.int64()).to_numpy(), list(rv.join_keys.values()))
    return asked, positions.to_numpy()


def _write(
    out: BlockWriter, asked: Asked, positions: Ints, places: Ints, found: Sequence[pa.RecordBatch]
) -> None:
    """The values of the labels that have a row, range by range."""
    hits = np.flatnonzero(places >= 0)
    numbers = positions[hits] // asked.range_rows
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(hits)]
    schema = hit_schema(asked.rv, asked.features)
    for start, stop in pairwise(cuts):
        if start == stop:
            continue
        mine, number = hits[start:stop], int(numbers[start])
        values = answer(places[mine], found, asked.rv, asked.features, threads=1)
        labels = pa.array((positions[mine] - number * asked.range_rows).astype(np.int32))
        table = pa.Table.from_arrays([labels, *values.values()], schema=schema)
        for batch in table.combine_chunks().to_batches():
            out.write(number, batch)
