from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.offline.history import missing_history
from fastserve.registry import Interval, coalesce


def missing(intervals, times, ttl=None):
    made = coalesce(Interval(1, "offline", start, end) for start, end in intervals)
    return missing_history(made, np.array(times, np.int64), ttl)


def test_labels_within_what_is_covered_miss_nothing():
    assert missing([(0, 10)], [0, 9]) == []
    assert missing([(None, 10)], [-(2**63), 9]) == []
    assert missing([(0, 10)], [], 5) == []


def test_a_label_at_the_end_is_outside_for_the_end_is_exclusive():
    assert missing([(0, 10)], [9, 10]) == [(10, 11)]
    assert missing([(0, 10)], [-3, 12]) == [(-3, 0), (10, 13)]


def test_history_begins_where_the_first_interval_does():
    assert missing([(0, 10)], [3], ttl=100) == []


def test_a_hole_counts_where_a_ttl_reaches_into_it():
    holed = [(0, 10), (20, 30)]
    assert missing(holed, [25]) == [(10, 20)]
    assert missing(holed, [25], ttl=6) == []
    assert missing(holed, [25], ttl=7) == [(19, 20)]
    assert missing(holed, [12, 25], ttl=3) == [(10, 13)]
    assert missing([(None, 10), (20, 30)], [25]) == [(10, 20)]


def test_bounds_do_not_overflow():
    assert missing([(None, 10)], [-(2**63), 5], ttl=2**62) == []
    assert missing([(0, 10)], [2**63 - 1], ttl=2) == [(2**63 - 2, 2**63)]


edge = st.integers(-5, 20)


@settings(max_examples=300, deadline=None)
@given(
    spans=st.lists(st.tuples(st.none() | edge, st.integers(1, 6)), min_size=1, max_size=4),
    times=st.lists(edge, min_size=1, max_size=4),
    ttl=st.none() | st.integers(1, 12),
)
def test_it_agrees_with_looking_at_every_microsecond(spans, times, ttl):
    intervals = [(start, (0 if start is None else start) + length) for start, length in spans]
    merged = coalesce(Interval(1, "offline", start, end) for start, end in intervals)
    first = -100 if merged[0].start_us is None else merged[0].start_us
    held = {us for i in merged for us in range(-100 if i.start_us is None else i.start_us, i.end_us)}
    needed = {
        us for t in times for us in range(first if ttl is None else max(first, t - ttl + 1), t + 1)
    } | set(times)
    found = missing(intervals, times, ttl)
    if not needed - held:
        assert found == []
    else:
        inside = {us for start, end in found for us in range(-100 if start is None else start, end)}
        assert needed - held <= inside and not inside & held
