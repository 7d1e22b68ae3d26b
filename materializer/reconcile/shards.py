"""Rows by the hash of their keys, in one unlinked temporary file: a shard's rows are looked at together.

    file   | shard 3 | shard 0 | shard 3 | …        a message: an Arrow record batch of keys and what goes with them
    index  0: message 1    3: messages 0, 2         in the order they were added

A shard that is larger than a part may be is read several times, each time for the keys of one part of it; so what is
held at a time follows neither the number of keys nor the size of their rows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SHARDS: Final = 64
BUFFER_BYTES: Final = 16 << 20
PART_BYTES: Final = 24 << 20

Hashes: TypeAlias = npt.NDArray[np.uint32]


def hashes(keys: Sequence[bytes]) -> Hashes:
    """uint32[n]: a hash of each key, the same in every process."""
    return np.fromiter(map(crc32, keys), np.uint32, len(keys))


class Shards:
    """See the module's docstring. A context manager; leaving it frees the disk space.

    Args:
        names: what goes with a key, as columns of rows.
    """

    def __init__(self, *names: str) -> None:
        self.n_keys = 0
        self._schema = pa.schema([pa.field(name, pa.binary()) for name in ("key", *names)])
        self._held: list[list[pa.RecordBatch]] = [[] for _ in range(SHARDS)]
        self._held_bytes = 0
        self._messages: list[list[tuple[int, int]]] = [[] for _ in range(SHARDS)]
        self._bytes = [0] * SHARDS
        self._size = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="fastserve-reconcile-")

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.clear()
        self._file.close()

    def add(self, keys: Sequence[bytes], *columns: Sequence[bytes | None]) -> None:
        """Take keys with what goes with them; a key may come again.

        Raises:
            OSError: when the disk is full.
        """
        if not keys:
            return
        arrays = [pa.array(values, pa.binary()) for values in (keys, *columns)]
        shards = hashes(keys) % SHARDS
        order = np.argsort(shards, kind="stable")
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema).take(pa.array(order))
        cuts = np.searchsorted(shards[order], np.arange(SHARDS + 1)).tolist()
        for shard in range(SHARDS):
            if cuts[shard] < cuts[shard + 1]:
                part = batch.slice(cuts[shard], cuts[shard + 1] - cuts[shard])
                self._held[shard].append(part)
                self._bytes[shard] += part.nbytes
        self.n_keys += len(keys)
        self._held_bytes += batch.nbytes
        if self._held_bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held; call it after the last `add`, before reading."""
        for shard, batches in enumerate(self._held):
            if batches:
                data = pa.concat_batches(batches).serialize()
                self._file.write(data)
                self._messages[shard].append((self._size, data.size))
                self._size += data.size
                batches.clear()
        self._held_bytes = 0
        self._file.flush()

    def bytes_of(self, shard: int) -> int:
        """About how many bytes a shard has."""
        return self._bytes[shard]

    def read(self, shard: int, part: int, parts: int) -> Iterator[tuple[list[bytes], list[list[Any]]]]:
        """(keys, the columns that go with them) of one part of a shard, in the order they were added."""
        for offset, size in self._messages[shard]:
            data = os.pread(self._file.fileno(), size, offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)
            if parts > 1:
                mine = hashes(batch.column(0).to_pylist()) // SHARDS % parts == part
                batch = batch.filter(pa.array(mine))
            keys, *columns = (column.to_pylist() for column in batch.columns)
            yield keys, columns


def parts_of(shard: int, *spills: Shards) -> int:
    """In how many parts a shard of several spills is to be read."""
    return 1 + sum(spill.bytes_of(shard) for spill in spills) // PART_BYTES
