"""Answers of whole blocks are, to the byte, those made value by value."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api import feast
from fastserve.api.json_answer import render_columns
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.serving.read_path import FeatureBatch
from fastserve.types import SCALARS, Array, DType, arrow_type
from tests.oracles import naive_answers
from tests.support import NOW_US
from tests.unit.client.test_wire import ITEMS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KINDS = [*map(DType, sorted(SCALARS)), Array("float32", 2), Array("float64"), Array("string")]
STEPS = st.sampled_from([1, 1_000, 1_000_000])


def values_of(kind: DType, *, whole: bool) -> st.SearchStrategy[Any]:
    one = ITEMS[kind.item]
    if whole and kind.item in ("float32", "float64"):
        one = st.floats(width=32, allow_nan=False, allow_infinity=False)
    if kind.is_list:
        one = st.lists(one, min_size=kind.length or 0, max_size=kind.length or 3)
    return one if whole else st.none() | one


Table = tuple[list[DType], list[list[Any]], list[int], list[int]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Kinds, their columns, event times, and the order in which the columns are answered; often nothing is null."""
    n, whole = draw(st.integers(1, 5)), draw(st.booleans())
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=7))
    rows = [draw(st.lists(values_of(kind, whole=whole), min_size=n, max_size=n)) for kind in kinds]
    step = draw(STEPS)
    ages = draw(st.lists(st.integers(0, 10**9), min_size=n, max_size=n))
    order = draw(st.just(list(range(len(kinds)))) | st.permutations(range(len(kinds))))
    return kinds, rows, [(NOW_US - age) // step * step for age in ages], list(order)


def batch_of(table: Table) -> FeatureBatch:
    kinds, columns, stamps, order = table
    n, names = len(stamps), tuple(f"f{i}" for i in range(len(kinds)))
    layout = Layout(1, names, tuple(kinds))
    keys = [b"k%d" % i for i in range(n)]
    arrays = [pa.array(c, arrow_type(kind)) for c, kind in zip(columns, kinds, strict=True)]
    times = np.array(stamps, np.int64)
    decoder = RowDecoder({1: layout}, names, {})
    read = ViewRead("v", 1, ("id",), ("int64",), None, None, names, None, decoder)  # type: ignore[arg-type]
    outputs = tuple(OutputColumn(names[i], str(kinds[i]), 0, i) for i in order)
    plan = ReadPlan("svc", 7, outputs, (read,), {"id": "int64"}, "0123456789abcdef")
    rows = list(RowEncoder(layout).encode(keys, arrays, times, times))
    return FeatureBatch(plan, n, (decoder.decode(keys, rows, now_us=NOW_US, ttl_us=None),), NOW_US)


@settings(deadline=None, max_examples=200)
@given(tables(), st.booleans())
def test_feasts_answer_is_the_naive_one_to_the_byte(table: Table, compat: bool) -> None:
    kinds, columns, stamps, order = table
    keys = {"id": list(range(len(stamps)))}
    asked = feast.FeastRequest("svc", (), keys, len(stamps), False, False)
    missing = "PRESENT" if compat else "NULL_VALUE"
    wanted = naive_answers.feast_answer(
        keys,
        {f"f{i}": (kinds[i], columns[i]) for i in order},
        {f"f{i}": [missing if v is None else "PRESENT" for v in columns[i]] for i in order},
        [EPOCH + timedelta(microseconds=us) for us in stamps],
    )
    assert feast.render(batch_of(table), asked, keys, compat) == wanted


@settings(deadline=None, max_examples=200)
@given(tables())
def test_native_values_are_the_naive_ones_to_the_byte(table: Table) -> None:
    kinds, columns, _, order = table
    wanted = naive_answers.native_values({f"f{i}": (kinds[i], columns[i]) for i in order})
    assert b'"values":' + wanted + b',"statuses":' in render_columns(batch_of(table))


@pytest.mark.parametrize("null", [False, True])
def test_an_answer_too_long_to_keep_says_the_same(null: bool) -> None:
    n = 40_000
    column: list[Any] = [1.5] * n
    column[-1] = None if null else 1.5
    table = [DType("float32")] * 2, [[1.5] * n, column], [NOW_US - 1_000_000] * n, [0, 1]
    answer = json.loads(render_columns(batch_of(table)))
    assert answer["values"] == [[1.5] * n, column]
    assert answer["statuses"] == [[1] * n, [*[1] * (n - 1), 2 if null else 1]]
