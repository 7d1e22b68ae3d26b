"""Keys of every form, through the whole of `find_rows`: rows match exactly where keys are equal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.chunks import Labels, RowChunk
from materializer.pit.factorize import canonical_key
from tests.oracles.naive_pit import naive_pit
from tests.unit.pit.kernels import indices

ARROW = {"int64": pa.int64(), "string": pa.string(), "bytes": pa.binary(), "bool": pa.bool_()}


def found(kernel, labels, rows, types, *, threads=2):
    """Which row each label gets, all rows being in force: columns of labels' keys, chunks of columns of rows'."""
    n = len(labels[0])
    canonical = [canonical_key(column, dtype) for column, dtype in zip(labels, types, strict=True)]
    chunks, starts, at = [], [], 0
    for columns in rows:
        m = len(columns[0])
        stamps = np.arange(at, at + m)
        chunks.append([RowChunk(columns, stamps, stamps)])
        starts.append(at)
        at += m
    asked = Labels(canonical, np.full(n, 10**6), types)
    return indices(kernel.find_rows(asked, chunks, threads=threads), [*starts, at]).tolist()


def last_equal(labels, rows):
    """The same, by the rule."""
    keyed = [(key, i, i) for i, key in enumerate(zip(*rows, strict=True))]
    return naive_pit([(key, 10**6) for key in zip(*labels, strict=True)], keyed)


WORDS = st.text("ab|é", max_size=3) | st.sampled_from(
    ["x" * n for n in (7, 8, 9, 15, 16, 17, 40)] + ["x" * 15 + "y"]
)
VALUES = {
    "string": WORDS,
    "bytes": st.binary(max_size=2) | st.sampled_from([b"\0" * n for n in range(20)]),
    "bool": st.booleans(),
    "int64": st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63), 2**40, 2**41, 1 << 62]),
}  # fmt: skip


@st.composite
def tables(draw):
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    rows = [st.lists(st.tuples(*(st.none() | VALUES[t] for t in types)), min_size=1, max_size=15)] * 2
    return types, *([list(column) for column in zip(*draw(side), strict=True)] for side in rows)


@settings(max_examples=100, deadline=None)
@given(table=tables(), data=st.data())
def test_rows_match_where_keys_are_equal_in_all_parts(kernel, table, data):
    types, labels, rows = table
    left = [pa.array(column, ARROW[t]) for column, t in zip(labels, types, strict=True)]
    right = [pa.array(column, ARROW[t]) for column, t in zip(rows, types, strict=True)]
    cut = data.draw(st.integers(0, len(rows[0])))
    if data.draw(st.booleans()):
        right = [column.dictionary_encode() for column in right]
    chunks = [[column[:cut] for column in right], [column[cut:] for column in right]]
    assert found(kernel, left, chunks, types) == last_equal(labels, rows)


@pytest.mark.parametrize("spread", [1, 5, 2**40 + 1], ids=["dense", "sparse", "far apart"])
@pytest.mark.parametrize("first", [0, -(2**62)])
def test_many_integers(kernel, spread, first):
    rng = np.random.default_rng(5)
    pool = np.unique(first + rng.integers(0, 2**21, 6_000) * spread)
    left, right = rng.choice(pool, 9_000), rng.choice(np.append(pool[::2], [7, 2**63 - 1]), 9_000)
    last = {int(key): i for i, key in enumerate(right)}
    got = found(kernel, [pa.array(left)], [[pa.array(right)[3:]]], ["int64"])
    assert got == [last[int(key)] - 3 if last.get(int(key), 0) >= 3 else -1 for key in left]


def typed(words, dtype):
    if dtype == "bytes":
        return pa.array([word.encode() for word in words], pa.large_binary())
    return pa.array(words, ARROW[dtype])


def test_many_words_and_pairs(kernel):
    rng = np.random.default_rng(6)
    words = ["", *(f"user-{i}" for i in range(4_000)), *("z" * i for i in range(1, 60))]
    left, right = ([rng.choice(words, 7_000).tolist(), rng.integers(0, 3, 7_000).tolist()] for _ in range(2))
    for types in (["string"], ["string", "int64"], ["bytes", "int64"]):
        columns = [[typed(c, t) for c, t in zip(side, types, strict=False)] for side in (left, right)]
        last = {key: i for i, key in enumerate(zip(*(c.to_pylist() for c in columns[1]), strict=True))}
        got = found(
            kernel, columns[0], [[c[:5_000] for c in columns[1]], [c[5_000:] for c in columns[1]]], types
        )
        assert got == [last.get(key, -1) for key in zip(*(c.to_pylist() for c in columns[0]), strict=True)]


@pytest.mark.parametrize(
    "form",
    [
        pa.array(["b", "a", None, "a"], pa.large_string()),
        pa.array(["b", "a", None, "a"], pa.string_view()),
        pa.array(["?", "b", "a", None, "a", "?"])[1:5],
        pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 0], pa.int8()), ["a", "b"]),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 2, 0], pa.uint32()), ["a", "b", None]),
    ],
    ids=["large_string", "view", "slice", "dictionary", "dictionary with a null"],
)
def test_every_form_of_text(kernel, form):
    assert found(kernel, [pa.array(["a", "b", "c", None])], [[form]], ["string"]) == [3, 0, -1, -1]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint32(), pa.uint64()])
def test_every_integer_width(kernel, kind):
    assert found(kernel, [pa.array([3, 1, 9, None])], [[pa.array([1, None, 3], kind)]], ["int64"]) == [
        2,
        0,
        -1,
        -1,
    ]


def test_a_row_of_another_type_is_refused(kernel):
    with pytest.raises(TypeError, match="the join key is int64"):
        found(kernel, [pa.array([1])], [[pa.array(["1"])]], ["int64"])
