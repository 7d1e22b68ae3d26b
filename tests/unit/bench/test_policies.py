"""The policies that bench.policies holds the cache against, and its traces."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bench import policies
from bench.policies import POLICIES, SHARES, TRACES, AsBuilt, Lru, Sieve, hit_ratio
from bench.tinylfu import Sketch, TinyLfu


def hits(policy: object, keys: str) -> str:
    """The keys of a sequence that were there."""
    return "".join(key for key in keys if policy.look_up(ord(key)))  # type: ignore[attr-defined]


def test_lru_forgets_what_was_used_longest_ago() -> None:
    assert hits(Lru(3), "abcadbac") == "aa"


def test_sieve_spares_what_was_used_and_goes_on_from_where_it_was() -> None:
    # c, d, e let the unused b, c, d go; a, used, stays, and the hand has passed it.
    assert hits(Sieve(2), "abacadaea") == "aaaa"
    assert hits(Sieve(3), "abcabdc") == "ab"  # d: a and b were used and are passed, c goes


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_sieve_against_a_plain_list(size: int) -> None:
    draw, queue, used, hand = random.Random(size), list[int](), dict[int, bool](), None
    policy = Sieve(size)
    for _ in range(5_000):
        key = min(int(draw.paretovariate(0.5)), 200)
        assert policy.look_up(key) == (key in used)
        if key in used:
            used[key] = True
            continue
        if len(queue) == size:
            at = 0 if hand is None else queue.index(hand)
            while used[queue[at]]:
                used[queue[at]] = False
                at = (at + 1) % size
            hand = queue[at + 1] if at + 1 < size else None
            del used[queue.pop(at)]
        queue.append(key)
        used[key] = False


def test_tinylfu_admits_only_what_is_asked_for_more_often() -> None:
    policy = TinyLfu(101)  # a window of one
    for key in range(102):
        policy.look_up(key)
    for key in range(200, 300):
        assert not policy.look_up(key)
    assert policy.look_up(50)
    for _ in range(3):
        policy.look_up(500)
        policy.look_up(501)  # pushes 500 out of the window, before what was seen once
    assert policy.look_up(500)


def test_the_sketch_halves_its_counts() -> None:
    sketch = Sketch(10)
    for _ in range(12):
        sketch.count(1)
    assert sketch.often(1) == 12
    for key in range(100, 188):
        sketch.count(key)
    assert 6 <= sketch.often(1) <= 8


def test_all_may_hold_as_much() -> None:
    for size in (500, 5_000):
        cache = AsBuilt(size)
        for key in range(3 * size):
            cache.look_up(key)
        assert 0.97 < len(cache) / size <= 1.03


@pytest.mark.parametrize("name", TRACES)
def test_traces_are_of_the_ids_and_can_be_made_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "IDS", 2_000)
    monkeypatch.setattr(policies, "LOOKUPS", 8_000)
    trace = TRACES[name]()
    assert trace.dtype == np.int64 and len(trace) == 8_000
    assert 0 <= trace.min() and trace.max() < 2_000
    assert np.array_equal(trace, TRACES[name]())


def test_a_cache_that_holds_everything_misses_only_the_first_time() -> None:
    trace = np.array([1, 2, 3, 1, 2, 3, 1, 4])
    assert {name: hit_ratio(policy(100), trace) for name, policy in POLICIES.items()} == dict.fromkeys(
        POLICIES, 0.75
    )
    assert all(part > 1 for part in SHARES.values())
