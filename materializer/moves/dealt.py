"""Rows by date, out of the files that read tasks dealt them into. Driver and tasks read them alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

import pyarrow as pa

from materializer.shards.blocks import Block, BlockFile, read_blocks
from materializer.shards.workdir import WorkDir
from materializer.spill import by_size

_EPOCH: Final = date(1970, 1, 1)
CHUNK_BYTES: Final = 8 << 20  # of the files, where rows are compressed


class Place(NamedTuple):
    """A block of a file."""

    name: str
    block: Block

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return self.block.n_bytes


@dataclass(frozen=True, slots=True)
class Dealt:
    """A view's rows; see materializer.spill.Rows.

    Attributes:
        work: where the files are.
        schema: the canonical schema.
        blocks: date -> its batches, in source order.
    """

    work: WorkDir
    schema: pa.Schema
    blocks: Mapping[date, Sequence[Place]]

    @classmethod
    def of(cls, work: WorkDir, schema: pa.Schema, files: Sequence[BlockFile]) -> Dealt:
        """The rows of files that are dealt out by date, the files in source order."""
        found: dict[date, list[Place]] = {}
        for file in files:
            for number, blocks in file.blocks.items():
                day = _EPOCH + timedelta(days=number)
                found.setdefault(day, []).extend(Place(file.name, block) for block in blocks)
        return cls(work, schema, found)

    def only(self, days: Collection[date]) -> Dealt:
        """Some dates alone."""
        return Dealt(self.work, self.schema, {day: self.blocks[day] for day in days})

    def dates(self) -> list[date]:
        return sorted(self.blocks, reverse=True)

    def rows_of(self, day: date) -> int:
        return sum(block.n_rows for _, block in self.blocks[day])

    def chunks(self, day: date, *, last_first: bool = False) -> Iterator[pa.RecordBatch]:
        """Raises OfflineStoreError when the work directory cannot be read."""
        groups = by_size(self.blocks[day], CHUNK_BYTES)
        for group in reversed(groups) if last_first else groups:
            batches: list[pa.RecordBatch] = []
            for name, some in groupby(group, itemgetter(0)):
                batches += read_blocks(self.work, name, [block for _, block in some], self.schema)
            yield batches[0] if len(batches) == 1 else pa.concat_batches(batches)
