"""Matrices of numbers, both twins, against the values one by one."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.codec.layout import Layout
from fastserve.codec.matrix_py import matrix_shape
from fastserve.codec.rows_py import RowDecoder, RowEncoder
from fastserve.errors import CodecError, RequestError
from fastserve.types import Array, DType, arrow_type, parse_dtype

TYPES = ["bool", "int32", "float32", "float64", "float32[3]"]
NOW = 1_000


@pytest.fixture(params=["py", "native"], scope="module")
def twin(request: pytest.FixtureRequest) -> tuple[ModuleType, ModuleType]:
    """The matrix module, and the batch it takes."""
    if request.param == "py":
        names = "fastserve.codec.matrix_py", "fastserve.batch.batch_py"
    elif os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    else:
        names = "fastserve._native.matrix", "fastserve._native.batch"
    return importlib.import_module(names[0]), importlib.import_module(names[1])


def dtype_of(text: str) -> DType:
    return Array("float32", 3) if text == "float32[3]" else parse_dtype(text)


def values(text: str) -> st.SearchStrategy[Any]:
    single = st.floats(width=32)
    return {
        "bool": st.booleans(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "float32": single,
        "float64": st.floats(),
        "float32[3]": st.lists(single, min_size=3, max_size=3),
    }[text]


@st.composite
def reads(draw: st.DrawFn, n: int) -> dict[str, Any]:
    """One view's rows: some written before its last field was added, some missing, expired or unknown."""
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    names = tuple(f"f{i}" for i in range(len(types)))
    rows = [
        {
            "state": draw(st.sampled_from(["row", "row", "row", "older", "none", "unknown"])),
            "event": draw(st.sampled_from([NOW, NOW - 99, NOW - 100, NOW + 1])),
            "values": [draw(st.none() | values(text)) for text in types],
        }
        for _ in range(n)
    ]
    defaults = {
        name: draw(values(text)) for name, text in zip(names, types, strict=True) if draw(st.booleans())
    }
    return {"types": types, "names": names, "rows": rows, "defaults": defaults}


def stored(layout: Layout, key: bytes, row: dict[str, Any]) -> bytes:
    arrays = [
        pa.array([value], arrow_type(dtype))
        for value, dtype in zip(row["values"], layout.dtypes, strict=False)
    ]
    stamp = np.array([row["event"]], np.int64)
    return RowEncoder(layout).encode([key], arrays, stamp, stamp)[0]


@settings(deadline=None)
@given(data=st.data(), n=st.integers(0, 9), n_reads=st.integers(1, 3))
def test_every_value_bit_and_status(twin, data, n, n_reads):
    matrix, batches = twin
    views = [data.draw(reads(n)) for _ in range(n_reads)]
    decoders, keys, rows, known = [], [], [], []
    for r, view in enumerate(views):
        dtypes = tuple(dtype_of(text) for text in view["types"])
        layouts = {1: Layout(1, view["names"][:-1], dtypes[:-1]), 2: Layout(2, view["names"], dtypes)}
        decoders.append(RowDecoder(layouts, view["names"], view["defaults"]))
        for i, row in enumerate(view["rows"]):
            keys.append(b"%d:%d" % (r, i))
            known.append(row["state"] != "unknown")
            layout = layouts[1 if row["state"] == "older" else 2]
            rows.append(stored(layout, keys[-1], row) if row["state"] in ("row", "older") else None)
    every = [(r, f) for r, view in enumerate(views) for f in range(len(view["names"]))]
    columns = data.draw(st.permutations(every))[: data.draw(st.integers(1, len(every)))]
    shape = matrix_shape(decoders, columns, [f"c{i}" for i in range(len(columns))])
    batch = partly_filled(batches, keys, rows, known)
    body = matrix.MatrixDecoder(decoders, shape).decode(batch, n, NOW, [100] * n_reads)
    wide = len(shape.names)
    got = np.frombuffer(body, shape.dtype, n * wide).reshape(n, wide)
    valid = np.frombuffer(body, np.uint8, n * shape.mask_bytes, got.nbytes).reshape(n, shape.mask_bytes)
    statuses = np.frombuffer(body, np.uint8, n * n_reads, got.nbytes + valid.nbytes).reshape(n_reads, n)
    assert len(body) == got.nbytes + valid.nbytes + statuses.nbytes
    bits = np.unpackbits(valid, axis=1, count=wide, bitorder="little")
    reference = [d.decode_batch(partly_filled_py(keys, rows, known), r * n, (r + 1) * n, now_us=NOW, ttl_us=100)
                 for r, d in enumerate(decoders)]  # fmt: skip
    for (r, f), (_, _, start, count) in zip(columns, shape.fields, strict=True):
        column = reference[r].columns[f]
        for i, value in enumerate(column.to_pylist()):
            assert bits[i, start : start + count].tolist() == [value is not None] * count
            items = [0] * count if value is None else np.atleast_1d(np.asarray(value, shape.dtype))
            assert got[i, start : start + count].tobytes() == np.asarray(items, shape.dtype).tobytes()
    assert statuses.tolist() == [rows.row_status.tolist() for rows in reference]


def partly_filled(batches: ModuleType, keys: list[bytes], rows: list[Any], known: list[bool]) -> Any:
    """A batch in which what is not known stays UNKNOWN: the cache fills in some, the store none."""
    cache = importlib.import_module(
        "fastserve.cache.l1_py" if batches.__name__.endswith("_py") else "fastserve._native.l1"
    ).RowCache(1 << 20)
    seed = batches.ReadBatch([key for key, there in zip(keys, known, strict=True) if there])
    seed.fill([row for row, there in zip(rows, known, strict=True) if there], 5)
    cache.put_many(seed, 0, len(seed))
    batch = batches.ReadBatch(keys)
    cache.get_many(batch, 0, len(keys), 0)
    batch.own()
    return batch


def partly_filled_py(keys: list[bytes], rows: list[Any], known: list[bool]) -> Any:
    from fastserve.batch import batch_py

    return partly_filled(batch_py, keys, rows, known)


def test_the_narrowest_type_that_is_exact() -> None:
    def dtype(*types: str) -> str:
        names = [f"f{i}" for i in range(len(types))]
        layout = Layout(1, tuple(names), tuple(dtype_of(t) for t in types))
        decoder = RowDecoder({1: layout}, names, {})
        return matrix_shape([decoder], [(0, i) for i in range(len(types))], names).dtype

    assert dtype("float32", "bool", "float32[3]") == "<f4"
    assert dtype("float32", "int32") == "<f8"
    assert dtype("float64") == "<f8"


def test_embeddings_are_columns() -> None:
    decoder = RowDecoder(
        {1: Layout(1, ("e", "x"), (Array("float32", 3), parse_dtype("float32")))}, ["e", "x"], {}
    )
    shape = matrix_shape([decoder], [(0, 1), (0, 0)], ["x", "e"])
    assert shape.names == ("x", "e[0]", "e[1]", "e[2]")


@pytest.mark.parametrize("kind", ["int64", "timestamp", "string", "bytes"])
def test_what_a_float_cannot_hold_is_refused(kind: str) -> None:
    decoder = RowDecoder({1: Layout(1, ("a",), (parse_dtype(kind),))}, ["a"], {})
    with pytest.raises(RequestError, match=f"'a' is {kind}"):
        matrix_shape([decoder], [(0, 0)], ["a"])


def test_corrupt_rows_are_errors(twin):
    matrix, batches = twin
    layout = Layout(1, ("a", "b"), (parse_dtype("float32"), parse_dtype("float32")))
    decoder = RowDecoder({1: layout}, ["a", "b"], {})
    shape = matrix_shape([decoder], [(0, 0), (0, 1)], ["a", "b"])
    good = stored(layout, b"0:1", {"values": [1.0, 2.0], "event": 5})
    unknown = stored(Layout(9, layout.names, layout.dtypes), b"0:1", {"values": [1.0, 2.0], "event": 5})
    for wrong in (good[:20], b"", good[:-1], b"\x07" + good[1:], good[:-1] + b"\x00", unknown):
        batch = batches.ReadBatch([b"0:1"])
        batch.fill([wrong], 0)
        with pytest.raises(CodecError, match="0:1"):
            matrix.MatrixDecoder([decoder], shape).decode(batch, 1, NOW, [None])
