"""One column of Arrow values -> the bytes each has in a row, or None for null; the readable spec.

Also how a declared default becomes row bytes, so that a default and a stored value decode alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from fastserve.codec.layout import Layout
from fastserve.errors import CodecError, FastserveError, InvalidDataError
from fastserve.timeutil import parse_timestamp
from fastserve.types import DType, arrow_type

# Numbers go through an integer view of the same width, so that every bit of a NaN survives.
_VIEWS: Final[dict[str, tuple[Callable[[], pa.DataType], str]]] = {
    "int32": (pa.int32, "<i"),
    "int64": (pa.int64, "<q"),
    "float32": (pa.int32, "<i"),
    "float64": (pa.int64, "<q"),
    "timestamp": (pa.int64, "<q"),
}


def field_bytes(name: str, dtype: DType, column: pa.Array) -> list[bytes | None]:
    """The bytes of each value, None for a null.

    Raises:
        InvalidDataError: for a null item inside a list.
    """
    if not dtype.is_list:
        return _scalar_bytes(dtype.item, column)
    found: list[bytes | None] = []
    for i, value in enumerate(column):
        if not value.is_valid:
            found.append(None)
            continue
        items = _scalar_bytes(dtype.item, value.values)
        parts = [item for item in items if item is not None]
        if len(parts) != len(items):
            raise null_item(name, i)
        found.append(b"".join(parts) if dtype.scalar.width else blob_list(parts))
    return found


def null_item(name: str, i: int) -> InvalidDataError:
    """The error for a null inside a list."""
    return InvalidDataError(
        "a list holds a null item",
        where=f"column {name!r}, row {i}",
        hint="drop the item or give it a value; the list as a whole may be null",
    )


def _scalar_bytes(item: str, column: pa.Array) -> list[bytes | None]:
    if item in ("string", "bytes"):
        return column.view(pa.binary()).to_pylist()  # type: ignore[no-any-return]
    if item == "bool":
        return [None if v is None else bytes([v]) for v in column.to_pylist()]
    view, code = _VIEWS[item]
    return [None if v is None else struct.pack(code, v) for v in column.view(view()).to_pylist()]


def blob_list(parts: Sequence[bytes]) -> bytes:
    """u32 count, that many u32 ends, then the bytes."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return struct.pack(f"<I{len(parts)}I", len(parts), *ends[1:]) + b"".join(parts)


def check_columns(layout: Layout, columns: Sequence[pa.Array], n: int) -> None:
    """Raise InvalidDataError unless there is one column per field, of its Arrow type and n long."""
    if len(columns) != len(layout.names):
        raise InvalidDataError(
            f"{len(columns)} columns were given, the layout has {len(layout.names)} fields"
        )
    check_arrays(layout.names, layout.dtypes, columns, n)


def check_arrays(names: Sequence[str], dtypes: Sequence[DType], columns: Sequence[pa.Array], n: int) -> None:
    """Raise InvalidDataError unless each column is of its Arrow type and n long."""
    for name, dtype, column in zip(names, dtypes, columns, strict=True):
        where = f"column {name!r}"
        if not isinstance(column, pa.Array):
            raise InvalidDataError(
                f"a column is a pyarrow Array, not {type(column).__name__}",
                where=where,
                hint="combine the chunks of a ChunkedArray first",
            )
        if not _same_type(column.type, arrow_type(dtype)):
            raise InvalidDataError(
                f"the column is {column.type}, the field is {dtype}",
                where=where,
                hint=f"cast it to {arrow_type(dtype)}",
            )
        if len(column) != n:
            raise InvalidDataError(f"{len(column)} values for {n} keys", where=where)


def _same_type(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Equal, but for what a list calls its items and whether it says they are never null."""
    if given == wanted:
        return True
    if pa.types.is_fixed_size_list(wanted) and pa.types.is_fixed_size_list(given):
        return bool(given.list_size == wanted.list_size and given.value_type == wanted.value_type)
    return bool(
        pa.types.is_list(wanted) and pa.types.is_list(given) and given.value_type == wanted.value_type
    )


def encode_defaults(
    layouts: Mapping[int, Layout], names: Sequence[str], defaults: Mapping[str, object]
) -> dict[str, bytes]:
    """Name -> the default's row bytes, for the wanted names that have one.

    A default of None is no default. A timestamp's is a datetime, RFC 3339 text or int microseconds.

    Raises:
        CodecError: when a default is not of the field's type.
    """
    dtypes = {
        name: dtype
        for layout in layouts.values()
        for name, dtype in zip(layout.names, layout.dtypes, strict=True)
    }
    found = {}
    for name in names:
        value = defaults.get(name)
        if value is not None and name in dtypes:
            found[name] = _default_bytes(name, dtypes[name], value)
    return found


def _default_bytes(name: str, dtype: DType, value: Any) -> bytes:
    try:
        if dtype.is_list and isinstance(value, tuple):
            value = list(value)
        if dtype.item == "timestamp":
            value = [parse_timestamp(v) for v in value] if dtype.is_list else parse_timestamp(value)
        array = pa.array([value], arrow_type(dtype))
        if dtype.item in ("int32", "int64", "string", "bytes") and array.to_pylist() != [value]:
            raise TypeError("it would be changed")  # pyarrow makes 1 of 1.5, and text of bytes
        encoded = field_bytes(name, dtype, array)[0]
    except (pa.ArrowException, TypeError, ValueError, OverflowError, FastserveError) as error:
        raise CodecError(
            f"the default {value!r} is not a {dtype}: {error}", where=f"field {name!r}"
        ) from error
    assert encoded is not None
    return encoded
