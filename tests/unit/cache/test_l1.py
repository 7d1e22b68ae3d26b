"""The row cache, both twins: what it answers is what was put last and not dropped, within its bytes."""

from __future__ import annotations

import importlib
import os
import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastserve.batch.batch_py import ABSENT, CACHED, FOUND, STALE, UNKNOWN

SMALLEST = 16_384


class Twin:
    """The cache and the batch it takes."""

    def __init__(self, name: str) -> None:
        modules = {
            "py": ("fastserve.cache.l1_py", "fastserve.batch.batch_py"),
            "native": ("fastserve._native.l1", "fastserve._native.batch"),
        }[name]
        cache, batch = map(importlib.import_module, modules)
        self.cache: Any = cache
        self.batch: ModuleType = batch

    def put(self, cache: Any, rows: dict[bytes, bytes | None], fetched_us: int = 0) -> int:
        batch = self.batch.ReadBatch(list(rows))
        batch.fill(list(rows.values()), fetched_us)
        return cache.put_many(batch, 0, len(rows))

    def get(self, cache: Any, keys: list[bytes], oldest_us: int = 0, **how: bool) -> Any:
        batch = self.batch.ReadBatch(keys)
        missing = cache.get_many(batch, 0, len(keys), oldest_us, **how)
        assert missing == batch.missing
        batch.own()
        return batch


@pytest.fixture(params=["py", "native"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "native" and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    return Twin(request.param)


def key(i: int) -> bytes:
    return b"7:%d" % i


def test_reads_each_with_an_age_of_their_own(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {b"a": b"1", b"b": b"2"}, 100)
    twin.put(cache, {b"c": b"3"}, 150)
    keys = [b"a", b"b", b"a", b"c", b"c", b"x"]
    for ages, since, found in [
        ((50, 100, 1), 0, [None, None, b"1", b"3", None, None]),
        ((100, 0, 50), 0, [b"1", b"2", None, None, b"3", None]),
        ((200, 200, 200), 150, [None, None, None, b"3", b"3", None]),
    ]:
        batch = twin.batch.ReadBatch(keys)
        assert cache.get_reads(batch, 2, ages, 200, since) == found.count(None) == batch.missing
        assert batch.rows() == found
    with pytest.raises(IndexError, match="6 keys, not 2 times 2"):
        cache.get_reads(twin.batch.ReadBatch(keys), 2, (1, 1), 200, 0)


def test_rows_absence_and_what_is_not_known(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    assert twin.put(cache, {b"a": b"row", b"b": None, b"c": b""}, 5) == 3
    batch = twin.get(cache, [b"a", b"b", b"c", b"d"])
    assert batch.rows() == [b"row", None, b"", None]
    assert batch.states() == [FOUND, ABSENT, FOUND, UNKNOWN]
    assert batch.flags() == [CACHED, CACHED, CACHED, 0]
    assert batch.fetched_us() == [5, 5, 5, 0]
    stats = cache.stats()
    assert (stats["lookups"], stats["hits"], stats["negative_hits"], stats["entries"]) == (4, 3, 1, 3)


def test_an_entry_too_old_is_a_miss_but_can_be_had_stale(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {b"a": b"row"}, 100)
    assert twin.get(cache, [b"a"], 100).rows() == [b"row"]
    assert twin.get(cache, [b"a"], 101).states() == [UNKNOWN]
    assert cache.stats()["too_old"] == 1
    stale = twin.get(cache, [b"a"], 50, stale=True)
    assert (stale.rows(), stale.flags()) == ([b"row"], [CACHED | STALE])


def test_what_the_cache_gave_is_not_put_back(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {b"a": b"row"}, 100)
    assert cache.put_many(twin.get(cache, [b"a", b"b"]), 0, 2) == 0


def test_a_row_asked_for_earlier_does_not_replace_a_later_one(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {b"a": b"new"}, 100)
    assert twin.put(cache, {b"a": b"old"}, 99) == 0
    assert twin.get(cache, [b"a"]).rows() == [b"new"]
    for row in (b"eq", b"equal", None, b"row"):
        assert twin.put(cache, {b"a": row}, 100) == 1
        assert twin.get(cache, [b"a"]).rows() == [row]
    assert len(cache) == 1


def test_dropped_keys_are_gone(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {key(i): b"row %d" % i for i in range(100)})
    assert cache.drop(twin.batch.ReadBatch([key(i) for i in range(50, 150)])) == 50
    assert twin.get(cache, [key(i) for i in range(100)]).states() == [FOUND] * 50 + [UNKNOWN] * 50
    cache.clear()
    assert len(cache) == 0 and twin.get(cache, [key(1)]).missing == 1


def test_one_range_of_a_batch_is_looked_up_alone(twin: Twin) -> None:
    cache = twin.cache.RowCache(1 << 20)
    twin.put(cache, {key(i): b"r" for i in range(4)})
    batch = twin.batch.ReadBatch([key(i) for i in range(4)])
    assert cache.get_many(batch, 1, 3, 0) == 0
    assert batch.states() == [UNKNOWN, FOUND, FOUND, UNKNOWN]


def test_a_row_too_large_for_the_budget_is_not_taken(twin: Twin) -> None:
    cache = twin.cache.RowCache(SMALLEST)
    twin.put(cache, {b"a": b"small"})
    assert twin.put(cache, {b"a": bytes(4_000)}, 1) == 0
    assert twin.get(cache, [b"a"]).missing == 1, "nor is what it replaces kept"


def test_a_scan_does_not_wash_out_what_is_used(twin: Twin) -> None:
    cache = twin.cache.RowCache(200_000)
    hot = [key(i) for i in range(100)]
    for _ in range(3):
        batch = twin.get(cache, hot)
        twin.put(cache, dict.fromkeys(batch.missing_keys(), bytes(231)))
    for i in range(10_000):
        twin.put(cache, {b"scan:%d" % i: bytes(231)})
        twin.get(cache, [hot[i % 100]])
    assert twin.get(cache, hot).missing == 0


def test_memory_follows_when_the_sizes_shift(twin: Twin) -> None:
    cache = twin.cache.RowCache(2_000_000)
    for i in range(20_000):
        twin.put(cache, {key(i): bytes(250)})
    assert cache.bytes_used <= cache.budget_bytes
    wanted = [b"big:%d" % i for i in range(500)]
    for _ in range(4):
        batch = twin.get(cache, wanted)
        twin.put(cache, dict.fromkeys(batch.missing_keys(), bytes(2_000)))
    assert twin.get(cache, wanted).missing <= 25


def test_hits_of_a_zipf_trace(twin: Twin) -> None:
    """A tenth of 20,000 keys: S3-FIFO is known to hit some .75 of them; an LRU does .7."""
    keys = [key(i) for i in range(20_000)]
    weights = 1 / np.arange(1, len(keys) + 1) ** 0.99
    picks = np.random.default_rng(1).choice(len(keys), 100_000, p=weights / weights.sum())
    cache = twin.cache.RowCache(2_000 * 300)
    for start in range(0, len(picks), 20):
        batch = twin.get(cache, [keys[i] for i in picks[start : start + 20]])
        twin.put(cache, dict.fromkeys(batch.missing_keys(), bytes(220)))
    stats = cache.stats()
    assert stats["hits"] / stats["lookups"] > 0.70
    assert cache.bytes_used <= cache.budget_bytes


def test_too_small_a_budget_is_refused(twin: Twin) -> None:
    with pytest.raises(ValueError, match="16384 is the least"):
        twin.cache.RowCache(SMALLEST - 1)


class Machine(RuleBasedStateMachine):
    """A dict is the oracle: a hit is its value; an eviction is a miss, never another value."""

    twin: Twin

    def __init__(self) -> None:
        super().__init__()
        self.cache = self.twin.cache.RowCache(SMALLEST)
        self.truth: dict[bytes, tuple[bytes | None, int]] = {}
        self.now = 0

    @rule(
        ids=st.lists(st.integers(0, 150), max_size=60), size=st.integers(0, 400), none=st.booleans(),
        late=st.booleans(),
    )  # fmt: skip
    def put(self, ids: list[int], size: int, none: bool, late: bool) -> None:
        self.now += 1
        fetched = self.now - 5 if late else self.now
        rows = {key(i): None if none else random.Random(size * i).randbytes(size) for i in ids}
        self.twin.put(self.cache, rows, fetched)
        for one, row in rows.items():
            if one not in self.truth or self.truth[one][1] <= fetched:
                self.truth[one] = row, fetched

    @rule(ids=st.lists(st.integers(0, 200), max_size=60), age=st.integers(0, 20))
    def get(self, ids: list[int], age: int) -> None:
        batch = self.twin.get(self.cache, [key(i) for i in ids], self.now - age)
        parts = (batch.keys(), batch.rows(), batch.states(), batch.fetched_us())
        for one, row, state, fetched in zip(*parts, strict=True):
            if state != UNKNOWN:
                held = self.truth[one]
                assert fetched >= self.now - age
                assert held[0] == row or held[1] > fetched, "a later one was not taken: it was evicted since"

    @rule(ids=st.lists(st.integers(0, 150), max_size=20))
    def drop(self, ids: list[int]) -> None:
        self.cache.drop(self.twin.batch.ReadBatch([key(i) for i in ids]))
        for i in ids:
            self.truth.pop(key(i), None)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.truth.clear()

    @invariant()
    def within_bytes(self) -> None:
        assert self.cache.bytes_used <= SMALLEST
        assert len(self.cache) <= len(self.truth)


@pytest.mark.parametrize("name", ["py", "native"])
def test_whatever_comes_in_any_order(name: str) -> None:
    if name == "native" and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    machine = type(f"Machine_{name}", (Machine,), {"twin": Twin(name)})
    settings_ = settings(max_examples=100, stateful_step_count=50, deadline=None)
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings_)
