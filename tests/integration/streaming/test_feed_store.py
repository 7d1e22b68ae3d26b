"""What every store of feeds does: logs, states, ids, one transaction."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from fastserve.batch import ReadBatch
from fastserve.config import Config
from fastserve.streaming.base import Changes, FeedStore, LostShardError, MovedError
from fastserve.streaming.entries import DeadLetter
from fastserve.streaming.places import number_of, place_of
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.streaming.stores import open_own
from fastserve.timeutil import MICROS, now_us
from tests.integration.streaming.conftest import Kept
from tests.unit.streaming.feeds import feed_of, payments

FEED = feed_of(payments())
BODY = {b"json": b"{}"}


@pytest.fixture
def store(kept: Kept) -> FeedStore:
    return kept.feeds


def url_of(kept: Kept) -> str:
    return Config.from_repo(kept.repo).online_store


def append(store: FeedStore, n: int, shard: int = 0) -> None:
    store.append([(FEED, shard, {b"json": b"%d" % i, b"x": b""}) for i in range(n)])


def test_a_log_is_read_in_its_order_from_anywhere(store: FeedStore) -> None:
    before = now_us()
    append(store, 5)
    append(store, 1, shard=1)
    first = store.entries(FEED, 0, "0-0", 3)
    assert [entry.fields for entry in first] == [{b"json": b"%d" % i, b"x": b""} for i in range(3)]
    rest = store.entries(FEED, 0, first[-1].id, 10)
    assert [entry.fields[b"json"] for entry in rest] == [b"3", b"4"]
    assert store.entries(FEED, 0, rest[-1].id, 10) == []
    assert all(before - 1_000 <= entry.stamped_us <= now_us() + 1_000 for entry in first)
    assert [store.added(FEED, shard) for shard in (0, 1, 2)] == [5, 1, 0]
    assert [store.last(FEED, shard) for shard in (0, 2)] == [rest[-1].id, "0-0"]
    numbers = [number_of(entry.id) for entry in (*first, *rest)]
    assert numbers == sorted(set(numbers))
    assert [place_of(number) for number in numbers] == [entry.id for entry in (*first, *rest)]


def test_who_waits_is_woken(kept: Kept) -> None:
    store = kept.feeds
    append(store, 1)
    (entry,) = store.entries(FEED, 0, "0-0", 1)
    store.wait({(FEED, 0): entry.id, (FEED, 1): "0-0"}, 0.01)
    woken = threading.Event()

    def wait() -> None:
        other = open_own(url_of(kept))
        other.wait({(FEED, 0): entry.id, (FEED, 1): "0-0"}, 30)
        other.close()
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    append(store, 1, shard=1)
    assert woken.wait(15)
    thread.join()


def test_a_state_is_swapped_by_who_knows_it(store: FeedStore) -> None:
    assert store.states([(FEED, 0), (FEED, 1)]) == [None, None]
    assert store.swap(FEED, 0, None, b"a")
    assert not store.swap(FEED, 0, None, b"b")
    assert not store.swap(FEED, 0, b"b", b"c")
    assert store.swap(FEED, 0, b"a", b"c")
    assert store.states([(FEED, 0), (FEED, 1)]) == [b"c", None]


def test_a_transaction_is_all_or_nothing(store: FeedStore) -> None:
    store.swap(FEED, 0, None, b"a")
    keys, seen = ReadBatch([b"7:1", b"7:2"]), []

    def work() -> Changes:
        seen.append(keys.rows())
        rows = [batch_of({b"7:1": b"row"}), batch_of({b"7:2": b"row2"})]
        return Changes(b"b", rows, {5: words(1, 2**64 - 1), 6: words(3)})

    changes = store.apply(FEED, 0, b"a", {b"!live:7": None}, keys, work)
    assert (changes.state, seen) == (b"b", [[None, None]])
    assert store.values([b"7:1", b"7:2", b"7:3"]) == [b"row", b"row2", None]
    assert ids_of(store, [4, 5, 6]) == {5: [1, 2**64 - 1], 6: [3]}

    keys, known = ReadBatch([b"7:1"]), batch_of({b"7:2": b"known"})
    keys.take(known, 0, 1)

    def more() -> Changes:
        rows = {key: (row or b"") + b"!" for key, row in zip(keys.keys(), keys.rows(), strict=True)}
        return Changes(b"c", [batch_of(rows)], {6: words(4)}, [5])

    store.apply(FEED, 0, b"b", {}, keys, more)
    assert store.values([b"7:1", b"7:2"]) == [b"row!", b"known!"]
    assert ids_of(store, [5, 6]) == {6: [3, 4]}
    none = ReadBatch()
    for held, guards, error in ((b"b", {}, LostShardError), (b"c", {b"7:1": None}, MovedError)):
        with pytest.raises(error):
            store.apply(FEED, 0, held, guards, none, lambda: Changes(b"d"))

    def fail() -> Changes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.apply(FEED, 0, b"c", {}, none, fail)
    assert store.states([(FEED, 0)]) == [b"c"]


def batch_of(rows: dict[bytes, bytes]) -> ReadBatch:
    made = ReadBatch(rows)
    made.fill(list(rows.values()), 0)
    return made


def words(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def ids_of(store: FeedStore, buckets: list[int]) -> dict[int, list[int]]:
    return {bucket: found.tolist() for bucket, found in store.ids(FEED, 0, buckets).items()}


def test_who_comes_between_is_noticed(kept: Kept, store: FeedStore) -> None:
    """A guard that changes while rows are made: nothing is written, and it is told."""
    store.swap(FEED, 0, None, b"a")
    other = open_own(url_of(kept))
    if not isinstance(other, RedisFeeds):
        pytest.skip("writers take turns there: nobody comes between")
    keys = ReadBatch([b"7:1"])

    def work() -> Changes:
        kept.client.set("!live:7", b"moved")
        return Changes(b"b", [batch_of({b"7:1": b"row"})])

    with pytest.raises(MovedError):
        store.apply(FEED, 0, b"a", {b"!live:7": None}, keys, work)
    assert store.values([b"7:1"]) == [None]
    assert store.states([(FEED, 0)]) == [b"a"]
    other.close()


def test_dead_letters_are_kept(kept: Kept) -> None:
    store = kept.feeds
    store.swap(FEED, 1, None, b"a")
    letters = [DeadLetter("5-0", None, "cut", b"x"), DeadLetter("5-1", 3, "bad", b"{}")]
    store.apply(FEED, 1, b"a", {}, ReadBatch(), lambda: Changes(b"b", dead=letters))
    found = [fields for _, fields in kept.client.xrange(FEED.key("dead"))]
    assert [(f[b"shard"], f[b"entry"], f[b"reason"], f[b"body"]) for f in found] == [
        (b"1", b"5-0", b"cut", b"x"),
        (b"1", b"5-1", b"bad", b"{}"),
    ]


def test_workers_live_while_they_say_so(store: FeedStore) -> None:
    assert store.beat("p", "b", 30) == ["b"]
    assert store.beat("p", "a", 30) == ["a", "b"]
    assert store.beat("q", "c", 30) == ["c"]
    store.leave("p", "b")
    assert store.beat("p", "a", 30) == ["a"]
    time.sleep(0.01)  # the clock has to move
    assert store.beat("p", "d", 0.005) == ["d"]


def test_a_log_lets_go_of_what_nobody_needs(store: FeedStore) -> None:
    append(store, 1_000)
    entries = store.entries(FEED, 0, "0-0", 1_000)
    now = now_us() + MICROS
    assert store.trim(FEED, 0, "0-0", now, archived=False) == 0
    assert store.trim(FEED, 0, entries[-1].id, 0, archived=False) == 0
    assert store.trim(FEED, 0, entries[-1].id, now, archived=True) == 0
    store.note_archived(FEED, {0: entries[500].id})
    assert 350 < store.trim(FEED, 0, entries[-1].id, now, archived=True) <= 500
    assert store.entries(FEED, 0, "0-0", 1_000)[-500:] == entries[500:]


def test_a_feed_keeps_its_number_of_shards(store: FeedStore) -> None:
    assert store.shard_count(FEED, 3) == 3
    assert store.shard_count(FEED, 8) == 3


def test_another_opening_sees_it(kept: Kept) -> None:
    append(kept.feeds, 2)
    other = open_own(url_of(kept))
    assert len(other.entries(FEED, 0, "0-0", 9)) == 2
    other.close()
