from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.asof import asof_indices
from tests.oracles.naive_pit import naive_pit

MIN, MAX = -(2**63), 2**63 - 1


def ints(values):
    return np.array(values, np.int64)


def asof(labels, rows, *, ttl=None, cutoff=None):
    spine_codes, spine_ts = ([x[i] for x in labels] for i in range(2))
    codes, ts, created = ([x[i] for x in rows] for i in range(3))
    found = asof_indices(
        ints(spine_codes), ints(spine_ts), ints(codes), ints(ts), ints(created), ttl_us=ttl, cutoff=cutoff
    )
    assert found.dtype == np.int64
    return found.tolist()


def oracle(labels, rows, *, ttl=None, cutoff=None):
    cutoffs = None
    if cutoff is not None:
        cutoffs = list(np.broadcast_to(np.asarray(cutoff, np.int64), len(labels)))
    keyed = [((None if code < 0 else code,), t) for code, t in labels]
    rows = [((None if code < 0 else code,), ts, created) for code, ts, created in rows]
    return naive_pit(keyed, rows, ttl=ttl, cutoffs=cutoffs)


@pytest.mark.parametrize(
    ("labels", "rows", "ttl", "cutoff", "expected"),
    [
        pytest.param([(0, 10)], [(0, 10, 10)], None, None, [0], id="event time equal to the label's"),
        pytest.param([(0, 9), (0, 11)], [(0, 10, 10)], None, None, [-1, 0], id="one before, one after"),
        pytest.param([(0, 14), (0, 15)], [(0, 10, 10)], 5, None, [0, -1], id="t - ttl itself is too old"),
        pytest.param([(0, 10)], [(0, 10, 10)], 1, None, [0], id="smallest ttl"),
        pytest.param([(0, 10)], [(0, 10, 10)], 0, None, [-1], id="ttl 0 holds never"),
        pytest.param([(0, 10)], [(0, 10, 10)], -5, None, [-1], id="negative ttl holds never"),
        pytest.param([(1, 10)], [(0, 5, 5), (2, 5, 5)], None, None, [-1], id="unknown entity between known"),
        pytest.param(
            [(-1, 10)], [(-1, 5, 5), (0, 5, 5)], None, None, [-1], id="null key matches no null key"
        ),
        pytest.param([(0, 10)], [(0, 5, 7), (0, 5, 9), (0, 5, 8)], None, None, [1], id="created decides"),
        pytest.param([(0, 10)], [(0, 5, 7), (0, 5, 7), (0, 4, 9)], None, None, [1], id="then the last"),
        pytest.param([(0, 10)], [(0, 8, 8), (0, 5, 9)], None, None, [0], id="a late old row changes nothing"),
        pytest.param([(0, 10)], [(0, 5, 20), (0, 6, 21)], None, 19, [-1], id="all known too late"),
        pytest.param([(0, 10)], [(0, 5, 6), (0, 6, 21)], None, 19, [0], id="the newest one known"),
        pytest.param([(0, 10)], [(0, 5, 10)], None, 10, [0], id="created at the cutoff counts"),
        pytest.param([], [(0, 5, 5)], None, None, [], id="no labels"),
        pytest.param([(0, 5)], [], None, None, [-1], id="no rows"),
    ],
)
def test_cases(labels, rows, ttl, cutoff, expected):
    if not labels or not rows:
        labels, rows = ints(labels).reshape(-1, 2).tolist(), ints(rows).reshape(-1, 3).tolist()
        found = asof_indices(
            ints([c for c, _ in labels]),
            ints([t for _, t in labels]),
            *(ints([r[i] for r in rows]) for i in range(3)),
        )
        assert found.tolist() == expected
        return
    assert asof(labels, rows, ttl=ttl, cutoff=cutoff) == expected
    assert oracle(labels, rows, ttl=ttl, cutoff=cutoff) == expected


def test_as_known_at_label_time_a_late_correction_counts_only_from_then_on():
    rows = [(0, 5, 5), (0, 5, 8), (0, 7, 12)]
    labels = [(0, 6), (0, 8), (0, 11), (0, 12)]
    times = ints([t for _, t in labels])
    assert asof(labels, rows, cutoff=times) == [0, 1, 1, 2]


def test_nothing_overflows_at_the_ends_of_int64():
    rows = [(0, MIN, MIN), (0, MAX, MAX), (1, MIN, MAX)]
    labels = [(0, MIN), (0, MAX), (0, 0), (1, MAX)]
    for ttl in (None, 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70):
        for cutoff in (None, MIN, MAX, ints([MIN, MAX, 0, MAX])):
            assert asof(labels, rows, ttl=ttl, cutoff=cutoff) == oracle(labels, rows, ttl=ttl, cutoff=cutoff)


def test_codes_may_be_any_int64():
    rows = [(2**62, 1, 1), (2**62 - 1, 1, 1), (MAX, 3, 3)]
    labels = [(2**62, 5), (MAX, 5), (7, 5), (2**61, 5), (-1, 5)]
    assert asof(labels, rows) == [0, 2, -1, -1, -1]


times = st.integers(0, 6) | st.sampled_from([MIN, MIN + 1, -1, MAX - 1, MAX])
codes = st.integers(-1, 2)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_agrees_with_the_rule_word_for_word(data):
    rows = data.draw(st.lists(st.tuples(codes, times, times), min_size=1, max_size=24))
    labels = data.draw(st.lists(st.tuples(codes, times), min_size=1, max_size=24))
    ttl = data.draw(st.none() | st.integers(-1, 8) | st.sampled_from([2**63, 2**64 - 1, 2**64]))
    kind = data.draw(st.sampled_from(["none", "scalar", "label_time", "array"]))
    cutoff = None
    if kind == "scalar":
        cutoff = data.draw(times)
    elif kind == "label_time":
        cutoff = ints([t for _, t in labels])
    elif kind == "array":
        cutoff = ints(data.draw(st.lists(times, min_size=len(labels), max_size=len(labels))))
    assert asof(labels, rows, ttl=ttl, cutoff=cutoff) == oracle(labels, rows, ttl=ttl, cutoff=cutoff)


def test_one_cutoff_is_the_same_as_that_cutoff_for_every_label():
    rng = np.random.default_rng(7)
    m, n = 5_000, 3_000
    rows = [rng.integers(0, 50, m), rng.integers(0, 400, m), rng.integers(0, 400, m)]
    labels = [rng.integers(0, 55, n), rng.integers(0, 420, n)]
    one = asof_indices(*labels, *rows, ttl_us=200, cutoff=150)
    many = asof_indices(*labels, *rows, ttl_us=200, cutoff=np.full(n, 150))
    assert (one == many).all()
    assert (one >= 0).sum() > n // 2


def test_a_label_s_row_does_not_depend_on_the_other_labels_or_their_order():
    rng = np.random.default_rng(8)
    rows = [rng.integers(0, 20, 800), rng.integers(0, 90, 800), rng.integers(0, 90, 800)]
    codes, ts, cut = rng.integers(0, 22, 500), rng.integers(0, 99, 500), rng.integers(0, 99, 500)
    whole = asof_indices(codes, ts, *rows, ttl_us=40, cutoff=cut)
    shuffled = rng.permutation(500)
    again = asof_indices(codes[shuffled], ts[shuffled], *rows, ttl_us=40, cutoff=cut[shuffled])
    assert (whole[shuffled] == again).all()
    parts = [
        asof_indices(codes[i : i + 7], ts[i : i + 7], *rows, ttl_us=40, cutoff=cut[i : i + 7])
        for i in range(0, 500, 7)
    ]
    assert (whole == np.concatenate(parts)).all()
