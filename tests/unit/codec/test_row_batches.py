"""Rows encoded into a batch are the rows that `encode` gives, both twins."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.batch import batch_py
from fastserve.batch.batch_py import FOUND
from fastserve.codec import rows_py
from fastserve.codec.layout import Layout
from fastserve.errors import InvalidDataError
from fastserve.types import Array, Bool, Float32, Float64, Int32, Int64, String, Timestamp, arrow_type

LAYOUT = Layout(3, ("a", "b", "c", "d", "e"), (Int64, String, Array(Float32), Bool, Float32))
N = 700  # more than a block of a batch's memory holds


@pytest.fixture(params=["py", "native"], scope="module")
def impl(request: pytest.FixtureRequest) -> Any:
    """(RowEncoder, ReadBatch)"""
    if request.param == "py":
        return rows_py.RowEncoder, batch_py.ReadBatch
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    native = importlib.import_module("fastserve._native.row_encoder")
    return native.RowEncoder, importlib.import_module("fastserve._native.batch").ReadBatch


def columns(nulls: bool) -> list[pa.Array]:
    def some(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([None if nulls and i % 3 == 1 else v for i, v in enumerate(values)], kind)

    return [
        some(list(range(N)), pa.int64()),
        some(["x" * (i % 90) for i in range(N)], pa.string()),
        some([[i / 7] * (i % 4) for i in range(N)], pa.list_(pa.float32())),
        some([i % 2 == 0 for i in range(N)], pa.bool_()),
        some([i / 3 for i in range(N)], pa.float32()),
    ]


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(("start", "stop"), [(0, N), (5, 6), (13, 400), (9, 9)])
def test_the_same_bytes(impl, nulls, start, stop):
    encoder, keys = impl[0](LAYOUT), [b"7:%d" % i for i in range(start, stop)]
    parts = [column.slice(start, stop - start) for column in columns(nulls)]
    events, created = np.arange(start, stop), np.arange(start, stop) * -2
    batch = impl[1](keys)
    encoder.encode_into(batch, parts, events, created)
    assert batch.rows() == rows_py.RowEncoder(LAYOUT).encode(keys, parts, events, created)
    assert batch.states() == [FOUND] * len(keys) and batch.missing == 0


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(("start", "stop"), [(0, N), (5, 6), (13, 141), (64, 128)])
def test_rows_of_fixed_size(impl, nulls, start, stop):
    """They are written column by column, a block of rows at a time."""
    kinds = (Float32, Int64, Bool, Array(Float32, 3), Float32, Array(Bool, 2), Float64, Timestamp, Int32)
    layout = Layout(3, tuple("abcdefghi"), kinds)
    values = [
        [i / 3 for i in range(N)],
        list(range(N)),
        [i % 2 == 0 for i in range(N)],
        [[i, i / 3, -i] for i in range(N)],
        [-i for i in range(N)],
        [[i % 3 == 0, i % 2 == 0] for i in range(N)],
        [i / 7 for i in range(N)],
        list(range(N)),
        list(range(N)),
    ]
    columns = []
    for f, (kind, column) in enumerate(zip(kinds, values, strict=True)):
        holes = nulls and f % 3 != 1
        made = [None if holes and (i + f) % 3 == 1 else v for i, v in enumerate(column)]
        columns.append(pa.array(made, arrow_type(kind)).slice(start, stop - start))
    keys, stamps = [b"7:%d" % i for i in range(start, stop)], np.arange(start, stop)
    batch = impl[1](keys)
    impl[0](layout).encode_into(batch, columns, stamps, -stamps)
    assert batch.rows() == rows_py.RowEncoder(layout).encode(keys, columns, stamps, -stamps)


def test_the_encoder_forgets_the_nulls_of_the_batch_before(impl):
    encoder, keys, stamps = impl[0](LAYOUT), [b"7:%d" % i for i in range(N)], np.arange(N)
    for nulls in (True, False, True):
        batch = impl[1](keys)
        encoder.encode_into(batch, columns(nulls), stamps, stamps)
        assert batch.rows() == encoder.encode(keys, columns(nulls), stamps, stamps)


def test_what_does_not_fit_is_refused(impl):
    encoder, stamps = impl[0](LAYOUT), np.arange(N)
    good = columns(False)
    with pytest.raises(InvalidDataError):
        encoder.encode_into(impl[1]([b"7:1"]), good, stamps, stamps)
    with pytest.raises(InvalidDataError):
        encoder.encode_into(impl[1]([b"7:%d" % i for i in range(N)]), good[::-1], stamps, stamps)
    null_item = [*good[:2], pa.array([[None]] * N, pa.list_(pa.float32())), *good[3:]]
    with pytest.raises(InvalidDataError, match="null"):
        encoder.encode_into(impl[1]([b"7:%d" % i for i in range(N)]), null_item, stamps, stamps)
