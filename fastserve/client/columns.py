"""One column of an answer between its JSON form, Python values, numpy and Arrow; fastserve/types.py has the table."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from fastserve.timeutil import read_timestamp, to_moment, to_us
from fastserve.types import SCALARS, Array, DType, arrow_type, parse_dtype

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NUMERIC: Final = ("bool", "int32", "int64", "float32", "float64")


def _singles(values: list[Any]) -> list[float | None]:
    """The float32 that each JSON number is the shortest form of, exactly; all of them in one piece of memory."""
    singles = f"<{len(values)}f"
    try:
        return list(struct.unpack(singles, struct.pack(singles, *values)))
    except struct.error:  # a null, or a number that goes by name
        given = [0.0 if value is None else float(value) for value in values]
    found: list[float | None] = list(struct.unpack(singles, struct.pack(singles, *given)))
    if None in values:
        found = [None if value is None else single for value, single in zip(values, found, strict=True)]
    return found


def _timestamp(text: str) -> datetime | str:
    """The datetime; the text itself where a datetime cannot name the time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return to_moment(read_timestamp(text))


def _us(value: datetime | str) -> int:
    return read_timestamp(value) if isinstance(value, str) else to_us(value)


# What JSON has no form of its own for. float() reads "NaN", "Infinity" and "-Infinity".
_DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "float64": float,
    "timestamp": _timestamp,
    "bytes": base64.b64decode,
}


_declared: Final = lru_cache(maxsize=256)(parse_dtype)  # an answer has few types, and many columns


def decode(values: list[Any], dtype: str) -> list[Any]:
    """Python values of a column from JSON: int, float, bool, str, bytes, datetime (UTC), lists, None.

    A time that a datetime cannot name, as it knows no years but 1 to 9999, stays text; numpy and Arrow can have it.

    Args:
        values: as in the answer.
        dtype: the declared type; '' when it is not known, and then values stay as they are.

    Raises:
        ValueError, TypeError, OverflowError: a value does not have the JSON form of the type.
    """
    if not dtype:
        return values
    declared = _declared(dtype)
    if declared.item == "float32":
        if declared.is_list:
            return [None if value is None else _singles(value) for value in values]
        return _singles(values)
    item = _DECODERS.get(declared.item)
    if item is None:
        return values
    if declared.is_list:
        return [None if value is None else [item(one) for one in value] for value in values]
    return [None if value is None else item(value) for value in values]


def decode_columns(table: Sequence[list[Any]], dtypes: Sequence[str]) -> list[list[Any]]:
    """`decode` of each column; neighbours of float32 as one block, whatever their number."""
    found: list[list[Any]] = []
    for dtype, run in groupby(zip(dtypes, table, strict=True), itemgetter(0)):
        block = [column for _, column in run]
        lengths = set(map(len, block))
        if dtype == "float32" and len(lengths) == 1 and (n := lengths.pop()):
            flat = _singles(list(chain.from_iterable(block)))
            found += [flat[start : start + n] for start in range(0, len(flat), n)]
        else:
            found += [decode(column, dtype) for column in block]
    return found


def to_masked(values: Sequence[Any], dtype: str) -> np.ma.MaskedArray[Any, Any]:
    """A numpy column of Python values: nulls are masked, and the type does not depend on them.

    bool, ints and floats in their own type, timestamps as datetime64[us], fixed lists of numbers as (n, length),
    anything else as object.
    """
    import numpy as np  # noqa: PLC0415  (needed by those who ask for it)

    nulls = np.fromiter((value is None for value in values), np.bool_, len(values))
    declared = parse_dtype(dtype) if dtype else DType("string")
    if declared.item == "timestamp" and not declared.is_list:
        us = np.array([0 if value is None else _us(value) for value in values], np.int64)
        return np.ma.MaskedArray(us.view("datetime64[us]"), nulls)
    if declared.item in NUMERIC and not declared.is_list:
        data = np.array([0 if value is None else value for value in values], declared.scalar.numpy)
        return np.ma.MaskedArray(data, nulls)
    if declared.item in NUMERIC and declared.length is not None:
        none = [0] * declared.length
        data = np.array([none if value is None else value for value in values], declared.scalar.numpy)
        data = data.reshape(len(values), declared.length)
        return np.ma.MaskedArray(data, np.repeat(nulls[:, None], declared.length, axis=1))
    objects = np.empty(len(values), object)
    for i, value in enumerate(values):
        objects[i] = value
    return np.ma.MaskedArray(objects, nulls)


def arrow_to_masked(column: pa.Array, dtype: str) -> np.ma.MaskedArray[Any, Any]:
    """The same from an Arrow column; plain numbers without a Python object each."""
    import numpy as np  # noqa: PLC0415

    declared = parse_dtype(dtype)
    if declared.item not in NUMERIC or declared.is_list:
        return to_masked(arrow_to_python(column, dtype), dtype)
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    filled = column.fill_null(False if declared.item == "bool" else 0) if column.null_count else column
    return np.ma.MaskedArray(filled.to_numpy(zero_copy_only=False), nulls)


def to_arrow(values: Sequence[Any], dtype: str) -> pa.Array:
    """An Arrow column of Python values in the declared type; inferred when it is not known."""
    import pyarrow as pa  # noqa: PLC0415

    declared = parse_dtype(dtype) if dtype else None
    if declared is not None and declared.item == "timestamp":
        values = [value if value is None else _each(_us, value) for value in values]
    return pa.array(values, arrow_type(declared) if declared is not None else None)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def arrow_to_python(column: pa.Array | pa.ChunkedArray, dtype: str) -> list[Any]:
    """Python values of an Arrow column, the same as `decode` makes of JSON."""
    import pyarrow as pa  # noqa: PLC0415

    declared = parse_dtype(dtype)
    if declared.item != "timestamp":
        found: list[Any] = column.to_pylist()
        return found
    if declared.is_list:  # pyarrow's datetimes carry another UTC object, and need tz data
        rows = [row.values if row.is_valid else None for row in column]
        return [
            row if row is None else [to_moment(us) for us in row.cast(pa.int64()).to_pylist()] for row in rows
        ]
    return [None if us is None else to_moment(us) for us in column.cast(pa.int64()).to_pylist()]


def dtype_of(kind: pa.DataType) -> str:
    """The declared type that an Arrow type stands for.

    Raises:
        ValueError: it stands for none.
    """
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_fixed_size_list(kind):
        return str(Array(dtype_of(kind.value_type), kind.list_size))
    if pa.types.is_list(kind):
        return str(Array(dtype_of(kind.value_type)))
    for name in SCALARS:
        if arrow_type(DType(name)) == kind:
            return name
    raise ValueError(f"no type of fastserve is {kind} in Arrow")
