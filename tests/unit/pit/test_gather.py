"""Values by places: every type of a column, as lists have it."""

from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from materializer.pit import chunks
from materializer.pit.chunks import Column, place
from tests.oracles.bits import bits

VALUES = {
    "bool": (pa.bool_(), [True, False, None, True, True]),
    "int8": (pa.int8(), [1, None, -3, 4, 5]),
    "int16": (pa.int16(), [1, 2, 3, 4, 5]),
    "int32": (pa.int32(), [1, 2, 3, 4, 5]),
    "int64": (pa.int64(), [2**62 + 1, None, -(2**63), 4, 5]),
    "float32": (pa.float32(), [1.5, None, float("inf"), -0.0, 5.0]),
    "float64": (pa.float64(), [1.5, 2.5, -0.0, 4.0, 5.0]),
    "date": (pa.date32(), [1, 2, None, 4, 5]),
    "timestamp": (pa.timestamp("us", "UTC"), [1, 2, None, 4, 5]),
    "decimal": (pa.decimal128(30, 2), [Decimal("1.50"), None, Decimal("-2.25"), Decimal(4), Decimal(5)]),
    "uuid": (pa.binary(16), [b"a" * 16, b"b" * 16, None, b"d" * 16, b"e" * 16]),
    "triple": (pa.binary(3), [b"abc", b"def", None, b"\0\0\0", b"xyz"]),
    "string": (pa.string(), ["a", "", None, "é" * 20, "b"]),
    "binary": (pa.binary(), [b"a", b"", None, b"\xff" * 200, b"\0"]),
    "large_string": (pa.large_string(), ["a", "", None, "é" * 20, "b"]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None, "a", "c"]),
    "list<int64>": (pa.list_(pa.int64()), [[1, 2], [], None, [3], [4, 5, 6]]),
    "list<float32>": (pa.list_(pa.float32()), [[1.5], [-0.0, 2.0], [], [3.0], None]),
    "list<string>": (pa.list_(pa.string()), [["a", "b"], [], None, ["c"], ["d"]]),
    "list<bool>": (pa.list_(pa.bool_()), [[True, False], [], None, [True], [False]]),
    "list with a null": (pa.list_(pa.int64()), [[1, None], [], None, [3], [None]]),
    "large_list": (pa.large_list(pa.int64()), [[1, 2], [], None, [3], [4]]),
    "fixed list": (pa.list_(pa.float32(), 2), [[1, 2], [-0.0, 4], None, [5, 6], [7, 8]]),
    "wide fixed list": (pa.list_(pa.int64(), 90), [list(range(90)), None, [7] * 90, [8] * 90, [9] * 90]),
    "fixed list with a null": (pa.list_(pa.float32(), 2), [[1, None], [3, 4], None, [5, 6], [7, 8]]),
    "empty fixed list": (pa.list_(pa.float32(), 0), [[], [], None, [], []]),
    "struct": (pa.struct({"x": pa.int64()}), [{"x": 1}, None, {"x": None}, {"x": 4}, {"x": 5}]),
    "null": (pa.null(), [None] * 5),
}  # fmt: skip


def cut(array, at):
    """The array in chunks, each of them out of the middle of a larger one."""
    bounds = [0, *at, len(array)]
    pieces = [array[a:b] for a, b in itertools.pairwise(bounds)]
    if pa.types.is_null(array.type):
        return pieces
    return [pa.concat_arrays([array, piece, array])[len(array) : len(array) + len(piece)] for piece in pieces]


def places_of(rows, at):
    """Rows of the whole as places; None is none."""
    starts = [0, *at]
    chunk = [max(c for c, start in enumerate(starts) if start <= (row or 0)) for row in rows]
    made = [-1 if row is None else place(c, row - starts[c]) for row, c in zip(rows, chunk, strict=True)]
    return np.array(made, np.int64)


ROWS = [4, None, 0, 0, 3, 2, None, 1, 4, 2, 3]


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("at", [(), (3,), (0, 2, 2, 4)], ids=["one chunk", "two", "some empty"])
def test_values_and_nulls_of_every_type(kernel, name, at):
    kind, values = VALUES[name]
    whole = bits(pa.array(values, kind))
    for rows in (ROWS, [1, 3, 0], [None, None], [], ROWS * 100):
        column = Column(cut(pa.array(values, kind), at), kind, places_of(rows, at))
        (got,) = kernel.gather([column], threads=2)
        got.validate(full=True)
        assert got.type == kind
        assert bits(got) == [None if row is None else whole[row] for row in rows]


def test_columns_without_a_chunk(kernel):
    for kind, _ in VALUES.values():
        (got,) = kernel.gather([Column([], kind, np.array([-1, -1]))])
        assert got.type == kind and got.null_count == 2


@pytest.mark.parametrize(
    "name", ["int64", "bool", "string", "list<int64>", "fixed list", "dictionary", "struct"]
)
def test_an_answer_comes_in_chunks_of_a_fixed_length(kernel, name, monkeypatch):
    for module in ("chunks", "gather_py", "gather_native"):
        if module == "gather_native":
            pytest.importorskip("fastserve._native.gather")
        monkeypatch.setattr(f"materializer.pit.{module}.TAKE_ROWS", 4)
    kind, values = VALUES[name]
    found = kernel.gather(
        [Column([pa.array(values, kind)], kind, np.arange(5)[[4, 3, 2, 1, 0] * 2])] * 2, threads=3
    )
    for got in found:
        assert [len(chunk) for chunk in got.chunks] == [4, 4, 2]
        assert bits(got) == bits(pa.array(values, kind))[::-1] * 2


@pytest.mark.parametrize("wrong", [place(0, 5), place(1, 0), place(2**30, 1), place(0, 2**32 - 1)])
@pytest.mark.parametrize("name", ["int64", "string", "large_string"])
def test_a_place_that_is_not_there_is_refused(kernel, name, wrong):
    kind, values = VALUES[name]
    with pytest.raises(IndexError):
        kernel.gather([Column([pa.array(values, kind)], kind, np.array([0, wrong]))])


def test_text_is_split_where_its_ends_would_not_fit(monkeypatch):
    native = pytest.importorskip("materializer.pit.gather_native")
    monkeypatch.setattr(native, "_MOST_ITEMS", 60)
    values = [f"{i:010}" for i in range(40)]
    column = Column([pa.array(values)], pa.string(), np.arange(40, dtype=np.int64))
    (got,) = native.gather([column])
    assert got.to_pylist() == values and got.num_chunks > 4


SHORT = {
    "int8": (pa.int8(), np.int8), "uint16": (pa.uint16(), np.uint16), "int32": (pa.int32(), np.int32),
    "float32": (pa.float32(), np.float32), "date": (pa.date32(), np.int32), "pair": (pa.binary(2), np.uint16),
    "float64": (pa.float64(), np.float64), "timestamp": (pa.timestamp("us", "UTC"), np.int64),
}  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0], ids=["all found", "some", "none"])
@pytest.mark.parametrize("nulls", [False, True], ids=["", "nulls"])
def test_many_columns_read_in_the_order_of_rows_are_the_same(kernel, monkeypatch, share, nulls):
    if native := not kernel.gather.__module__.endswith("_py"):
        module = pytest.importorskip("materializer.pit.gather_native")
        monkeypatch.setattr(module, "_MANY_ROWS", 1)
        orders, made = module.RowOrder, []
        monkeypatch.setattr(module, "RowOrder", lambda places: made.append(1) or orders(places))
    rng = np.random.default_rng(3)
    n, lengths = 300_000, [5_000, 0, 40_000, 1_024, 1]  # more than a range of labels, and than a span of rows
    chunk = rng.choice(len(lengths), n, p=np.array(lengths) / sum(lengths))
    places = chunk << 32 | rng.integers(0, np.array(lengths)[chunk])
    places[:9], places[rng.random(n) < share] = place(0, 4_999), -1
    columns = [Column(random_chunks(rng, lengths, *of, nulls), of[0], places) for of in SHORT.values()]
    for column, got in zip(columns, kernel.gather(columns, threads=2), strict=True):
        got.validate(full=True)
        flat = pa.chunked_array(column.chunks).combine_chunks()
        starts = np.cumsum([0, *lengths[:-1]])
        at = pa.array(starts[np.maximum(places >> 32, 0)] + (places & 0xFFFFFFFF), mask=places < 0)
        assert [len(part) for part in got.chunks] == [1 << 18, n - (1 << 18)]
        assert got.combine_chunks().equals(flat.take(at))
    if native:
        assert len(made) == (share < 1)  # once for all of them; none where there is nothing to read


def random_chunks(rng, lengths, kind, dtype, nulls):
    """Out of the middle of larger arrays."""
    chunks = []
    for length in lengths:
        values = rng.integers(0, 256, (length + 12) * np.dtype(dtype).itemsize, np.uint8)
        if np.dtype(dtype).kind == "f":
            values = rng.random(length + 12, dtype)
        present = pa.array(rng.random(length + 12) < 0.7).buffers()[1] if nulls else None
        chunks.append(
            pa.Array.from_buffers(kind, length + 12, [present, pa.py_buffer(values)])[5 : length + 5]
        )
    return chunks


def test_a_place_orders_as_the_position_does():
    assert place(0, 2**32 - 1) < place(1) < place(1, 1)
    assert (
        chunks.TAKE_ROWS == 1 << 18
    )  # of what a data set's bytes are made; another number makes other bytes
