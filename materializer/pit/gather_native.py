"""`gather` on the native kernel (_ext/gather.pyx): each thread takes a column's values for a range of labels.

What Arrow keeps in values of one width, in bits, or in items with 32-bit ends is taken where it lies; all other
types, and lists with null items, go the twin's way. Labels without a row are null in every column: columns without
nulls of their own share one bitmap. Many columns of short values are read in the order of their rows, each as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve._native.gather import Places, RowOrder, Source
from materializer.pit import gather_py
from materializer.pit.chunks import TAKE_ROWS, Column, Ints, cores, in_threads


def gather(columns: Sequence[Column], *, threads: int | None = None) -> list[pa.ChunkedArray]:
    """See the twin."""
    ranges = _Ranges(columns, threads or cores())
    takers = [_taker(column, ranges) for column in columns]

    def take(job: tuple[int, int]) -> list[pa.Array]:
        number, part = job
        return takers[number].take(part)

    jobs = [(i, part) for i, taker in enumerate(takers) for part in range(len(taker.asked))]
    made: list[list[pa.Array]] = [[] for _ in columns]
    for (number, _), arrays in zip(jobs, in_threads(take, jobs, threads or cores()), strict=True):
        made[number] += arrays
    return [pa.chunked_array(arrays, column.kind) for column, arrays in zip(columns, made, strict=True)]


_MOST_ITEMS: Final = 2**31 - 1
_SAVED: Final = {
    8: 4,
    16: 4,
    32: 4,
    64: 1,
}  # bits of a value: about what its column saves when rows are in order
_ORDER: Final = 16  # what it takes to put them in order
_MANY_ROWS: Final = 1 << 20  # that no cache holds
_DENSE: Final = 16  # rows to each label


class _Asked:
    """A range of labels: their places, and the bitmap of those that have one, or None if all do."""

    def __init__(self, places: Ints, lengths: tuple[int, ...]) -> None:
        self.places = Places(places, lengths)
        self.bits: pa.Buffer | None = None
        if self.places.n_found < self.places.n:
            self.bits = _bits(self.places.n)
            self.places.found(_bytes(self.bits))


Shared = tuple[int, tuple[int, ...]]


class _Ranges:
    """The ranges that have been made, each once for all columns that ask for the same places."""

    def __init__(self, columns: Sequence[Column], threads: int) -> None:
        self._made: dict[Shared, list[_Asked]] = {}
        self._orders: dict[Shared, RowOrder | None] = {}
        self._threads = threads
        self._saved: Counter[Shared] = Counter()
        self._columns: Counter[Shared] = Counter()
        for column in columns:
            if _is_short(column.kind):
                self._saved[_shared(column)] += _SAVED[column.kind.bit_width]
                self._columns[_shared(column)] += 1

    def of(self, column: Column) -> list[_Asked]:
        at = _shared(column)
        if at not in self._made:
            places = np.ascontiguousarray(column.places)
            self._made[at] = [
                _Asked(places[i : i + TAKE_ROWS], at[1]) for i in range(0, len(places), TAKE_ROWS)
            ]
        return self._made[at]

    def order(self, column: Column) -> RowOrder | None:
        """In which a column of short values is read; None: as the labels come."""
        at = _shared(column)
        if at not in self._orders:
            rows, found = sum(at[1]), sum(asked.places.n_found for asked in self.of(column))
            worth = (
                self._saved[at] >= _ORDER and self._columns[at] >= self._threads
            )  # a thread takes a column
            worth = worth and rows >= _MANY_ROWS and found * _DENSE >= rows
            self._orders[at] = RowOrder(Places(np.ascontiguousarray(column.places), at[1])) if worth else None
        return self._orders[at]


def _shared(column: Column) -> Shared:
    """What columns have in common that share their ranges."""
    return id(column.places), tuple(len(chunk) for chunk in column.chunks)


class _Taker:
    """Takes values of one width, or bits."""

    def __init__(self, column: Column, asked: list[_Asked]) -> None:
        self.asked = asked
        self.kind = column.kind
        self.source = Source(column.chunks, *_shape(column.kind))

    def take(self, part: int) -> list[pa.Array]:
        """The values for one range of labels, in one array or several."""
        asked = self.asked[part]
        return [self.made(asked.places, self.present(asked))]

    def present(self, asked: _Asked) -> pa.Buffer | None:
        """The bitmap of the values."""
        if not self.source.has_nulls:
            return asked.bits
        bits = _bits(asked.places.n)
        self.source.present(asked.places, _bytes(bits))
        return bits

    def made(self, places: Places, present: pa.Buffer | None) -> pa.Array:
        n, width = places.n, self.kind.bit_width
        values = _bits(n) if width == 1 else _memory(n * width // 8)
        self.source.values(places, _bytes(values))
        return pa.Array.from_buffers(self.kind, n, [present, values])


class _InOrder:
    """Takes short values of all ranges at once, in the order of their rows."""

    def __init__(self, taker: _Taker, order: RowOrder) -> None:
        self.asked = [order]
        self._taker = taker

    def take(self, part: int) -> list[pa.Array]:
        """The values for all labels, an array for each range."""
        order, taker, start = self.asked[part], self._taker, 0
        width = taker.kind.bit_width // 8
        dealt = _bytes(_memory(order.n * width))
        order.pick(taker.source, dealt)
        made = []
        for asked in taker.asked:
            stop = start + asked.places.n
            values = _memory(asked.places.n * width)
            order.values(width, dealt, start, stop, _bytes(values))
            made.append(pa.Array.from_buffers(taker.kind, stop - start, [taker.present(asked), values]))
            start = stop
        return made


class _FixedLists(_Taker):
    """A list of so many items is a wide value."""

    def made(self, places: Places, present: pa.Buffer | None) -> pa.Array:
        item, count = self.kind.value_type, places.n * self.kind.list_size
        values = _memory(count * item.bit_width // 8)
        self.source.values(places, _bytes(values))
        items = pa.Array.from_buffers(item, count, [None, values])
        return pa.Array.from_buffers(self.kind, places.n, [present], children=[items])


class _Varying(_Taker):
    """Text, bytes and lists."""

    def take(self, part: int) -> list[pa.Array]:
        return self.halves(self.asked[part])

    def halves(self, asked: _Asked) -> list[pa.Array]:
        """In as many arrays as it takes for 32-bit ends."""
        n = asked.places.n
        ends = _memory(4 * (n + 1))
        view = np.frombuffer(ends, np.int32)
        total = self.source.ends(asked.places, view)
        if total > _MOST_ITEMS:
            halves = asked.places.halves()
            return [array for half in halves for array in self.halves(_Asked(half, asked.places.lengths))]
        is_text = not is_.is_list(self.kind)
        items = _memory(total * (1 if is_text else self.kind.value_type.bit_width // 8))
        self.source.items(asked.places, view, _bytes(items))
        present = self.present(asked)
        if is_text:
            return [pa.Array.from_buffers(self.kind, n, [present, ends, items])]
        child = pa.Array.from_buffers(self.kind.value_type, total, [None, items])
        return [pa.Array.from_buffers(self.kind, n, [present, ends], children=[child])]


class _Dictionary(_Taker):
    """Indices are values of one width; the chunks' dictionaries become one."""

    def __init__(self, column: Column, asked: list[_Asked]) -> None:
        whole = pa.chunked_array(column.chunks, column.kind).unify_dictionaries()
        indices = [chunk.indices for chunk in whole.chunks]
        super().__init__(Column(indices, column.kind.index_type, column.places), asked)
        self.whole, self.ordered = whole, column.kind.ordered

    def take(self, part: int) -> list[pa.Array]:
        (indices,) = super().take(part)
        dictionary = self.whole.chunk(0).dictionary
        return [pa.DictionaryArray.from_arrays(indices, dictionary, ordered=self.ordered)]


class _ByTwin:
    """All ranges in one."""

    def __init__(self, column: Column) -> None:
        self.asked = [column]

    def take(self, part: int) -> list[pa.Array]:
        return list(gather_py.take(self.asked[part]).chunks)


def _taker(column: Column, ranges: _Ranges) -> _Taker | _InOrder | _ByTwin:
    """Of the class that the column's type wants."""
    for chunk in column.chunks:
        _ = chunk.null_count  # counted now, Arrow remembers: a slice does not know whether it has any
    kind = column.kind
    if is_.is_dictionary(kind):
        wanted: type[_Taker] | None = _Dictionary if column.chunks else None
    elif is_.is_string(kind) or is_.is_binary(kind) or (is_.is_list(kind) and _is_plain(column)):
        wanted = _Varying
    elif is_.is_fixed_size_list(kind) and kind.list_size and _is_plain(column):
        wanted = _FixedLists
    else:
        wanted = _Taker if _has_width(kind) else None
    if wanted is None:
        return _ByTwin(column)
    taker = wanted(column, ranges.of(column))
    order = ranges.order(column) if _is_short(kind) else None
    return taker if order is None else _InOrder(taker, order)


def _is_short(kind: pa.DataType) -> bool:
    return _has_width(kind) and kind.bit_width in _SAVED


def _has_width(kind: pa.DataType) -> bool:
    if is_.is_primitive(kind) or is_.is_decimal(kind) or is_.is_fixed_size_binary(kind):
        return is_.is_boolean(kind) or kind.bit_width >= 8  # type: ignore[no-any-return]
    return False


def _is_plain(column: Column) -> bool:
    """Whether the items of lists are values of one width, none of them null."""
    item = column.kind.value_type
    return (
        _has_width(item)
        and not is_.is_boolean(item)
        and not any(chunk.values.null_count for chunk in column.chunks)
    )


def _shape(kind: pa.DataType) -> tuple[int, str, int]:
    """What a Source is told of a type: width, kind, length."""
    if is_.is_string(kind) or is_.is_binary(kind):
        return 1, "lists", 1
    if is_.is_list(kind):
        return kind.value_type.bit_width // 8, "lists", 1
    if is_.is_fixed_size_list(kind):
        return kind.value_type.bit_width // 8, "fixed", kind.list_size
    return kind.bit_width // 8, "values", 1


def _bits(n: int) -> pa.Buffer:
    return _memory((n + 7) // 8)


def _memory(size: int) -> pa.Buffer:
    return pa.allocate_buffer(max(size, 1))


def _bytes(buffer: pa.Buffer) -> npt.NDArray[np.uint8]:
    return np.frombuffer(buffer, np.uint8)
