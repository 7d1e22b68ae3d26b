"""`find_rows` on the native kernel: keys to codes (_ext/asof_keys.pyx), codes and times to rows (_ext/asof.pyx).

Labels are cut into parts, an entity being in one. Each thread reads a piece of the rows, turns keys into codes and
deals the rows out by part; when enough are dealt out, threads take parts, which look at their rows; and so on until
there are none. Memory is the labels' and that of the rows dealt out, however many rows there are.
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
from materializer.pit.chunks import (
    NONE,
    Ints,
    Labels,
    Piece,
    RowChunk,
    Seen,
    cores,
    in_threads,
    place,
    unseen,
)
from materializer.pit.factorize import canonical_key

Codes = npt.NDArray[np.int32]
Block = tuple[int, RowChunk]  # and the place of its first row

_BLOCK: Final = 1 << 18  # rows that are dealt out to parts by one thread at a time
GROUP_ROWS: Final = 1 << 21  # that are dealt out before parts take theirs: 48 MB
_PART: Final = 1 << 14  # labels: with their best rows half a megabyte
_MOST_PARTS: Final = 256


def find_rows(
    labels: Labels,
    pieces: Sequence[Piece],
    *,
    ttl_us: int | None = None,
    cutoff: int | Ints | None = None,
    threads: int | None = None,
    group_rows: int = GROUP_ROWS,
    seen: Seen = unseen,
) -> Ints:
    """See the twin. A cutoff for each label other than its own time is left to the twin."""
    known = isinstance(cutoff, np.ndarray)
    if known and not np.array_equal(labels.times, cutoff):  # type: ignore[arg-type]
        return asof_py.find_rows(
            labels, pieces, ttl_us=ttl_us, cutoff=cutoff, group_rows=group_rows, seen=seen
        )
    limit = None if known else cast("int | None", cutoff)
    join = _Join(labels, threads or cores(), ttl_us=ttl_us, cutoff=limit, known=known)
    join.each(Part.sort)
    join.read(pieces, group_rows, seen)
    places = np.full(len(labels.times), NONE, np.int64)
    join.each(lambda part: part.winners(places))
    return places


class _Join:
    """The labels of one join, in parts, and blocks of rows dealt out to them."""

    def __init__(self, labels: Labels, threads: int, **rule: Any) -> None:
        self._threads = threads
        if labels.coded is None:
            labels.coded = Keys(labels)
        self._keys: Keys = labels.coded
        times = np.ascontiguousarray(labels.times)
        self._labels = LabelTimes(self._keys.codes, self._keys.n_codes, times, **rule)
        self._parts = self._labels.parts(_count(len(times), threads))

    def each(self, work: Callable[[Part], None]) -> None:
        """`work` on every part."""

        def some(mine: Iterator[Part]) -> None:
            for part in mine:
                work(part)

        in_threads(some, self._parts, self._threads)

    def read(self, pieces: Sequence[Piece], group_rows: int, seen: Seen) -> None:
        """Offer all rows to the labels, some group_rows at a time."""
        shared = iter(enumerate(pieces))  # of a list: next() is one step under the GIL
        count = max(min(self._threads, len(pieces)), 1)
        readers = [_Reader(_blocks(shared), self._labels, self._keys) for _ in range(count)]

        def deal(mine: Iterator[_Reader]) -> None:
            for reader in mine:
                reader.deal(max(group_rows // count, 1))

        def scan(part: Part) -> None:
            for reader in readers:
                for rows in reader.dealt:
                    part.scan(rows)

        while not all(reader.done for reader in readers):
            in_threads(deal, readers, count)
            self.each(scan)
            seen(sum(reader.n_rows for reader in readers))


class _Reader:
    """Blocks of rows read by one thread at a time, and dealt out by part.

    Attributes:
        dealt: the blocks dealt out last.
        n_rows: how many rows they have.
        done: there are no more blocks.
    """

    def __init__(self, blocks: Iterator[Block], labels: LabelTimes, keys: Keys) -> None:
        self.dealt: list[Rows] = []
        self.n_rows, self.done = 0, False
        self._blocks, self._labels, self._keys = blocks, labels, keys
        self._room: list[Rows] = []  # used again and again

    def deal(self, n_rows: int) -> None:
        """Deal out so many rows, or a block's more, in place of those before."""
        self.dealt, self.n_rows = [], 0
        while self.n_rows < n_rows:
            found = next(self._blocks, None)
            if found is None:
                self.done = True
                return
            first, block = found
            if len(self.dealt) == len(self._room):
                self._room.append(Rows(self._labels))
            rows = self._room[len(self.dealt)]
            rows.fill(self._keys.find(block), block.event_ts, block.created_ts, first)
            self.dealt.append(rows)
            self.n_rows += len(block.event_ts)


def _count(n_labels: int, threads: int) -> int:
    """How many parts: each thread some, none too large for a core's cache."""
    fit = min(-(-n_labels // _PART), _MOST_PARTS)
    return -(-max(fit, threads) // threads) * threads


def _blocks(pieces: Iterator[tuple[int, Piece]]) -> Iterator[Block]:
    """The chunks of pieces, long ones in blocks; each with the place of its first row."""
    for number, piece in pieces:
        before = 0
        for chunk in piece:
            for start in range(0, len(chunk.event_ts), _BLOCK):
                rows = slice(start, start + _BLOCK)
                event, created = (
                    np.ascontiguousarray(times[rows]) for times in (chunk.event_ts, chunk.created_ts)
                )
                block = RowChunk([column[rows] for column in chunk.keys], event, created)
                yield place(number, before + start), block
            before += len(chunk.event_ts)


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
