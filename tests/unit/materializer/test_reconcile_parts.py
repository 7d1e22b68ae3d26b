"""Shards on disk, keys drawn at random, and words that two packages have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.jobs import reconcile as asked
from fastserve.timeutil import DAY_US
from materializer.reconcile import request, shards
from materializer.reconcile.shards import SHARDS, Shards, parts_of
from materializer.reconcile.truth import Draw

entry = st.tuples(st.binary(max_size=6), st.none() | st.binary(max_size=40))


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(entry, max_size=12), max_size=5), parts=st.integers(1, 5))
def test_every_key_comes_back_once_in_the_order_it_was_added(
    batches: list[list[tuple[bytes, bytes | None]]], parts: int
) -> None:
    with Shards("row") as spill:
        for batch in batches:
            spill.add([key for key, _ in batch], [row for _, row in batch])
        spill.flush()
        found: dict[bytes, list[bytes | None]] = {}
        places: dict[bytes, set[tuple[int, int]]] = {}
        for shard in range(SHARDS):
            for part in range(parts):
                for keys, (rows,) in spill.read(shard, part, parts):
                    for key, row in zip(keys, rows, strict=True):
                        found.setdefault(key, []).append(row)
                        places.setdefault(key, set()).add((shard, part))
    wanted: dict[bytes, list[bytes | None]] = {}
    for key, row in (pair for batch in batches for pair in batch):
        wanted.setdefault(key, []).append(row)
    assert found == wanted and spill.n_keys == sum(map(len, batches))
    assert all(len(where) == 1 for where in places.values()), "a key's rows are all in one part"


def test_a_large_shard_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUFFER_BYTES", 1_000)
    monkeypatch.setattr(shards, "PART_BYTES", 4_000)
    keys = [b"7:%d" % i for i in range(20_000)]
    with Shards("row") as spill, Shards() as other:
        for start in range(0, len(keys), 1_000):
            part = keys[start : start + 1_000]
            spill.add(part, part)
            other.add(part)
        spill.flush()
        other.flush()
        for shard in range(SHARDS):
            n = parts_of(shard, spill, other)
            assert n > 1
            read = [
                {key for held, _ in one.read(shard, part, n) for key in held}
                for part in range(n)
                for one in (spill, other)
            ]
            assert read[::2] == read[1::2], "what belongs together is read together"
            total = sum(map(len, read[::2]))
            assert max(map(len, read)) < 3 * total / n


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.integers(-5, 5), st.integers(0, 3)), max_size=120),
    n=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
    cut=st.integers(1, 40),
)
def test_a_draw_is_the_same_however_the_stream_is_cut(
    rows: list[tuple[int, int, int]], n: int, seed: int, cut: int
) -> None:
    draws = []
    for size in (cut, 1_000):
        draw = Draw(n, seed)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            times = [np.array([row[i] * DAY_US // 2 for row in part], np.int64) for i in (1, 2)]
            draw.add([b"7:%d" % row[0] for row in part], *times)
        draws.append((list(draw.days()), draw.newest))
    (days, newest), again = draws[0], draws[1]
    assert (days, newest) == again
    assert len(newest) == min(n, len({row[0] for row in rows}))
    for key, times in newest.items():
        mine = [(e * DAY_US // 2, c * DAY_US // 2) for k, e, c in rows if b"7:%d" % k == key]
        assert times == max(mine)
        assert sum(start <= times[0] < end for start, end in days) == 1
    assert days == sorted(days) and all(a[1] < b[0] for a, b in itertools.pairwise(days))


def test_every_key_has_its_chance() -> None:
    keys = [b"7:%d" % i for i in range(100)]
    times = np.zeros(100, np.int64)
    drawn = dict.fromkeys(keys, 0)
    for seed in range(400):
        draw = Draw(10, seed)
        draw.add(keys, times, times)
        list(draw.days())
        for key in draw.newest:
            drawn[key] += 1
    assert 10 < min(drawn.values()) and max(drawn.values()) < 90, "about 40 times each"


def test_jobs_and_commands_have_the_same_words() -> None:
    names = ("SAMPLE", "MAX_SAMPLE", "DIFFERENCES")
    assert [getattr(asked, name) for name in names] == [getattr(request, name) for name in names]
