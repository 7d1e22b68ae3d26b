"""Moments beside exact arithmetic, and in parts."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.statistics import Moments

NUMBERS = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf])


def check(found: Moments, values: list[float], nulls: int) -> None:
    """Against fractions, which do not round."""
    finite = [v for v in values if math.isfinite(v)]
    assert (found.rows, found.nulls, found.n) == (len(values) + nulls, nulls, len(finite))
    assert found.nans == sum(map(math.isnan, values))
    assert found.infinities == sum(map(math.isinf, values))
    if not finite:
        assert found.low is found.high is found.std is None
        return
    assert (found.low, found.high) == (min(finite), max(finite))
    mean = sum(map(Fraction, finite)) / len(finite)
    std = math.sqrt(sum((Fraction(v) - mean) ** 2 for v in finite) / len(finite))
    scale = max(map(abs, finite))
    assert found.mean == pytest.approx(float(mean), rel=1e-9, abs=1e-12 * scale)
    assert found.std == pytest.approx(std, rel=1e-6, abs=1e-7 * scale)


@given(st.lists(st.tuples(st.lists(NUMBERS, max_size=20), st.integers(0, 3)), min_size=1, max_size=5))
def test_parts_together_are_the_whole(parts: list[tuple[list[float], int]]) -> None:
    merged = reduce(Moments.merged, [Moments.of(np.array(v, np.float64), nulls) for v, nulls in parts])
    check(merged, [v for values, _ in parts for v in values], sum(nulls for _, nulls in parts))


def test_a_large_mean_does_not_swallow_a_small_spread() -> None:
    values = 1e9 + np.arange(1_000) % 2
    merged = reduce(Moments.merged, [Moments.of(part) for part in np.split(values, 10)])
    assert merged.std == 0.5


def test_integers_stay_whole() -> None:
    found = Moments.of(np.array([2**63 - 1, -(2**63)], np.int64))
    assert (found.low, found.high) == (-(2**63), 2**63 - 1)
    assert isinstance(found.low, int)


def test_a_sum_that_overflows_is_no_infinity() -> None:
    found = Moments.of(np.array([1e308, 1e308, 1e308]))
    assert found.infinities == 0 and found.n == 3
    assert found.mean == pytest.approx(1e308)


def test_one_core_is_enough() -> None:
    values = np.random.default_rng(0).random(100_000)
    Moments.of(values)
    own, all_ = time.thread_time(), time.process_time()
    for _ in range(100):
        Moments.of(values)
    own, all_ = time.thread_time() - own, time.process_time() - all_
    assert all_ < 1.5 * own, "threads of BLAS spin beside the one that measures"
