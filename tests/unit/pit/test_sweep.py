"""Rows in order of time, and nearly so: the short way and the other one after it."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.asof_py import asof_indices
from materializer.pit.chunks import Labels, RowChunk
from tests.oracles.naive_pit import naive_pit

MIN, MAX = -(2**63), 2**63 - 1
times = st.integers(0, 9) | st.sampled_from([MIN, MIN + 1, MAX - 1, MAX])
codes = st.integers(-1, 2)


def ints(values):
    return np.array(values, np.int64)


@st.composite
def histories(draw):
    """Rows (code, event, created) by event time; of some, the last few are as they come."""
    rows = draw(st.lists(st.tuples(codes, times, times), max_size=30))
    if draw(st.booleans()):
        rows = [(code, event, min(event, created)) for code, event, created in rows]
    in_order = draw(st.just(len(rows)) | st.integers(0, len(rows)))
    return sorted(rows[:in_order], key=lambda row: row[1]) + rows[in_order:]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_rows_by_time_agree_with_the_rule_word_for_word(kernel, data):
    rows = data.draw(histories())
    labels = data.draw(st.lists(st.tuples(codes, times), max_size=24))
    ttl = data.draw(st.none() | st.integers(-1, 8) | st.sampled_from([2**63, 2**64 - 1, 2**64]))
    cutoff = data.draw(st.sampled_from(["none", "label's time"]) | times)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    asked = {"none": None, "label's time": ints([t for _, t in labels])}.get(cutoff, cutoff)
    spine = [ints([label[i] for label in labels]) for i in range(2)]
    history = [ints([row[i] for row in rows]) for i in range(3)]
    found = kernel.asof(
        spine,
        history,
        cuts=cuts,
        ttl_us=ttl,
        cutoff=asked,
        threads=3,
        group_rows=data.draw(st.integers(1, 9)),
    )
    limits = None if asked is None else np.broadcast_to(asked, len(labels)).tolist()
    keyed = [((None if code < 0 else code,), t) for code, t in labels]
    of_keys = [((None if code < 0 else code,), *stamps) for code, *stamps in rows]
    assert found == naive_pit(keyed, of_keys, ttl=ttl, cutoffs=limits)


def drawn(n, m, entities, span):
    rng = np.random.default_rng(m)
    rows = [rng.integers(0, entities, m), np.sort(rng.integers(0, span, m)), rng.integers(0, span, m)]
    return [rng.integers(-1, entities + 2, n), rng.integers(-5, span + 20, n)], rows


@pytest.mark.parametrize("late", [0, 1, 700], ids=["in order", "one late row", "many"])
@pytest.mark.parametrize("by", ["random", "time", "one time", "far apart", "one far away"])
def test_labels_in_any_order_of_time_agree_with_the_twin(kernel, late, by):
    labels, rows = drawn(9_000, 12_000, 300, 3_000)
    if by == "time":
        labels[1].sort()
    elif by == "one time":
        labels[1][:] = 1_500
    elif by == "one far away":  # the highest digits of all others are the same
        labels[1][7] = 2**60
    elif by == "far apart":  # every digit of a time is another
        labels[1] = (labels[1] - 1_500) * 2**51
        rows[1] = (rows[1] - 1_500) * 2**51
    if late:
        rows[1][-late:] = rows[1][:late]
    wanted = asof_indices(*labels, *rows, ttl_us=2_000 * 2**51, cutoff=2_000).tolist()
    for threads, cuts in ((1, ()), (1, (4_000,)), (3, (0, 1, 5_000, 5_000, 8_000, 11_999))):
        rule = {"ttl_us": 2_000 * 2**51, "cutoff": 2_000, "threads": threads}
        assert kernel.asof(labels, rows, cuts=cuts, **rule) == wanted
    assert sum(i >= 0 for i in wanted) > 1_000


def read(labels, rows, cuts, monkeypatch, *, known=False, block=1_000):
    """What `sweep` says and leaves: has it begun, has it all, and how many rows are left to others."""
    blocks, sweep, keys = (
        pytest.importorskip(f"materializer.pit.{name}_native") for name in ("blocks", "sweep", "keys")
    )
    monkeypatch.setattr(blocks, "_BLOCK", block)
    of = keys.Keys(Labels([pa.array(labels[0])], labels[1], ["int64"]))
    chunks = [[RowChunk([pa.array(rows[0][a:b])], rows[1][a:b], rows[2][a:b])] for a, b in cuts]
    numbered = list(enumerate(chunks))
    half = len(numbered) // 2
    readers = [blocks.Blocks(deque(some), of) for some in (numbered[:half], numbered[half:])]
    told: list[int] = []
    swept = sweep.sweep(of, labels[1], readers, cutoff=None, known=known, group_rows=3_000, seen=told.append)
    left = 0
    for reader in readers:
        while (found := reader.take()) is not None:
            left += len(found.codes)
    assert sum(told) + left == sum(b - a for a, b in cuts)
    return swept is not None, swept is not None and swept.complete, left


def test_rows_in_order_are_gone_through_and_the_first_that_is_not_ends_that(monkeypatch):
    labels, rows = drawn(9_000, 12_000, 300, 10**9)
    rows[2] = rows[1]
    cuts = list(pairwise([0, 3_500, 6_000, 6_000, 9_000, 12_000]))
    assert read(labels, rows, cuts, monkeypatch) == (True, True, 0)
    assert read(labels, rows, cuts, monkeypatch, known=True) == (True, True, 0)
    rows[1][11_500] = 0
    assert read(labels, rows, cuts, monkeypatch) == (True, False, 500)
    rows[1][3_600] = 0  # of the first half: the second goes on
    assert read(labels, rows, cuts, monkeypatch) == (True, False, 500 + 2_400)
    rows[1][10] = 0
    assert read(labels, rows, cuts, monkeypatch) == (False, False, 12_000)


def test_rows_known_later_than_they_happened_end_it_too_where_that_counts(monkeypatch):
    labels, rows = drawn(9_000, 12_000, 300, 10**9)
    rows[2] = rows[1].copy()
    rows[2][11_500] += 1
    cuts = [(0, 6_000), (6_000, 12_000)]
    assert read(labels, rows, cuts, monkeypatch) == (True, True, 0)
    assert read(labels, rows, cuts, monkeypatch, known=True) == (True, False, 500)


def test_rows_of_one_time_are_one_thread_s(monkeypatch):
    labels, rows = drawn(9_000, 12_000, 300, 10**9)
    rows[1][5_990:6_010] = rows[1][5_990]
    assert read(labels, rows, [(0, 6_000), (6_000, 12_000)], monkeypatch) == (True, False, 10)
    rows[1][5_500:6_010] = rows[1][5_500]
    assert read(labels, rows, [(0, 6_000), (6_000, 12_000)], monkeypatch) == (True, False, 500)


def test_entities_far_more_than_labels_are_left_to_the_other_way(monkeypatch):
    labels, rows = drawn(900, 12_000, 2_000, 10**9)
    assert read(labels, rows, [(0, 12_000)], monkeypatch) == (False, False, 12_000)
