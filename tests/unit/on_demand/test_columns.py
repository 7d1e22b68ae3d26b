"""Columns into functions and out of them: nothing changes on the way, and what does not fit is named."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.errors import InvalidDataError
from fastserve.on_demand.columns import of_arrow, of_decoded, to_arrow
from fastserve.types import arrow_type, parse_dtype
from tests.oracles.bits import bits

NUMBERS = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "timestamp": st.integers(0, 10**15),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}
TYPES = [*NUMBERS, "list<float32>[3]", "list<bool>[2]", "list<timestamp>[2]", "list<int64>", "list<string>"]


def where(row: int) -> str:
    return f"row {row}"


@st.composite
def arrays(draw: st.DrawFn, kind: str) -> pa.Array:
    dtype = parse_dtype(kind)
    one = NUMBERS[dtype.item]
    if dtype.is_list:
        least, most = (0, 3) if dtype.length is None else (dtype.length, dtype.length)
        one = st.lists(one, min_size=least, max_size=most)
    values = draw(st.lists(st.none() | one, max_size=12))
    made = pa.array(values, arrow_type(dtype))
    start = draw(st.integers(0, len(made)))
    return made.slice(start, draw(st.integers(0, len(made) - start)))


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=15)
@given(data=st.data())
def test_what_goes_in_comes_out(kind, data):
    array, dtype = data.draw(arrays(kind)), parse_dtype(kind)
    column = of_arrow(array, dtype)
    valid = np.ones(len(array), bool) if column.valid is None else column.valid
    assert valid.tolist() == array.is_valid().to_pylist()
    values = column.values
    if isinstance(values, np.ndarray):
        assert not values.flags.writeable and len(values) == len(array)
        mask = ~valid if values.ndim == 1 else np.repeat(~valid, values.shape[1]).reshape(values.shape)
        values = np.ma.MaskedArray(values, mask=mask)
    made = to_arrow(values, dtype, len(array), where)
    assert made.type == arrow_type(dtype) and _quiet(made) == _quiet(array)


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=15)
@given(data=st.data())
def test_rows_of_the_store_are_told_as_training_rows_are(kind, data):
    array, dtype = data.draw(arrays(kind)), parse_dtype(kind)
    n, layout = len(array), Layout(1, ("a",), (dtype,))
    keys, stamps = [b"k"] * n, np.zeros(n, np.int64)
    rows = RowEncoder(layout).encode(keys, [array], stamps, stamps)
    decoded = RowDecoder({1: layout}, ["a"], {}).decode(keys, rows, now_us=1, ttl_us=None)
    stored, trained = of_decoded(decoded.columns[0]), of_arrow(array, dtype)
    assert (stored.valid is None) == (trained.valid is None)
    if isinstance(stored.values, np.ndarray):
        assert stored.values.dtype == trained.values.dtype and not stored.values.flags.writeable
        assert stored.values.tobytes() == trained.values.tobytes()
    else:
        assert stored.values.equals(trained.values)


def _quiet(array: pa.Array) -> object:
    """Values by their bits, all NaNs alike."""
    return [
        "NaN" if isinstance(v, float) and math.isnan(v) else v
        if not isinstance(v, list) else ["NaN" if isinstance(i, float) and math.isnan(i) else i for i in v]
        for v in array.to_pylist()
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_every_nan_comes_out_as_the_quiet_one(kind):
    code, quiet = ("<u4", 0x7FC00000) if kind == "float32" else ("<u8", 0x7FF8000000000000)
    odd = np.array([quiet | 1 << 31 if kind == "float32" else quiet | 1 << 63, quiet + 5], code)
    values = odd.view(kind)
    for given_ in (values, pa.array(values), np.ma.MaskedArray(values, mask=False)):
        made = to_arrow(given_, parse_dtype(kind), 2, where)
        assert made.to_numpy().view(code).tolist() == [quiet, quiet]
    lists = to_arrow(values.reshape(1, 2), parse_dtype(f"list<{kind}>[2]"), 1, where)
    assert lists.values.to_numpy().view(code).tolist() == [quiet, quiet]
    assert bits(pa.array(values)) != bits(pa.array(np.array([quiet, quiet], code).view(kind)))


@pytest.mark.parametrize(
    ("value", "kind", "said", "row"),
    [
        (1.5, "float64", "a float is no column", "row -1"),
        ([1.0, 2.0], "float64", "a list is no column", "row -1"),
        (np.zeros(3), "float64", "3 values for 2 rows", "row -1"),
        (np.array([1.0, 2.5]), "int64", "2.5 does not fit int64 exactly", "row 1"),
        (np.array([1, 2**40]), "int32", "does not fit int32", "row 1"),
        (np.array([1, 2]), "timestamp", "the column is int64, the declared type is timestamp", "row 0"),
        (np.array([True, False]), "float64", "the column is bool", "row 0"),
        (np.zeros((2, 3)), "list<float64>[2]", "the list has 3 items", "row 0"),
        (np.array([1, "a"], object), "string", "an array of object", "row -1"),
        (np.array([1e300, 0]), "float32", "does not fit float32", "row 0"),
    ],
)
def test_what_does_not_fit_is_named(value, kind, said, row):
    with pytest.raises(InvalidDataError) as caught:
        to_arrow(value, parse_dtype(kind), 2, where)
    assert said in caught.value.message and caught.value.where == row


def test_what_fits_though_it_is_of_another_type():
    assert to_arrow(np.array([1, 2]), parse_dtype("float64"), 2, where).to_pylist() == [1.0, 2.0]
    assert to_arrow(np.array([0.1]), parse_dtype("float32"), 1, where).to_pylist() == [np.float32(0.1)]
    assert to_arrow(np.array(["a", "bc"]), parse_dtype("string"), 2, where).to_pylist() == ["a", "bc"]
    times = to_arrow(np.array(["NaT", "2024-01-01"], "datetime64[s]"), parse_dtype("timestamp"), 2, where)
    assert times.cast(pa.int64()).to_pylist() == [None, 1_704_067_200_000_000]
    chunks = pa.chunked_array([[1], [None]], pa.int64())
    assert to_arrow(chunks, parse_dtype("int64"), 2, where).to_pylist() == [1, None]
