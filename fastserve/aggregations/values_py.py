"""Values of events as the states see them: canonical, in a total order, as bytes.

    int32, int64, timestamp   int            bool          bool
    float32, float64          float          string, bytes bytes

Every NaN is the one quiet NaN, and float32 is widened, which is exact.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import pyarrow as pa

from fastserve.types import SCALARS

Value = int | float | bool | bytes

_CODES: Final = {"int32": "<i", "int64": "<q", "timestamp": "<q", "float32": "<f", "float64": "<d"}


def canonical_values(column: pa.Array) -> list[Value | None]:
    """The values of a column of one of fastserve.types' scalar types, None for null."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return column.view(pa.binary()).to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind):
        return column.view(pa.int64()).to_pylist()  # type: ignore[no-any-return]
    values = column.to_pylist()
    if pa.types.is_floating(kind):
        return [math.nan if value is not None and math.isnan(value) else value for value in values]
    return values  # type: ignore[no-any-return]


def order(value: Value) -> Any:
    """What values of one type are compared by: -0.0 before 0.0, NaN after infinity, bytes as bytes."""
    if not isinstance(value, float):
        return value
    bits = int(struct.unpack("<q", struct.pack("<d", value))[0])
    return bits if bits >= 0 else -(bits & (1 << 63) - 1) - 1


def value_bytes(dtype: str, value: Value) -> bytes:
    """A value as in a row (docs/row-format.md): fixed width little-endian, or the bytes themselves."""
    if isinstance(value, bytes):
        return value
    if dtype == "bool":
        return bytes([value])  # type: ignore[list-item]
    return struct.pack(_CODES[dtype], value)


def value_of(dtype: str, data: bytes) -> Value:
    """The value of such bytes, of the right length."""
    if not SCALARS[dtype].width:
        return data
    if dtype == "bool":
        return data != b"\0"
    value: Value = struct.unpack(_CODES[dtype], data)[0]
    return math.nan if value != value else value
