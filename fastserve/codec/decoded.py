"""What a decoded batch looks like, and the plan a decoder follows; shared by native code and twin.

Shapes, for n entities and f fields:
    row_status  uint8[n]        one Status per entity: did the view have a row for it?
    statuses    uint8[f, n]     one Status per value
    valid       bool[f, n]      whether the value is not null
    event_ts    int64[n]        microseconds UTC; 0 where there is no row
    created_ts  int64[n]        likewise
    blocks      {scalar: array of the scalar's numpy dtype, shape [k, n]}
                the k fields of each fixed-width scalar type, in output order; a null is 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.codec.layout import Layout
from fastserve.codec.status import UNAVAILABLE
from fastserve.errors import CodecError, TooLargeError
from fastserve.timeutil import to_moment
from fastserve.types import DType, arrow_type

# How a field's bytes are read. FIXED: width bytes at a fixed offset. The others are heap fields:
# BLOB is the bytes themselves, ITEMS packed fixed-width items, BLOBS a list of strings or bytes.
FIXED: Final = 0
BLOB: Final = 1
ITEMS: Final = 2
BLOBS: Final = 3

_MAX_OFFSET: Final = 2**31 - 1


def field_kind(dtype: DType) -> int:
    """FIXED, BLOB, ITEMS or BLOBS."""
    if dtype.width:
        return FIXED
    if not dtype.is_list:
        return BLOB
    return ITEMS if dtype.scalar.width else BLOBS


@dataclass(frozen=True, slots=True, eq=False)
class FieldPlan:
    """One wanted field.

    Attributes:
        name: its name.
        dtype: its type.
        kind: FIXED, BLOB, ITEMS or BLOBS.
        slot: its row in the block of its scalar type; -1 unless it is a fixed-width scalar.
        default: its default value as row bytes, or None without a default.
    """

    name: str
    dtype: DType
    kind: int
    slot: int
    default: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class DecodePlan:
    """Everything a decoder knows before it sees a row.

    Attributes:
        fields: the wanted fields, in output order.
        layouts: layout id -> Layout.
        sources: layout id -> for each wanted field its position in that layout, or -1.
        block_sizes: scalar type -> how many wanted fields have it.
        lists: the wanted fixed lists, with their numbers.
    """

    fields: tuple[FieldPlan, ...]
    layouts: dict[int, Layout]
    sources: dict[int, tuple[int, ...]]
    block_sizes: dict[str, int]
    lists: tuple[tuple[int, FieldPlan], ...]


@dataclass(slots=True, eq=False)
class DecodedColumn:
    """One field of n entities.

    Attributes:
        name: the field's name.
        dtype: its type.
        valid: bool[n], False where the value is null.
        values: scalars of fixed width: their numpy dtype, [n]; fixed lists of these: [n, length];
            variable lists of these: the items of all lists end to end; None for strings and bytes.
            A null is 0. A timestamp is int64 microseconds UTC.
        offsets: int64[n + 1]. Strings and bytes: value i is ``data[offsets[i]:offsets[i + 1]]``.
            Lists: items ``offsets[i]`` to ``offsets[i + 1]``. None for fixed-width types.
        item_offsets: int64[items + 1], for lists of strings or bytes: item j is
            ``data[item_offsets[j]:item_offsets[j + 1]]``.
        data: uint8, the bytes of strings and bytes.
    """

    name: str
    dtype: DType
    valid: npt.NDArray[np.bool_]
    values: npt.NDArray[Any] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    item_offsets: npt.NDArray[np.int64] | None = None
    data: npt.NDArray[np.uint8] | None = None

    def to_arrow(self) -> pa.Array:
        """The column as Arrow, of type ``arrow_type(dtype)``; bits are kept, NaN payloads too.

        Raises:
            TooLargeError: for 2^31 bytes or items and more: Arrow's offsets have 32 bits.
        """
        kind = arrow_type(self.dtype)
        n = len(self.valid)
        nulls = None if self.valid.all() else _bits(self.valid)
        if not self.dtype.is_list:
            return self._scalars(kind, n, nulls)
        if self.dtype.length is not None:
            return pa.FixedSizeListArray.from_buffers(
                kind, n, [nulls], children=[self._fixed_items(kind.value_type, n)]
            )
        assert self.offsets is not None
        items = self._items(kind.value_type, int(self.offsets[-1]))
        return pa.Array.from_buffers(kind, n, [nulls, _offsets(self.name, self.offsets)], children=[items])

    def to_pylist(self) -> list[Any]:
        """The column as Python values: None for null, `to_moment` of a timestamp."""
        if self.dtype.item == "timestamp":
            assert self.values is not None
            if self.dtype.is_list:
                found: Any = [[to_moment(us) for us in items.tolist()] for items in self.lists()]
            else:
                found = map(to_moment, self.values.tolist())
            return [value if ok else None for value, ok in zip(found, self.valid.tolist(), strict=True)]
        return self.to_arrow().to_pylist()  # type: ignore[no-any-return]

    def lists(self) -> list[npt.NDArray[Any]]:
        """The items of each list of fixed-width scalars; those of a null mean nothing."""
        assert self.values is not None
        if self.offsets is None:
            return list(self.values)
        return [self.values[start:end] for start, end in pairwise(self.offsets.tolist())]

    def _scalars(self, kind: pa.DataType, n: int, nulls: pa.Buffer | None) -> pa.Array:
        if self.values is not None:
            return pa.Array.from_buffers(kind, n, [nulls, _packed(self.values)])
        assert self.offsets is not None
        buffers = [nulls, _offsets(self.name, self.offsets), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(kind, n, buffers)

    def _items(self, kind: pa.DataType, count: int) -> pa.Array:
        if self.values is not None:
            return pa.Array.from_buffers(kind, count, [None, _packed(self.values)])
        assert self.item_offsets is not None
        buffers = [None, _offsets(self.name, self.item_offsets), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(kind, count, buffers)

    def _fixed_items(self, kind: pa.DataType, n: int) -> pa.Array:
        """The items of a fixed list: a null list takes `length` of them too, as Arrow wants it."""
        length = self.dtype.length or 0
        if self.values is not None:
            return self._items(kind, n * length)
        assert self.offsets is not None
        items = self._items(kind, int(self.offsets[-1]))
        picks = np.repeat(self.offsets[:-1], length) + np.tile(np.arange(length), n)
        return items.take(pa.array(picks, mask=np.repeat(~self.valid, length)))


class DecodedRows:
    """A decoded batch of one view; the module's docstring gives the shapes.

    Attributes:
        n: how many entities.
        fields: the plan's fields, one per column.
        row_status, statuses, valid, event_ts, created_ts, blocks: as above.
        columns: one DecodedColumn per field, in output order.
    """

    __slots__ = ("_columns", "_others", "blocks", "created_ts", "event_ts", "fields", "n",
                 "row_status", "statuses", "valid")  # fmt: skip

    def __init__(self, plan: DecodePlan, n: int) -> None:
        f = len(plan.fields)
        self.n = n
        self.fields = plan.fields
        self.row_status = np.zeros(n, np.uint8)
        self.statuses = np.zeros((f, n), np.uint8)
        self.valid = np.zeros((f, n), np.bool_)
        self.event_ts = np.zeros(n, np.int64)
        self.created_ts = np.zeros(n, np.int64)
        self.blocks: dict[str, npt.NDArray[Any]] = {
            item: np.zeros((k, n), _NUMPY[item]) for item, k in plan.block_sizes.items()
        }
        # field number -> the arrays of a fixed list (values) or a heap field (heap_parts)
        self._others: dict[int, tuple[Any, ...]] = {
            i: (np.zeros((n, field.dtype.length or 0), _NUMPY[field.dtype.item]),) for i, field in plan.lists
        }
        self._columns: list[DecodedColumn] | None = None

    @property
    def columns(self) -> list[DecodedColumn]:
        """One per field, in output order; views of the arrays, made on first use."""
        if self._columns is None:
            self._columns = [self._column(i) for i in range(len(self.fields))]
        return self._columns

    def _column(self, i: int) -> DecodedColumn:
        field = self.fields[i]
        if field.slot >= 0:
            parts: tuple[Any, ...] = (self.blocks[field.dtype.item][field.slot],)
        else:
            parts = self._others[i]
        return DecodedColumn(field.name, field.dtype, self.valid[i], *parts)


def unavailable_rows(plan: DecodePlan, n: int) -> DecodedRows:
    """What a read answers when the store did not: every value null, every status UNAVAILABLE."""
    rows = DecodedRows(plan, n)
    rows.row_status.fill(UNAVAILABLE)
    rows.statuses.fill(UNAVAILABLE)
    for i, field in enumerate(plan.fields):
        if field.kind != FIXED:
            rows._others[i] = heap_parts(field, [0] * n, [], b"")
    return rows


def heap_parts(
    field: FieldPlan, counts: Sequence[int], item_counts: Sequence[int], data: bytes
) -> tuple[Any, ...]:
    """(values, offsets, item_offsets, data) of a heap field.

    Args:
        field: the field.
        counts: per entity: how many bytes (BLOB) or items (lists) it has.
        item_counts: per item of a BLOBS field: how many bytes it has.
        data: the bytes, end to end.
    """
    if field.kind == BLOB:
        return None, _cumulated(counts), None, np.frombuffer(data, np.uint8)
    if field.kind == ITEMS:
        values = np.frombuffer(data, _NUMPY[field.dtype.item])
        if values.dtype == np.bool_:
            values = values.view(np.uint8) != 0
        return values, _cumulated(counts), None, None
    return None, _cumulated(counts), _cumulated(item_counts), np.frombuffer(data, np.uint8)


def make_plan(
    layouts: Mapping[int, Layout], names: Sequence[str], defaults: Mapping[str, bytes]
) -> DecodePlan:
    """Resolve names to fields.

    Raises:
        CodecError: when no layout has a name, or two layouts give it different types.
    """
    fields = []
    sizes: dict[str, int] = {}
    for name in names:
        dtype = _type_of(name, layouts)
        slot = -1
        if not dtype.is_list and dtype.width:
            slot = sizes.get(dtype.item, 0)
            sizes[dtype.item] = slot + 1
        fields.append(FieldPlan(name, dtype, field_kind(dtype), slot, defaults.get(name)))
    sources = {
        layout_id: tuple(layout.index.get(name, -1) for name in names)
        for layout_id, layout in layouts.items()
    }
    lists = tuple((i, field) for i, field in enumerate(fields) if field.kind == FIXED and field.slot < 0)
    return DecodePlan(tuple(fields), dict(layouts), sources, sizes, lists)


def _type_of(name: str, layouts: Mapping[int, Layout]) -> DType:
    found = {layout.dtypes[layout.index[name]] for layout in layouts.values() if name in layout.index}
    if len(found) != 1:
        says = " and ".join(sorted(map(str, found))) or "in none of the layouts"
        raise CodecError(f"field {name!r} is {says}", hint="a changed type needs a new view version")
    return found.pop()


def corrupt(key: bytes, message: str, layout_id: int | None, offset: int) -> CodecError:
    """The error for a row that cannot be read: which key, which layout, which byte."""
    layout = "" if layout_id is None else f", layout {layout_id}"
    return CodecError(
        message,
        where=f"row of key {key!r}{layout}, offset {offset}",
        hint="materialize the view again to replace the row",
    )


_NUMPY: Final = {name: np.dtype(text) for name, text in (
    ("bool", "?"), ("int32", "<i4"), ("int64", "<i8"), ("float32", "<f4"), ("float64", "<f8"),
    ("timestamp", "<i8"))}  # fmt: skip


def _cumulated(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _bits(flags: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _packed(values: npt.NDArray[Any]) -> pa.Buffer:
    if values.dtype == np.bool_:
        return _bits(values.reshape(-1))
    return pa.py_buffer(np.ascontiguousarray(values))


def _offsets(name: str, offsets: npt.NDArray[np.int64]) -> pa.Buffer:
    if offsets[-1] > _MAX_OFFSET:
        raise TooLargeError(
            f"a column of {int(offsets[-1]):,} bytes or items is more than Arrow can address",
            where=f"field {name!r}",
            hint="read fewer entities at a time",
        )
    return pa.py_buffer(offsets.astype(np.int32))
