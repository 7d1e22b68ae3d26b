"""Words of ids and the table of them: both twins, and a dict that is asked event by event."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.sketches_py import xxh64
from fastserve.streaming import event_ids_py


@pytest.fixture(params=["py", "native"], scope="module")
def impl(request: pytest.FixtureRequest) -> Any:
    if request.param == "py":
        return event_ids_py
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    return importlib.import_module("fastserve._native.event_ids")


@settings(deadline=None)
@given(ids=st.lists(st.none() | st.binary(max_size=70), max_size=20), start=st.integers(0, 20))
def test_an_id_is_hashed_as_xxh64_says(impl, ids, start) -> None:
    found = impl.id_hashes(pa.array(ids, pa.large_binary()).slice(start))
    assert found.tolist() == [xxh64(one or b"") for one in ids[start:]]


def test_other_types_are_refused(impl) -> None:
    with pytest.raises(TypeError, match="ids are string, not large_binary"):
        impl.id_hashes(pa.array(["a"]))


STEPS = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=30), st.integers(0, 3)),
    max_size=12,
)


@given(steps=STEPS, scale=st.sampled_from([1, 2**57]))
@settings(max_examples=200, deadline=None)
def test_as_a_dict_says(impl, steps, scale) -> None:
    """Steps of events (word, has one) at a rising bucket; a word is new unless it came in the last three buckets."""
    table, kept, bucket = impl.IdTable(), dict[int, int](), 0
    for events, ahead in steps:
        bucket += ahead
        wanted, ours = [], set[int]()
        for word, has in events:
            new = kept.get(word, bucket - 4) < bucket - 3 and word not in ours
            wanted.append(new or not has)
            if has:
                ours.add(word)
        n = len(events)
        words = np.array([word * scale % 2**64 for word, _ in events], np.uint64)
        given_ = np.array([has for _, has in events], np.uint8)
        firsts = np.full(n, bucket - 3)
        found = table.first_of_each(words, np.full(n, bucket), firsts, given_)
        assert found.tolist() == wanted
        table.add(bucket, words[found & given_.astype(bool)])
        kept |= {word: bucket for (word, has), new in zip(events, wanted, strict=True) if has and new}
        table.let_go(bucket - 3)
        assert len(table) == sum(b >= bucket - 3 for b in kept.values())


def test_a_table_that_grows_and_forgets_keeps_what_it_has_to(impl) -> None:
    table, n = impl.IdTable(), 3_000
    for bucket in range(20):
        words = np.arange(bucket * n, (bucket + 1) * n, dtype=np.uint64)
        table.add(bucket, words)
        table.let_go(bucket - 1)
    assert len(table) == 2 * n
    asked = np.arange(17 * n, 21 * n, dtype=np.uint64)
    ones = np.ones(4 * n, np.uint8)
    new = table.first_of_each(asked, np.full(4 * n, 20), np.zeros(4 * n, np.int64), ones)
    assert new.tolist() == [True] * n + [False] * 2 * n + [True] * n


def test_a_word_moves_to_the_newest_bucket(impl) -> None:
    table, word, one = impl.IdTable(), np.array([7], np.uint64), np.ones(1, np.uint8)
    for bucket in (5, 9, 6):
        table.add(bucket, word)
    table.let_go(9)
    assert not table.first_of_each(word, np.array([9]), np.array([9]), one)[0]
    table.let_go(10)
    table.add(9, word)
    assert table.first_of_each(word, np.array([10]), np.array([0]), one)[0]
    assert len(table) == 0


def test_arrays_of_different_length_are_refused(impl) -> None:
    with pytest.raises(ValueError, match="different length"):
        two = np.zeros(2, np.int64)
        impl.IdTable().first_of_each(np.zeros(2, np.uint64), two, two[:1], np.ones(2, np.uint8))
