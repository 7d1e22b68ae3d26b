"""Source columns to declared types: exact, or an error that names the row. Null stays null.

| declared       | taken from                                                                           |
|----------------|--------------------------------------------------------------------------------------|
| bool           | bool; text `true`, `false` in any case, `1`, `0`                                       |
| int32, int64   | integers of any width, floats and decimals without a fraction, text; all within range; |
|                | `5.0` too: so pandas writes integers with gaps to CSV                                  |
| float64        | floats; integers up to 2^53; decimals and text, rounded to the nearest double          |
| float32        | as float64; a double is rounded to the nearest float (that is what the type declares)  |
| timestamp      | timestamps of any unit and zone, dates (midnight), ISO 8601 text; without a zone: UTC  |
| string         | text                                                                                   |
| bytes          | binary of any kind; text as its UTF-8                                                  |
| list<T>[n]     | lists of what T is taken from, without null items, all of length n if that is declared |

Refused: anything else (numbers as timestamps: of which unit?), and values that would change: fractions in an
integer, integers out of range, nanoseconds between two microseconds, finite doubles too large for float32; and times
outside the years 1 to 9999.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from fastserve.errors import InvalidDataError
from fastserve.timeutil import MAX_US, MIN_US, format_timestamp
from fastserve.types import DType, Timestamp, arrow_type

Where = Callable[[int], str]
"""Position in the column -> where that is, for a message."""

# ISO 8601 with a time of day and then a zone; a bare date must not read as "…-01".
_ZONED: Final = r"[T ]\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"
_NO_RULE: Final = "there is no exact conversion; declare another type, or cast the column in the source"


def cell(column: str, row: int) -> str:
    """How messages name a value of a table: ``column 'a', row 3``, rows from 0."""
    return f"column {column!r}, row {row}"


def cast_column(values: pa.Array, dtype: DType, where: Where) -> pa.Array:
    """The column as `arrow_type(dtype)`, by the module's table.

    Args:
        values: any Arrow array, dictionary-encoded ones included.
        dtype: the declared type.
        where: names a position of `values` in error messages.

    Raises:
        InvalidDataError: the types do not convert, or a value does not fit; names the row.
    """
    made = _cast(_plain(values), dtype, where)
    if dtype == Timestamp:
        _check_years(made, where)
    return made


def _cast(values: pa.Array, dtype: DType, where: Where) -> pa.Array:
    if is_.is_null(values.type):
        return pa.nulls(len(values), arrow_type(dtype))
    if dtype.is_list:
        return _cast_list(values, dtype, where)
    target = arrow_type(dtype)
    if values.type == target:
        return values
    if not any(test(values.type) for test in _TAKES[dtype.item]):
        raise InvalidDataError(
            f"the column is {values.type}, the declared type is {dtype}", where=where(0), hint=_NO_RULE
        )
    convert = _CONVERT.get(dtype.item, pa.Array.cast)
    try:
        return convert(values, target)
    except pa.ArrowInvalid:
        i = _first_bad(values, lambda part: convert(part, target))
        raise InvalidDataError(
            f"{_shown(values[i])} does not fit {dtype} exactly",
            where=where(i),
            hint=_hint(values.type, dtype),
        ) from None


def _check_years(times: pa.Array, where: Where) -> None:
    """What RFC 3339, JSON's form of a time, and a datetime can name."""
    ends = pc.min_max(times.cast(pa.int64()))
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is None or MIN_US <= low <= high <= MAX_US:
        return
    us = times.cast(pa.int64())
    i = pc.or_(pc.less(us, MIN_US), pc.greater(us, MAX_US)).index(True).as_py()
    raise InvalidDataError(
        f"{format_timestamp(us[i].as_py())} is outside the years 1 to 9999",
        where=where(i),
        hint="a null says that there is no time; 9999-12-31, that it lies beyond all others",
    )


def _plain(values: pa.Array) -> pa.Array:
    """Without extension type and dictionary."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if is_.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (is_.is_binary, is_.is_large_binary, is_.is_fixed_size_binary, is_.is_binary_view)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    tests = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(test(kind) for test in tests)


_NUMBERS: Final = (is_.is_integer, is_.is_floating, is_.is_decimal, _is_text)
_TAKES: Final[dict[str, tuple[Callable[[pa.DataType], bool], ...]]] = {
    "bool": (is_.is_boolean, _is_text),
    "int32": _NUMBERS,
    "int64": _NUMBERS,
    "float32": _NUMBERS,
    "float64": _NUMBERS,
    "timestamp": (is_.is_timestamp, is_.is_date, _is_text),
    "string": (_is_text,),
    "bytes": (_is_bytes, _is_text),
}


def _to_int(values: pa.Array, target: pa.DataType) -> pa.Array:
    try:
        return values.cast(target)
    except pa.ArrowInvalid:
        if not _is_text(values.type):
            raise
        # Through no float on the way: 9007199254740993.0 is that number.
        plain = pc.replace_substring_regex(values.cast(pa.large_string()), r"^(-?[0-9]+)\.0*$", r"\1")
        return plain.cast(target)


def _to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    if is_.is_decimal(values.type):
        values = values.cast(pa.string())  # parsing rounds once, correctly; the direct cast does not always
    made = values.cast(target)
    if is_.is_floating(values.type) and made.type.bit_width < values.type.bit_width:
        grown = pc.and_(pc.is_inf(made), pc.is_finite(values))
        if pc.any(grown).as_py():
            raise pa.ArrowInvalid("finite value becomes infinite")
    return made


def _to_timestamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    if not _is_text(values.type):
        return values.cast(target)
    zoned = pc.match_substring_regex(values, _ZONED)
    nothing = pa.scalar(None, values.type)
    with_zone = _parse(pc.if_else(zoned, values, nothing), "UTC")
    without = _parse(pc.if_else(zoned, nothing, values), None)
    return pc.coalesce(with_zone.cast(target), without.cast(target))


def _parse(texts: pa.Array, zone: str | None) -> pa.Array:
    """Text to microseconds; digits beyond the sixth are read as nanoseconds and must be zero."""
    try:
        return texts.cast(pa.timestamp("us", zone))
    except pa.ArrowInvalid:
        return texts.cast(pa.timestamp("ns", zone)).cast(pa.timestamp("us", zone))


_CONVERT: Final[dict[str, Callable[[pa.Array, pa.DataType], pa.Array]]] = {
    "int32": _to_int,
    "int64": _to_int,
    "float32": _to_float,
    "float64": _to_float,
    "timestamp": _to_timestamp,
}


def _cast_list(values: pa.Array, dtype: DType, where: Where) -> pa.Array:
    if not _is_list(values.type):
        raise InvalidDataError(
            f"the column is {values.type}, the declared type is {dtype}", where=where(0), hint=_NO_RULE
        )
    if dtype.length is not None and not values.null_count:
        whole = _cast_whole(values, dtype, where)
        if whole is not None:
            return whole
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0), np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    valid = np.asarray(values.is_valid())
    if dtype.length is not None:
        wrong = valid & (lengths != dtype.length)
        if wrong.any():
            i = int(wrong.argmax())
            raise InvalidDataError(
                f"the list has {lengths[i]} items, the declared type is {dtype}", where=where(i)
            )

    def where_item(item: int) -> str:
        return where(int(np.searchsorted(offsets, item, "right")) - 1)

    items = cast_column(values.flatten(), DType(dtype.item), where_item)
    if items.null_count:
        raise InvalidDataError(
            "a list holds a null item",
            where=where_item(items.is_null().index(True).as_py()),
            hint="drop the item or give it a value; the list as a whole may be null",
        )
    made = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=pa.array(~valid))
    return made if dtype.length is None else made.cast(arrow_type(dtype))


def _cast_whole(values: pa.Array, dtype: DType, where: Where) -> pa.Array | None:
    """A fixed list's column without nulls, at once; None where a list has another length or a null item."""
    length = dtype.length or 0
    if is_.is_fixed_size_list(values.type):
        same = values.type.list_size == length
    else:
        same = is_.is_list(values.type) and bool(
            (np.diff(values.offsets.to_numpy(zero_copy_only=False)) == length).all()
        )
    if not same:
        return None
    items = cast_column(values.flatten(), DType(dtype.item), lambda i: where(i // length))
    return None if items.null_count else pa.FixedSizeListArray.from_arrays(items, length)


def _first_bad(values: pa.Array, convert: Callable[[pa.Array], Any]) -> int:
    """The first position that does not convert, by halving; there is one."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(values[low:middle])
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _shown(value: pa.Scalar) -> str:
    # Arrow writes times itself: Python's know neither nanoseconds nor the year 10000.
    text = value.cast(pa.string()).as_py() if is_.is_temporal(value.type) else repr(value.as_py())
    return text if len(text) <= 80 else text[:77] + "…"


def _hint(kind: pa.DataType, dtype: DType) -> str:
    if dtype.item == "timestamp":
        return "times are kept in microseconds; round in the source, and write text as ISO 8601"
    if is_.is_floating(kind) and dtype.item in ("int32", "int64"):
        return "declare float64; or, if NaN stands for a missing value, write a null"
    if _is_text(kind):
        return "mend it in the source, leave it empty if it is missing, or declare string"
    return f"declare a wider type than {dtype}, or mend the value in the source"
