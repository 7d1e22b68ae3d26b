"""`find_rows` on the native kernel: keys to codes (_ext/asof_keys.pyx), codes and times to rows (_ext/asof.pyx).

Labels are cut into parts, an entity being in one. Threads take blocks of rows, turn their keys into codes and deal the
rows out by part; then they take parts, which look at their rows of some blocks; and so on until there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve._native.asof import LabelTimes, Part, Rows
from fastserve._native.asof_keys import KeyTable
from materializer.pit import asof_py
from materializer.pit.chunks import NONE, Ints, Labels, RowChunk, cores, in_threads, place
from materializer.pit.factorize import canonical_key

Codes = npt.NDArray[np.int32]
Block = tuple[int, RowChunk]  # and the place of its first row

_BLOCK: Final = 1 << 18  # rows that are dealt out to parts by one thread at a time
_GROUP: Final = 1 << 21  # rows that are dealt out before parts take theirs: 48 MB
_PART: Final = 1 << 14  # labels: with their best rows half a megabyte
_MOST_PARTS: Final = 256


def find_rows(
    labels: Labels,
    chunks: Sequence[RowChunk],
    *,
    ttl_us: int | None = None,
    cutoff: int | Ints | None = None,
    threads: int | None = None,
) -> Ints:
    """See the twin. A cutoff for each label other than its own time is left to the twin."""
    known = isinstance(cutoff, np.ndarray)
    if known and not np.array_equal(labels.times, cutoff):  # type: ignore[arg-type]
        return asof_py.find_rows(labels, chunks, ttl_us=ttl_us, cutoff=cutoff)
    limit = None if known else cast("int | None", cutoff)
    join = _Join(labels, threads or cores(), ttl_us=ttl_us, cutoff=limit, known=known)
    join.each(Part.sort)
    for group in _groups(chunks):
        join.take(group)
    places = np.full(len(labels.times), NONE, np.int64)
    join.each(lambda part: part.winners(places))
    return places


class _Join:
    """The labels of one join, in parts, and blocks of rows dealt out to them."""

    def __init__(self, labels: Labels, threads: int, **rule: Any) -> None:
        self._threads = threads
        self._keys = Keys(labels)
        times = np.ascontiguousarray(labels.times)
        self._labels = LabelTimes(self._keys.codes, self._keys.n_codes, times, **rule)
        self._parts = self._labels.parts(_count(len(times), threads))
        self._dealt: list[Rows] = []  # used again for each group

    def each(self, work: Callable[[Part], None]) -> None:
        """`work` on every part."""

        def some(mine: Iterator[Part]) -> None:
            for part in mine:
                work(part)

        in_threads(some, self._parts, self._threads)

    def take(self, group: Sequence[Block]) -> None:
        """Offer blocks of rows to the labels."""
        self._dealt += [Rows(self._labels) for _ in range(len(group) - len(self._dealt))]
        dealt = self._dealt[: len(group)]
        in_threads(self._deal, list(zip(dealt, group, strict=True)), self._threads)

        def scan(part: Part) -> None:
            for rows in dealt:
                part.scan(rows)

        self.each(scan)

    def _deal(self, mine: Iterator[tuple[Rows, Block]]) -> None:
        for rows, (first, block) in mine:
            rows.fill(self._keys.find(block), block.event_ts, block.created_ts, first)


def _count(n_labels: int, threads: int) -> int:
    """How many parts: each thread some, none too large for a core's cache."""
    fit = min(-(-n_labels // _PART), _MOST_PARTS)
    return -(-max(fit, threads) // threads) * threads


def _groups(chunks: Sequence[RowChunk]) -> Iterator[list[Block]]:
    """Some blocks at a time: so many rows that it is worth to have each part in the cache once more."""
    group: list[Block] = []
    rows = 0
    for block in _blocks(chunks):
        group.append(block)
        rows += len(block[1].event_ts)
        if rows >= _GROUP:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _blocks(chunks: Sequence[RowChunk]) -> Iterator[Block]:
    """Chunks, long ones in pieces; each with the place of its first row."""
    for number, chunk in enumerate(chunks):
        for start in range(0, len(chunk.event_ts), _BLOCK):
            rows = slice(start, start + _BLOCK)
            event, created = (
                np.ascontiguousarray(times[rows]) for times in (chunk.event_ts, chunk.created_ts)
            )
            yield place(number, start), RowChunk([column[rows] for column in chunk.keys], event, created)


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
