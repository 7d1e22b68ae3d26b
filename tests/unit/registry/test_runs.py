"""Interval algebra against sets of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastserve.registry import Interval, coalesce, uncovered

LOW, HIGH = -20, 20


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    found = []
    for i in range(draw(st.integers(0, 6))):
        end = draw(st.integers(LOW + 1, HIGH))
        start = draw(st.none() | st.integers(LOW, end - 1))
        found.append(Interval(1, "online", start, end, rows=draw(st.integers(0, 9)), run_id=i, finished_us=i))
    return found


def _points(found: list[Interval]) -> set[int]:
    return {t for i in found for t in range(LOW - 5 if i.start_us is None else i.start_us, i.end_us)}


@given(intervals())
def test_coalesce_keeps_the_points_and_the_rows(given_: list[Interval]) -> None:
    merged = coalesce(given_)
    assert _points(merged) == _points(given_)
    assert sum(i.rows for i in merged) == sum(i.rows for i in given_)
    for left, right in pairwise(merged):
        assert right.start_us is not None
        assert left.end_us < right.start_us  # neither overlapping nor touching
    assert coalesce(merged) == merged
    assert {i.run_id for i in merged} <= {i.run_id for i in given_} | {None}


@given(intervals(), st.none() | st.integers(LOW - 5, HIGH - 1), st.integers(1, 15))
def test_uncovered_is_the_complement(given_: list[Interval], start: int | None, length: int) -> None:
    low = LOW - 5 if start is None else start
    end = low + length
    gaps = uncovered(given_, start, end)
    points = {t for a, b in gaps for t in range(low if a is None else a, b)}
    assert points == set(range(low, end)) - _points(given_)
    assert all(b <= end and (a is None or a < b) for a, b in gaps)
    if start is None and not any(i.start_us is None for i in given_):
        assert gaps[0][0] is None


def test_uncovered_examples() -> None:
    have = [Interval(1, "online", 10, 20), Interval(1, "online", 30, 40)]
    assert uncovered(have, 0, 50) == [(0, 10), (20, 30), (40, 50)]
    assert uncovered(have, 12, 18) == []
    assert uncovered(have, None, 20) == [(None, 10)]
    assert uncovered([], None, 20) == [(None, 20)]
    assert uncovered([Interval(1, "online", None, 20)], None, 20) == []
