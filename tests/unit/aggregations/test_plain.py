"""Programs of counts, sums, minima and maxima alone, which the native builder makes many keys at a time."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.build_py import TileBuilder
from fastserve.aggregations.program import Program
from fastserve.batch.batch_py import ReadBatch
from tests.unit.aggregations.programs import EXTREMES, NUMBERS, ORDERED, Asked, Case, program_of

PLAIN = {
    dtype: [f for f in ("events", "count", "sum", "mean", "min", "max") if f in ("events", "count") or (
        dtype in NUMBERS if f in ("sum", "mean") else dtype in ORDERED)]
    for dtype in (*ORDERED, "bool", "string")
}  # fmt: skip
TWIN = SimpleNamespace(TileBuilder=TileBuilder, ReadBatch=ReadBatch)


@pytest.fixture(scope="module")
def native() -> SimpleNamespace:
    return SimpleNamespace(
        TileBuilder=pytest.importorskip("fastserve._native.tile_build").TileBuilder,
        ReadBatch=pytest.importorskip("fastserve._native.batch").ReadBatch,
    )


def rows_of(twin: Any, program: Program, m: int, arrays: Any, end: int) -> list[bytes | None]:
    out = twin.ReadBatch([b"7:%d" % i for i in range(m)])
    twin.TileBuilder(program, 3).build_into(out, *arrays, end_us=end, created_us=5)
    rows: list[bytes | None] = out.rows()
    return rows


def check(native: Any, program: Program, m: int, arrays: Any, end: int) -> None:
    assert rows_of(native, program, m, arrays, end) == rows_of(TWIN, program, m, arrays, end)


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    """Of one column: harmless ones, so that most keys need no other way, or all there are."""
    alike = {
        "float64": st.integers(-9999, 9999).map(lambda cents: cents / 100),
        "float32": st.floats(-99, 99, width=32),
        "bool": st.booleans(),
        "string": st.text(max_size=3),
    }.get(dtype, st.integers(-999, 999))
    return st.one_of(st.just(alike), st.just(st.one_of(alike, st.none())), st.just(
        st.one_of(alike, st.sampled_from(EXTREMES[dtype]), st.none()))).flatmap(lambda each: each)  # fmt: skip


@st.composite
def plain_cases(draw: st.DrawFn) -> Case:
    dtypes = tuple(draw(st.lists(st.sampled_from(list(PLAIN)), min_size=1, max_size=3)))
    asked = []
    for _ in range(draw(st.integers(1, 8))):
        column = draw(st.integers(0, len(dtypes) - 1))
        hop = draw(st.sampled_from([1, 10, 15, 60]))
        asked.append(
            Asked(
                draw(st.sampled_from(PLAIN[dtypes[column]])),
                column,
                draw(st.sampled_from([hop, 25, 999])),
                hop,
            )
        )
    m = draw(st.integers(1, 5))
    event = st.tuples(st.integers(0, m - 1), st.integers(-150, 150), st.tuples(*map(values_of, dtypes)))
    return Case(dtypes, tuple(asked), m, tuple(draw(st.lists(event, max_size=40))))


@given(case=plain_cases(), end=st.integers(-150, 160))
@settings(max_examples=150, deadline=None)
def test_rows_are_the_twins(native: SimpleNamespace, case: Case, end: int) -> None:
    check(native, case.program, case.m, case.arrays(), end)


PROGRAM = program_of(
    ["float64"],
    [Asked(f, 0, w, h) for f in PLAIN["float64"] for w, h in ((300, 10), (3000, 60), (9999, 600))],
)


@pytest.mark.parametrize("m", [1, 2, 5000])
@pytest.mark.parametrize("span", [1, 5000, 10**7, 10**13])
def test_many_keys_and_events(native: SimpleNamespace, m: int, span: int) -> None:
    """More than a bucket, a part, a digit of the sort, one byte's number of tiles; and times far apart."""
    rng = np.random.default_rng(m + span)
    n = 6000
    codes = rng.integers(0, m, n) if m < 9 else (m ** rng.random(n)).astype(np.int64) - 1
    times = rng.integers(-span, span, n)
    amounts = pa.array(np.round(rng.lognormal(3, 1, n), 2))
    check(native, PROGRAM, m, (codes, times, [amounts]), span // 2)
    order = np.lexsort((times, codes))
    check(native, PROGRAM, m, (codes[order], times[order], [amounts.take(pa.array(order))]), span)


@pytest.mark.parametrize("odd", [math.nan, math.inf, 5e-324, 1e308, None])
def test_keys_whose_sums_need_another_way(native: SimpleNamespace, odd: float | None) -> None:
    """They lie among others, which do not."""
    amounts = [0.1 * i if i % 50 else odd for i in range(400)]
    codes, times = np.arange(400) % 30, np.arange(400) * 3
    check(native, PROGRAM, 30, (codes, times, [pa.array(amounts, pa.float64())]), 2000)


def test_arrays_of_any_stride(native: SimpleNamespace) -> None:
    codes, times = np.arange(40)[::2] % 3, np.arange(40)[::-2]
    column = pa.array([None, *np.arange(25) / 7])[3:23]
    expected = rows_of(TWIN, PROGRAM, 3, (codes.copy(), times.copy(), [column]), 99)
    assert rows_of(native, PROGRAM, 3, (codes, times, [column]), 99) == expected


def test_threads_take_turns(native: SimpleNamespace) -> None:
    """One builder, several at a time, which build without the interpreter's lock."""
    rng = np.random.default_rng(3)
    builder, keys, size = native.TileBuilder(PROGRAM, 3), [b"7:%d" % i for i in range(50)], 20_000
    parts = [
        (rng.integers(0, 50, size), rng.integers(0, 9999, size), [pa.array(rng.random(size))])
        for _ in range(6)
    ]

    def built(part: Any) -> list[bytes | None]:
        out = native.ReadBatch(keys)
        builder.build_into(out, *part, end_us=9999, created_us=5)
        rows: list[bytes | None] = out.rows()
        return rows

    expected = [built(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(built, parts * 3)) == expected * 3
