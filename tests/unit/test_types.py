"""The one table of types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, Timestamp
from fastserve.types import KEY_TYPES, MAX_LIST_LENGTH, SCALARS, DType, arrow_type, parse_dtype

ITEMS = st.sampled_from([Bool, Int32, Int64, Float32, Float64, Timestamp, String, Bytes])
DTYPES = ITEMS | st.builds(Array, ITEMS, st.none() | st.integers(1, MAX_LIST_LENGTH))


@given(DTYPES)
def test_names_round_trip(dtype: DType) -> None:
    assert parse_dtype(str(dtype)) == parse_dtype(dtype) == dtype


@given(DTYPES)
def test_widths_follow_arrow(dtype: DType) -> None:
    """A fixed-width value takes as many bytes in a row as in Arrow; bool takes one."""
    item = arrow_type(DType(dtype.item))
    bytes_ = 1 if dtype.item == "bool" else (item.bit_width // 8 if pa.types.is_primitive(item) else 0)
    assert dtype.scalar.width == bytes_
    length = (dtype.length or 0) if dtype.is_list else 1
    assert dtype.width == bytes_ * length


@pytest.mark.parametrize("name", [n for n, s in SCALARS.items() if s.numpy])
def test_numpy_follows_arrow(name: str) -> None:
    scalar = SCALARS[name]
    assert np.dtype(scalar.numpy).itemsize == scalar.width
    if name != "timestamp":
        assert arrow_type(DType(name)).to_pandas_dtype() == np.dtype(scalar.numpy).type


def test_codes_are_distinct() -> None:
    assert sorted(s.code for s in SCALARS.values()) == list(range(1, len(SCALARS) + 1))
    assert set(KEY_TYPES) <= set(SCALARS)


@pytest.mark.parametrize(
    ("dtype", "arrow"),
    [
        ("int32", pa.int32()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("bytes", pa.binary()),
        ("list<string>", pa.list_(pa.string())),
        ("list<float32>[128]", pa.list_(pa.float32(), 128)),
    ],
)
def test_arrow(dtype: str, arrow: pa.DataType) -> None:
    assert arrow_type(parse_dtype(dtype)) == arrow


@pytest.mark.parametrize(
    "text",
    [
        "",
        "int",
        "Int64",
        "list",
        "list<>",
        "list<int>",
        "list<list<int64>>",
        "list<int64>[]",
        "list<int64>[-1]",
        "int64 ",
    ],
)
def test_unknown_types(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown type .*; a type is one of bool, int32"):
        parse_dtype(text)


@pytest.mark.parametrize("length", [0, MAX_LIST_LENGTH + 1])
def test_list_lengths(length: int) -> None:
    with pytest.raises(ValueError, match=r"the length of a fixed list is 1..65,536"):
        parse_dtype(f"list<int64>[{length}]")


def test_no_lists_of_lists() -> None:
    with pytest.raises(ValueError, match="a list of lists is not a type"):
        Array(Array(Int64))
