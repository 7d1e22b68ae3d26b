"""Random layouts and columns. Values are as in tests/oracles/naive_rows.py: floats are their bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from fastserve.types import SCALARS, Array, DType, arrow_type

INT64 = st.integers(-(2**63), 2**63 - 1)
# Quiet and signalling NaNs with payloads, infinities, zeros of both signs, subnormals.
BITS32 = st.sampled_from([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 1, 0x3F800000])
BITS64 = st.sampled_from([0, 1 << 63, 0x7FF0000000000000, 0x7FF8000000000123, 0x7FF0000000000001, 1])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": INT64,
    "float32": BITS32 | st.integers(0, 2**32 - 1),
    "float64": BITS64 | st.integers(0, 2**64 - 1),
    "timestamp": INT64,
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "bytes": st.binary(max_size=8),
}
_UNSIGNED = {"float32": (np.uint32, np.float32), "float64": (np.uint64, np.float64)}


def dtypes() -> st.SearchStrategy[DType]:
    items = st.sampled_from(sorted(SCALARS))
    return st.one_of(
        items.map(DType), items.map(Array), st.tuples(items, st.integers(1, 3)).map(lambda t: Array(*t))
    )


def values(dtype: DType) -> st.SearchStrategy[Any]:
    one = VALUES[dtype.item]
    if dtype.is_list:
        n = dtype.length
        one = st.lists(one, min_size=n or 0, max_size=n if n is not None else 4)
    return st.none() | one


def array_of(dtype: DType, column: list[Any]) -> pa.Array:
    """The Arrow column of the values, bit for bit."""
    if not dtype.is_list:
        return _scalars(dtype.item, column)
    blank = [None] * (dtype.length or 0)
    lists = [blank if value is None else value for value in column]
    items = _scalars(dtype.item, [item for one in lists for item in one])
    mask = pa.array([value is None for value in column], pa.bool_())
    if dtype.length is not None:
        return pa.FixedSizeListArray.from_arrays(items, dtype.length, mask=mask)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items, mask=mask)


def _scalars(item: str, column: list[Any]) -> pa.Array:
    if item in _UNSIGNED:
        bits, kind = _UNSIGNED[item]
        data = np.array([0 if v is None else v for v in column], bits).view(kind)
        return pa.array(data, mask=np.array([v is None for v in column], bool))
    return pa.array(column, arrow_type(DType(item)))


def values_of(dtype: DType, array: pa.Array) -> list[Any]:
    """The inverse of array_of."""
    if not dtype.is_list:
        return _plain(dtype.item, array)
    return [_plain(dtype.item, one.values) if one.is_valid else None for one in array]


def _plain(item: str, array: pa.Array) -> list[Any]:
    if item in _UNSIGNED:
        array = array.view(pa.uint32() if item == "float32" else pa.uint64())
    elif item == "timestamp":
        array = array.view(pa.int64())
    return array.to_pylist()


@dataclass
class Table:
    """Rows to encode: dtypes[f], columns[f][i], keys[i], stamps[i] = (event_ts, created_ts)."""

    dtypes: list[DType]
    columns: list[list[Any]]
    keys: list[bytes]
    stamps: list[tuple[int, int]]

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"f{i}" for i in range(len(self.dtypes)))

    def arrays(self) -> list[pa.Array]:
        return [array_of(d, c) for d, c in zip(self.dtypes, self.columns, strict=True)]

    def stamp_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        both = np.array(self.stamps, np.int64).reshape(-1, 2)
        return both[:, 0].copy(), both[:, 1]


@st.composite
def tables(draw: st.DrawFn, max_fields: int = 10) -> Table:
    kinds = draw(st.lists(dtypes(), max_size=max_fields))
    n = draw(st.integers(0, 4))
    columns = [draw(st.lists(values(d), min_size=n, max_size=n)) for d in kinds]
    keys = draw(st.lists(st.binary(max_size=9), min_size=n, max_size=n))
    return Table(kinds, columns, keys, draw(st.lists(st.tuples(INT64, INT64), min_size=n, max_size=n)))
