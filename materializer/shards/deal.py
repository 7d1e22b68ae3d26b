"""Rows dealt out: a task reads some pieces and writes their canonical rows into one file, part by part.

A part is a number that a function of the row gives: the shard of its keys, or its date. Rows keep source order within a
part, and pieces stand in source order: whoever reads a part out of the files of all tasks, in the tasks' order, has its
rows in source order, which decides between rows of equal times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.hashes.keys import key_hashes
from fastserve.offline.latest import timestamps
from fastserve.offline.pieces import Piece
from fastserve.offline.schema import CREATED_TS, EVENT_TS, canonical_schema
from fastserve.offline.window import Window
from fastserve.timeutil import DAY_US
from materializer.pit.factorize import canonical_key
from materializer.shards.blocks import BlockFile, BlockWriter
from materializer.shards.workdir import WorkDir

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Parts = npt.NDArray[np.int32] | npt.NDArray[np.int16]

BUFFER_BYTES: Final = 64 << 20
MOST_SHARDS: Final = 1 << 12


class By(Protocol):
    """Which part each row of a batch goes to, int[n]; the least number of its type: to none. Tasks carry it pickled."""

    def __call__(self, batch: pa.RecordBatch) -> Parts: ...


@dataclass(frozen=True, slots=True)
class ByKeys:
    """By the hash of the keys. A key with a null in any part goes nowhere: it equals none.

    Attributes:
        keys: column and key type of each join key.
        shards: how many, MOST_SHARDS at most.
    """

    keys: tuple[tuple[str, str], ...]
    shards: int

    def __call__(self, batch: pa.RecordBatch) -> Parts:
        keys = [canonical_key(batch[name], key_type) for name, key_type in self.keys]
        # Of 16 bits, which numpy sorts by counting.
        parts = (key_hashes(keys, batch.num_rows) % np.uint64(self.shards)).astype(np.int16)
        for column in keys:
            if column.null_count:
                parts[column.is_null().to_numpy(zero_copy_only=False)] = _nowhere(parts)
        return parts


@dataclass(frozen=True, slots=True)
class ByDate:
    """By event date, UTC: days since 1970."""

    def __call__(self, batch: pa.RecordBatch) -> Parts:
        return np.floor_divide(timestamps(batch, EVENT_TS), DAY_US).astype(np.int32)


@dataclass(frozen=True, slots=True)
class DealTask:
    """Some neighbouring pieces of a view.

    Attributes:
        number: of the task among those of its job, in source order.
        rv: the view.
        pieces: what is read.
        columns: features.
        window: rows outside are left out.
        by: which part a row goes to.
        work: where the file goes.
        buffer_bytes: of rows held before they are written.
    """

    number: int
    rv: RegisteredView
    pieces: Sequence[Piece]
    columns: tuple[str, ...]
    window: Window
    by: By
    work: WorkDir
    buffer_bytes: int = BUFFER_BYTES


def deal(task: DealTask) -> BlockFile:
    """Do a task; where the rows of each part are.

    Raises:
        InvalidDataError: a value does not fit, a key or time is null, or a file was changed since it was listed.
        OfflineStoreError: the table cannot be read, or the work directory not written.
    """
    schema = canonical_schema(task.rv, task.columns)
    with Dealer(task.work, "rows", schema, task.by, task.buffer_bytes) as dealer:
        for piece in task.pieces:
            for batch in piece.rows(task.columns):
                kept = task.window.keeps(timestamps(batch, EVENT_TS), timestamps(batch, CREATED_TS))
                dealer.add(batch if kept.all() else batch.filter(pa.array(kept)))
        return dealer.close()


class Dealer:
    """Batches with event times, dealt out into one file. A context manager.

    Args:
        work, kind, schema: of the file.
        by: which part a row goes to.
        buffer_bytes: of rows held before they are written: the more, the fewer and larger the blocks.
    """

    def __init__(
        self, work: WorkDir, kind: str, schema: pa.Schema, by: By, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._writer = BlockWriter(work, kind, schema)
        self._by = by
        self._buffer_bytes = buffer_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.clear()
        self._writer.__exit__(*exc)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        if batch.num_rows:
            self._held.append(batch)
            self._held_bytes += batch.nbytes
        if self._held_bytes >= self._buffer_bytes:
            self._flush()

    def close(self) -> BlockFile:
        """Write what is held, and finish the file."""
        self._flush()
        return self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        batch = pa.concat_batches(self._held)
        self._held.clear()
        self._held_bytes = 0
        parts = self._by(batch)
        order = np.argsort(parts, kind="stable")  # within a part, source order stays
        parts = parts[order]
        first = int(np.searchsorted(parts, _nowhere(parts), "right"))
        batch, parts = batch.take(pa.array(order[first:])), parts[first:]
        times = timestamps(batch, EVENT_TS)
        cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for start, stop in pairwise(cuts):
            if start < stop:
                ends = int(times[start:stop].min()), int(times[start:stop].max())
                self._writer.write(int(parts[start]), batch.slice(start, stop - start), *ends)


def _nowhere(parts: Parts) -> int:
    return int(np.iinfo(parts.dtype).min)
