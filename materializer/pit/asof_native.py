"""`find_rows` on the native kernel: keys to codes (_ext/asof_keys.pyx), codes and times to rows (_ext/asof.pyx).

First the keys of all rows become codes, block by block. Then each thread takes parts of the labels, an entity being in
one, from sorting them to their rows; all blocks go by for each part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve._native.asof import LabelTimes, Part
from fastserve._native.asof_keys import KeyTable
from materializer.pit import asof_py
from materializer.pit.chunks import NONE, Ints, Labels, RowChunk, cores, in_threads, place
from materializer.pit.factorize import canonical_key

Codes = npt.NDArray[np.int32]

_BLOCK: Final = 1 << 19  # rows whose keys one thread looks up at a time
_PART: Final = 1 << 18  # labels: with their best rows 8 MB
_MOST_PARTS: Final = 8


def find_rows(
    labels: Labels,
    chunks: Sequence[RowChunk],
    *,
    ttl_us: int | None = None,
    cutoff: int | Ints | None = None,
    threads: int | None = None,
) -> Ints:
    """See the twin. A cutoff for each label other than its own time is left to the twin."""
    limit: int | None = None
    if isinstance(cutoff, np.ndarray):
        if not np.array_equal(cutoff, labels.times):
            return asof_py.find_rows(labels, chunks, ttl_us=ttl_us, cutoff=cutoff)
    else:
        limit = cutoff
    keys = Keys(labels)
    times = LabelTimes(
        keys.codes,
        keys.n_codes,
        np.ascontiguousarray(labels.times),
        ttl_us=ttl_us,
        cutoff=limit,
        known=isinstance(cutoff, np.ndarray),
    )
    threads = threads or cores()
    blocks = list(_blocks(chunks))
    codes: list[Codes] = [np.empty(0, np.int32)] * len(blocks)
    places = np.full(len(labels.times), NONE, np.int64)

    def code(mine: Iterator[int]) -> None:
        for i in mine:
            codes[i] = keys.find(blocks[i][1])

    def join(mine: Iterator[Part]) -> None:
        for part in mine:
            part.sort()
            for rows, (first, block) in zip(codes, blocks, strict=True):
                part.scan(rows, block.event_ts, block.created_ts, first)
            part.winners(places)

    in_threads(code, range(len(blocks)), threads)
    in_threads(join, times.parts(_count(len(labels.times), threads)), threads)
    return places


def _blocks(chunks: Sequence[RowChunk]) -> Iterator[tuple[int, RowChunk]]:
    """Chunks, long ones in pieces; each with the place of its first row."""
    for number, chunk in enumerate(chunks):
        for start in range(0, len(chunk.event_ts), _BLOCK):
            rows = slice(start, start + _BLOCK)
            event, created = (
                np.ascontiguousarray(times[rows]) for times in (chunk.event_ts, chunk.created_ts)
            )
            yield place(number, start), RowChunk([column[rows] for column in chunk.keys], event, created)


def _count(n_labels: int, threads: int) -> int:
    """How many parts: each thread some, no part too large for a core's cache, and not too often over the rows."""
    fit = min(-(-n_labels // _PART), _MOST_PARTS)
    return -(-max(fit, threads) // threads) * threads


class Keys:
    """Composite keys of labels as codes. One table for each part, and one for each pair of codes so far and part.

    Attributes:
        codes: int32[n], -1 for a key with a null.
        n_codes: all codes are below.
    """

    def __init__(self, labels: Labels) -> None:
        self._key_types = labels.key_types
        self._tables: list[KeyTable] = []
        self._pairs: list[KeyTable] = []
        self.codes: Codes = np.zeros(len(labels.times), np.int32)
        self.n_codes = 1
        for i, column in enumerate(labels.keys):
            part, self.n_codes = _added(self._tables, _plain(column))
            if i:
                part, self.n_codes = _added(self._pairs, _paired(self.codes, part))
            self.codes = part

    def find(self, rows: RowChunk) -> Codes:
        """Codes of rows: int32[m]."""
        codes = np.zeros(len(rows.event_ts), np.int32)
        for i, (column, table, dtype) in enumerate(
            zip(rows.keys, self._tables, self._key_types, strict=True)
        ):
            part = _found(table, column, dtype)
            codes = self._pairs[i - 1].find(_paired(codes, part)) if i else part
        return codes


def _added(tables: list[KeyTable], column: pa.Array) -> tuple[Codes, int]:
    table = KeyTable(not is_.is_int64(column.type))
    codes = table.add(column)
    tables.append(table)
    return codes, table.n_codes


def _found(table: KeyTable, column: pa.Array, dtype: str) -> Codes:
    if not is_.is_dictionary(column.type):
        return table.find(_plain(canonical_key(column, dtype)))
    known = np.append(table.find(_plain(canonical_key(column.dictionary, dtype))), np.int32(NONE))
    indices = column.indices.fill_null(len(column.dictionary)) if column.null_count else column.indices
    found: Codes = known[indices.to_numpy()]
    return found


def _plain(column: pa.Array) -> pa.Array:
    """Keys as a KeyTable takes them."""
    return column.cast(pa.int64()) if is_.is_boolean(column.type) else column


def _paired(left: Codes, right: Codes) -> pa.Array:
    missing = (left < 0) | (right < 0)
    return pa.array(left.astype(np.int64) << 32 | right, mask=missing)
