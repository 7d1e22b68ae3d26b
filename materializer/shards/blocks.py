"""Files of record batches of which any can be read alone: an Arrow stream, and where in it each batch lies.

    file    | schema | part 3 | part 0 | part 3 | …     a message each, compressed
    blocks  0: message 1    3: messages 0, 2            offset, bytes, rows, first and last event time

The file can be read by anything that reads Arrow streams. Whoever wrote it hands on the blocks, so that a reader of one
part opens the file and reads that part, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa

from materializer.shards.workdir import WorkDir, new_name

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4" if pa.Codec.is_available("lz4") else None)


class Block(NamedTuple):
    """One record batch in a file.

    Attributes:
        offset, n_bytes: where its message is.
        n_rows: how many.
        first_us, last_us: least and largest event time, microseconds UTC; 0 where rows have none.
    """

    offset: int
    n_bytes: int
    n_rows: int
    first_us: int = 0
    last_us: int = 0


@dataclass(frozen=True, slots=True)
class BlockFile:
    """A finished file.

    Attributes:
        name: in the work directory.
        blocks: part -> its batches, in the order they were written.
    """

    name: str
    blocks: Mapping[int, tuple[Block, ...]]

    def rows_of(self, part: int) -> int:
        """How many rows a part has."""
        return sum(block.n_rows for block in self.blocks.get(part, ()))

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return sum(map(self.rows_of, self.blocks))


class BlockWriter:
    """Writes one file. A context manager; without `close` nobody hears of what it wrote.

    Args:
        work: where.
        kind: what the file's name begins with.
        schema: of every batch.

    Raises:
        OfflineStoreError: it cannot be written.
    """

    def __init__(self, work: WorkDir, kind: str, schema: pa.Schema) -> None:
        self._work = work
        self._name = new_name(kind)
        self._blocks: dict[int, list[Block]] = {}
        self._file = work.create(self._name)
        with work.tended(self._name):
            self._writer = pa.ipc.new_stream(self._file, schema, options=_OPTIONS)
            self._writer.write_batch(
                _empty(schema)
            )  # the schema is written with the first batch: not with a block

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # of a file that is not finished, or that was closed
            self._file.close()

    def write(self, part: int, batch: pa.RecordBatch, first_us: int = 0, last_us: int = 0) -> None:
        """Add a batch to a part."""
        with self._work.tended(self._name):
            start = self._file.tell()
            self._writer.write_batch(batch)
            size = self._file.tell() - start
        block = Block(start, size, batch.num_rows, first_us, last_us)
        self._blocks.setdefault(part, []).append(block)

    def close(self) -> BlockFile:
        """Finish the file."""
        with self._work.tended(self._name):
            self._writer.close()
            self._file.close()
        return BlockFile(self._name, {part: tuple(blocks) for part, blocks in self._blocks.items()})


def read_blocks(work: WorkDir, name: str, blocks: Sequence[Block], schema: pa.Schema) -> list[pa.RecordBatch]:
    """Some batches of a file, in the order given.

    Raises:
        OfflineStoreError: they cannot be read.
    """
    found = work.read(name, [(block.offset, block.n_bytes) for block in blocks])
    with work.tended(name):
        return [pa.ipc.read_record_batch(data, schema) for data in found]


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
