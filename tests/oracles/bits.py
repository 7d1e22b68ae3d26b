"""Values that compare equal only where their bytes are: -0.0 is not 0.0, and every NaN has its payload."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_AS_INT = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}


def bits(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Per value: None for null, an integer with the value's bits for a float, else the value itself."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in bits(chunk)]
    kind = column.type
    if pa.types.is_dictionary(kind):
        return bits(column.dictionary_decode())
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return [tuple(bits(v.values)) if v.is_valid else None for v in column]
    if kind in _AS_INT:
        return column.view(_AS_INT[kind]).to_pylist()
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_pylist()
    return column.to_pylist()
