"""What the tasks of a view found, put together in the labels' order, a range at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from materializer.pit.chunks import NONE, Ints, cores, in_threads, place
from materializer.pit.join import answer
from materializer.shards.blocks import Block, BlockFile, read_blocks
from materializer.shards.shard import hit_schema
from materializer.shards.workdir import OwnedDir

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView


class ShardAnswers:
    """The values of one view for n labels, as stow.py's Answers; read from the work directory when they are asked for.

    Args:
        rv, features: what they are of.
        range_rows: labels of a range.
        work: where the files are; it is kept as long as this is.
        files: of the view's tasks; of one shard's the slices by ascending time.
    """

    def __init__(
        self,
        rv: RegisteredView,
        features: Sequence[str],
        range_rows: int,
        work: OwnedDir,
        files: Sequence[BlockFile],
    ) -> None:
        self.rv, self.features = rv, list(features)
        self._range_rows = range_rows
        self._work = work
        self._files = files
        self._schema = hit_schema(rv, features)

    def of_range(self, start: int, stop: int, threads: int | None = None) -> dict[str, pa.ChunkedArray]:
        """The values of labels start … stop - 1.

        Raises:
            OfflineStoreError: they cannot be read.
        """
        places = np.full(stop - start, NONE, np.int64)
        found: list[pa.RecordBatch | None] = []
        for number in range(start // self._range_rows, -(-stop // self._range_rows)):
            for batch in self._read(number, threads or cores()):
                labels: Ints = batch.column(0).to_numpy().astype(np.int64)
                labels += number * self._range_rows - start
                mine = (labels >= 0) & (labels < stop - start)
                places[labels[mine]] = place(len(found)) + np.flatnonzero(mine)  # a later slice's come later
                found.append(batch.select(list(range(1, batch.num_columns))))
        return answer(places, found, self.rv, self.features, threads=threads)

    def _read(self, number: int, threads: int) -> list[pa.RecordBatch]:
        """The batches of a range, in the files' order."""
        wanted = [(f.name, f.blocks[number]) for f in self._files if number in f.blocks]

        def read(asked: tuple[str, Sequence[Block]]) -> list[pa.RecordBatch]:
            name, blocks = asked
            return read_blocks(self._work.dir, name, blocks, self._schema)

        return [batch for batches in in_threads(read, wanted, threads) for batch in batches]
