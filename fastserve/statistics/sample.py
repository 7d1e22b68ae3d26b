"""A sample of rows that does not depend on the order in which they come, and whose parts can be merged.

Every row has a hash of its join keys and times. The sample is the rows of the SAMPLE_ROWS smallest hashes, so each
row has the same chance, whatever the order, the batches and the process. Of two samples together, the smallest
hashes of both are the sample of both. Quantiles of it are off by at most 2.2 % in rank, in 95 of 100 cases.

    hash     3  5  8 | 11 …          `limit`: hashes from here on were left out; 2**64 - 1 while nothing was
    values   a  b  a |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve.hashes.mixing import mixed

Hashes = npt.NDArray[np.uint64]

SAMPLE_ROWS: Final = 4_096
NO_LIMIT: Final = 2**64 - 1
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Values of the rows that were sampled, by ascending hash.

    Attributes:
        hashes: uint64[m], m at most SAMPLE_ROWS.
        values: Arrow array of m values, nulls among them.
        limit: no row with a hash of that or more is in it.
    """

    hashes: Hashes
    values: pa.Array
    limit: int = NO_LIMIT

    @property
    def is_all(self) -> bool:
        """Whether no row was left out."""
        return self.limit == NO_LIMIT

    def merged(self, other: Sample) -> Sample:
        """The sample of the rows of both."""
        limit = min(self.limit, other.limit)
        hashes = np.concatenate([self.hashes, other.hashes])
        values = pa.concat_arrays([self.values, other.values.cast(self.values.type)])
        picked, limit = smallest(hashes, limit)
        return Sample(hashes[picked], values.take(pa.array(picked)), limit)


def smallest(hashes: Hashes, limit: int) -> tuple[npt.NDArray[np.int64], int]:
    """Rows of the SAMPLE_ROWS smallest hashes below a limit, ascending, and the limit from then on."""
    rows = np.flatnonzero(hashes < np.uint64(limit)) if limit < NO_LIMIT else np.arange(len(hashes))
    if len(rows) > SAMPLE_ROWS:
        limit = int(np.partition(hashes[rows], SAMPLE_ROWS)[SAMPLE_ROWS])
        rows = rows[hashes[rows] < np.uint64(limit)]  # of rows of one hash none, or all
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    return rows, limit


def row_hashes(columns: Sequence[pa.Array], n: int) -> Hashes:
    """uint64[n], the same in every process: of columns of int64, bool, string, binary or timestamps, without nulls."""
    hashes = np.full(n, 0x243F6A8885A308D3, np.uint64)
    for column in columns:
        if is_.is_string(column.type) or is_.is_binary(column.type):
            hashes = _with_bytes(hashes, column)
        else:
            whole = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            hashes = _mixed(hashes ^ whole.view(np.uint64))
    return hashes


def _mixed(words: Hashes) -> Hashes:
    return mixed(words + _STEP)


def _with_bytes(hashes: Hashes, column: pa.Array) -> Hashes:
    """Mixes text in, 8 bytes of all rows at a time, and the length last."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets).astype(np.int64)
    data = column.buffers()[2]
    held = b"" if data is None else memoryview(data)[int(offsets[0]) : int(offsets[-1])]
    padded = bytes(held) + bytes(8)
    starts -= int(offsets[0])
    words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    done = 0
    rows = np.flatnonzero(sizes > done)
    while len(rows):
        taken = words[starts[rows] + done]
        unused = np.maximum(8 - (sizes[rows] - done), 0).astype(np.uint64) * np.uint64(8)
        hashes[rows] = _mixed(hashes[rows] ^ (taken << unused))
        done += 8
        rows = rows[sizes[rows] > done]
    return _mixed(hashes ^ sizes.view(np.uint64))
