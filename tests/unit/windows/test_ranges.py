"""Windows at labels' times from ranges of events: the twin and the native kernel, against the oracle."""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.windows import ranges_py
from tests.oracles.bits import bits
from tests.unit.aggregations.programs import Case, cases


@pytest.fixture(params=["py", "native"], scope="module")
def twin(request: pytest.FixtureRequest) -> Any:
    """order_by and fold_windows."""
    if request.param == "py":
        return ranges_py
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    order = importlib.import_module("materializer.windows.order_native")
    ranges = importlib.import_module("fastserve._native.window_ranges")
    return SimpleNamespace(order_by=order.order_by, fold_windows=ranges.fold_windows)


def fold(twin: Any, case: Case, codes: list[int], times: list[int], outputs: list[int]) -> list[list[Any]]:
    """Output -> the values of the labels, in their order, as bits."""
    whose, moments = np.array(codes, np.int64), np.array(times, np.int64)
    entities, event_us, columns = case.arrays()
    starts, order, rising = twin.order_by([whose], [moments], case.m)
    events = (*twin.order_by([entities], [event_us], case.m), columns)
    made = twin.fold_windows(case.program, outputs, events, (starts, rising))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    for values in made:
        values.validate(full=True)
    return [bits(pa.chunked_array([values.take(pa.array(back))])) for values in made]


LABELS = st.lists(st.tuples(st.integers(0, 2), st.integers(-200, 1200)), max_size=8)


@settings(deadline=None)
@given(cases(), LABELS)
def test_the_oracle(twin: Any, case: Case, labels: list[tuple[int, int]]) -> None:
    labels = [(code % case.m, t) for code, t in labels]
    outputs = list(range(len(case.asked)))
    made = fold(twin, case, [code for code, _ in labels], [t for _, t in labels], outputs)
    for i, (code, t) in enumerate(labels):
        assert [column[i] for column in made] == case.expected(code, t)


@settings(deadline=None)
@given(cases(), LABELS, st.data())
def test_some_outputs_in_any_order(
    twin: Any, case: Case, labels: list[tuple[int, int]], data: st.DataObject
) -> None:
    codes, times = [code % case.m for code, _ in labels], [t for _, t in labels]
    outputs = data.draw(st.lists(st.integers(0, len(case.asked) - 1), max_size=4))
    every = fold(twin, case, codes, times, list(range(len(case.asked))))
    assert fold(twin, case, codes, times, outputs) == [every[i] for i in outputs]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=60),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_the_order_is_by_code_then_time_then_place(
    twin: Any, events: list[tuple[int, int]], cuts: list[int]
) -> None:
    codes, times = (np.array([event[i] for event in events], np.int64) for i in (0, 1))
    chunks = (np.split(column, sorted(cuts)) for column in (codes, times))
    starts, order, rising = twin.order_by(*chunks, 6, threads=2)
    assert rising.tolist() == times[order].tolist()
    assert order.tolist() == sorted(range(len(events)), key=lambda i: (*events[i], i))
    assert starts.tolist() == [sum(code < k for code, _ in events) for k in range(7)]


@pytest.mark.parametrize("n_codes", [1, 700, 90_000])
def test_many_rows_in_order(n_codes: int) -> None:
    """So many that codes are dealt out to parts first, some of them without any."""
    order_by = pytest.importorskip("materializer.windows.order_native").order_by
    rng = np.random.default_rng(3)
    codes = np.minimum(rng.zipf(1.2, 200_000) % (2 * n_codes), n_codes - 1)
    times = rng.integers(0, 50, 200_000)
    chunks = (np.split(column, [9, 70_000, 150_000]) for column in (codes, times))
    mine = order_by(*chunks, n_codes, threads=3)
    for made, wanted in zip(mine, ranges_py.order_by([codes], [times], n_codes), strict=True):
        assert np.array_equal(made, wanted)


def test_many_events_in_one_window_and_out_again(twin: Any) -> None:
    """Sums that are added and taken away again leave nothing behind, whatever their size."""
    rng = np.random.default_rng(1)
    values = rng.choice([1e300, -1e300, 1e-300, 5e-324, 0.1, float("inf"), float("nan")], 400)
    asked = {
        "sum": ("sum", 0, 20, 1),
        "var": ("var", 0, 20, 1),
        "min": ("min", 0, 20, 1),
        "max": ("max", 0, 20, 1),
    }
    from tests.unit.aggregations.programs import Asked

    events = tuple((0, i, (float(v),)) for i, v in enumerate(values))
    case = Case(("float64",), tuple(Asked(*each) for each in asked.values()), 1, events)
    times = list(range(0, 460, 7))
    made = fold(twin, case, [0] * len(times), times, [0, 1, 2, 3])
    for i, t in enumerate(times):
        assert [column[i] for column in made] == case.expected(0, t)


@pytest.mark.parametrize("dtype", ["int64", "float64", "float32", "timestamp"])
@pytest.mark.parametrize("nulls", [False, True])
def test_windows_of_many_events(twin: Any, dtype: str, nulls: bool) -> None:
    """Sums by differences, extremes by whole blocks: of ranges of every length, at every place."""
    rng = np.random.default_rng(7)
    values: list[Any] = np.round(rng.normal(0, 300, 400), 2).tolist()
    if dtype in ("int64", "timestamp"):
        values = rng.integers(-(2**62), 2**62, 400).tolist()
        values[50], values[250] = 2**63 - 1, -(2**63)
    if dtype == "float32":
        values = np.array(values, np.float32).tolist()
        values[100] = float("nan")
    for i in rng.choice(400, 60, replace=False) if nulls else ():
        values[i] = None
    from tests.unit.aggregations.programs import FUNCTIONS, Asked

    of = [f for f in ("sum", "mean", "var", "min", "max", "count") if f in FUNCTIONS[dtype]]
    asked = tuple(Asked(f, 0, window, hop) for f in of for window, hop in ((9, 1), (70, 1), (150, 10)))
    case = Case((dtype,), asked, 1, tuple((0, i, (v,)) for i, v in enumerate(values)))
    times = list(range(-3, 560, 29))
    made = fold(twin, case, [0] * len(times), times, list(range(len(asked))))
    for i, t in enumerate(times):
        assert [column[i] for column in made] == case.expected(0, t)


def test_what_does_not_fit_is_refused() -> None:
    native = pytest.importorskip("fastserve._native.window_ranges").fold_windows
    from tests.unit.aggregations.programs import Asked

    case = Case(("int64",), (Asked("sum", 0, 10, 1),), 1, ((0, 1, (5,)), (0, 2, (6,))))
    starts, places, times, column = np.array([0, 2]), np.array([0, 1]), np.array([1, 2]), pa.array([5, 6])
    labels = (np.array([0, 1]), np.array([9]))
    assert native(case.program, [0], (starts, places, times, [column]), labels)[0].to_pylist() == [11]
    for events in (
        (starts + 1, places, times, [column]),
        (starts, places + 1, times, [column]),
        (starts, places, times, [column.cast(pa.int32())]),
        (starts, places, times, [column[:1]]),
        (starts, places, times, []),
        (np.array([0, 1, 2]), places, times, [column]),
    ):
        with pytest.raises(ValueError):
            native(case.program, [0], events, labels)


def test_an_order_of_what_does_not_fit_is_refused() -> None:
    order_by = pytest.importorskip("materializer.windows.order_native").order_by
    for codes in ([2], [-1]):
        with pytest.raises(ValueError, match="codes below n_codes"):
            order_by([np.array(codes)], [np.array([0])], 2)
    with pytest.raises(ValueError, match="of one length"):
        order_by([np.array([0])], [np.array([0, 1])], 2)
    ordering = importlib.import_module("fastserve._native.window_order").Ordering(2, 3)
    codes, times = np.array([0, 2], np.int32), np.array([5, 4])
    for misplaced in ((codes, times, 1, np.zeros(1, np.int64)), (codes, times, 0, np.ones(1, np.int64))):
        with pytest.raises(ValueError):
            ordering.scatter(*misplaced)
    ordering.scatter(codes, times, 0, np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="part 1"):
        ordering.settle(1, 0, 2)
    ordering.settle(0, 0, 2)
    assert ordering.placed.tolist() == [[5, 0], [4, 1]] and ordering.starts.tolist() == [0, 1, 1, 2]
    for args in ((2**32, 1), (0, 2**31), (-1, 0)):
        with pytest.raises(ValueError, match="at a time"):
            type(ordering)(*args)
