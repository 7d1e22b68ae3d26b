from __future__ import annotations

import functools
import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.asof_py import asof_indices
from materializer.pit.chunks import Labels
from tests.oracles.naive_pit import naive_pit

MIN, MAX = -(2**63), 2**63 - 1


def ints(values):
    return np.array(values, np.int64)


def asof(kernel, labels, rows, *, cuts=(), **rule):
    spine = [ints([label[i] for label in labels]) for i in range(2)]
    history = [ints([row[i] for row in rows]) for i in range(3)]
    return kernel.asof(spine, history, cuts=cuts, **rule)


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
def test_cases(kernel, labels, rows, ttl, cutoff, expected):
    assert asof(kernel, labels, rows, ttl_us=ttl, cutoff=cutoff) == expected
    assert oracle(labels, rows, ttl=ttl, cutoff=cutoff) == expected


def test_as_known_at_label_time_a_late_correction_counts_only_from_then_on(kernel):
    rows = [(0, 5, 5), (0, 5, 8), (0, 7, 12)]
    labels = [(0, 6), (0, 8), (0, 11), (0, 12)]
    times = ints([t for _, t in labels])
    assert asof(kernel, labels, rows, cutoff=times) == [0, 1, 1, 2]


def test_nothing_overflows_at_the_ends_of_int64(kernel):
    rows = [(0, MIN, MIN), (0, MAX, MAX), (1, MIN, MAX)]
    labels = [(0, MIN), (0, MAX), (0, 0), (1, MAX)]
    for ttl in (None, 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70):
        for cutoff in (None, MIN, MAX, ints([MIN, MAX, 0, MAX]), ints([MIN, MAX, 0, 0])):
            found = asof(kernel, labels, rows, ttl_us=ttl, cutoff=cutoff)
            assert found == oracle(labels, rows, ttl=ttl, cutoff=cutoff)


def test_codes_may_be_any_int64(kernel):
    rows = [(2**62, 1, 1), (2**62 - 1, 1, 1), (MAX, 3, 3)]
    labels = [(2**62, 5), (MAX, 5), (7, 5), (2**61, 5), (-1, 5)]
    assert asof(kernel, labels, rows) == [0, 2, -1, -1, -1]
    spine, history = ([ints([x[i] for x in of]) for i in range(k)] for of, k in ((labels, 2), (rows, 3)))
    assert asof_indices(*spine, *history).tolist() == [0, 2, -1, -1, -1]


times = st.integers(0, 6) | st.sampled_from([MIN, MIN + 1, -1, MAX - 1, MAX])
codes = st.integers(-1, 2)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_agrees_with_the_rule_word_for_word(kernel, data):
    rows = data.draw(st.lists(st.tuples(codes, times, times), max_size=24))
    labels = data.draw(st.lists(st.tuples(codes, times), max_size=24))
    ttl = data.draw(st.none() | st.integers(-1, 8) | st.sampled_from([2**63, 2**64 - 1, 2**64]))
    kind = data.draw(st.sampled_from(["none", "scalar", "label_time", "array"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    cutoff = None
    if kind == "scalar":
        cutoff = data.draw(times)
    elif kind == "label_time":
        cutoff = ints([t for _, t in labels])
    elif kind == "array":
        cutoff = ints(data.draw(st.lists(times, min_size=len(labels), max_size=len(labels))))
    found = asof(kernel, labels, rows, ttl_us=ttl, cutoff=cutoff, cuts=cuts, threads=2)
    assert found == oracle(labels, rows, ttl=ttl, cutoff=cutoff)


def drawn(rng, n, m, entities, span):
    """Labels and rows with many ties, drawn evenly."""
    rows = [rng.integers(0, entities, m), rng.integers(0, span, m), rng.integers(0, span, m)]
    return [rng.integers(-1, entities + 2, n), rng.integers(0, span + 20, n)], rows


@pytest.mark.parametrize("order", ["random", "time", "entity"])
@pytest.mark.parametrize("entities", [1, 7, 900], ids=["hot", "directories", "few labels each"])
@pytest.mark.parametrize("known", [False, True], ids=["", "known at label time"])
def test_more_labels_and_rows_than_any_block_agree_with_the_twin(kernel, entities, order, known):
    rng = np.random.default_rng(entities)
    labels, rows = drawn(rng, 9_000, 12_000, entities, 3_000)
    if order != "random":
        places = np.lexsort((rows[1], rows[0]) if order == "entity" else (rows[1],))
        rows = [column[places] for column in rows]
    if entities == 7:
        labels[1] = labels[1] ** 4  # dense at the beginning: cells of a directory with hundreds of labels
        rows[1] = rows[1] ** 4
    rule = {"ttl_us": 2_000, "cutoff": labels[1] if known else None}
    wanted = asof_indices(*labels, *rows, **rule).tolist()
    for threads, cuts in ((1, ()), (3, (0, 1, 5_000, 5_000, 11_999))):
        assert kernel.asof(labels, rows, cuts=cuts, threads=threads, **rule) == wanted
    assert sum(i >= 0 for i in wanted) > 1_000


@pytest.mark.parametrize("labels", [[], [(0, 5)]], ids=["no labels", "one label"])
def test_no_chunks_at_all(kernel, labels):
    keys = pa.array([code for code, _ in labels], pa.int64())
    asked = Labels([keys], ints([t for _, t in labels]), ["int64"])
    assert kernel.find_rows(asked, []).tolist() == [-1] * len(labels)


def test_one_cutoff_is_the_same_as_that_cutoff_for_every_label(kernel):
    labels, rows = drawn(np.random.default_rng(7), 3_000, 5_000, 50, 400)
    one = kernel.asof(labels, rows, ttl_us=200, cutoff=150)
    assert one == kernel.asof(labels, rows, ttl_us=200, cutoff=np.full(3_000, 150))
    assert sum(i >= 0 for i in one) > 1_500


def test_a_label_s_row_does_not_depend_on_the_other_labels_or_their_order(kernel):
    rng = np.random.default_rng(8)
    (codes, ts), rows = drawn(rng, 500, 800, 20, 90)
    whole = np.array(kernel.asof([codes, ts], rows, ttl_us=40, cutoff=ts))
    mixed = rng.permutation(500)
    again = kernel.asof([codes[mixed], ts[mixed]], rows, ttl_us=40, cutoff=ts[mixed])
    assert whole[mixed].tolist() == again
    parts = [slice(i, i + 7) for i in range(0, 500, 7)]
    found = [kernel.asof([codes[p], ts[p]], rows, ttl_us=40, cutoff=ts[p]) for p in parts]
    assert whole.tolist() == functools.reduce(operator.iadd, found, [])
