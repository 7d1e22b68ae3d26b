"""What a plan foretells, against what was measured and what is drawn at random."""

from __future__ import annotations

import random

import pytest

from materializer.backfill.plan import extrapolated
from materializer.backfill.sizes import redis_bytes


@pytest.mark.parametrize(("expires", "measured"), [(False, 328.8), (True, 368.6)])
def test_memory_is_what_the_bench_measured(expires: bool, measured: float) -> None:
    """bench/results/memory.json: 250,000 entities, rows of 231 bytes."""
    each = redis_bytes([(8, 231)], 250_000, expires=expires) / 250_000
    assert each == pytest.approx(measured, rel=0.01)


def test_nothing_takes_nothing() -> None:
    assert redis_bytes([(8, 231)], 0, expires=True) == 0


@pytest.mark.parametrize("skew", [0.0, 0.7])
def test_keys_of_all_dates_are_told_from_some(skew: float) -> None:
    rng = random.Random(1)
    dates = [{int(5_000 * rng.random() ** (1 + skew)) for _ in range(600)} for _ in range(40)]
    sample = dates[::5]
    seen: dict[int, int] = {}
    for key in set().union(*sample):
        times = sum(key in day for day in sample)
        seen[times] = seen.get(times, 0) + 1
    truth = len(set().union(*dates))
    assert extrapolated(seen, len(sample), len(dates)) == pytest.approx(truth, rel=0.06)
    assert extrapolated(seen, len(dates), len(dates)) == len(set().union(*sample))
