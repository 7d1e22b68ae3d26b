"""Workers over a real Redis, in this process: what they make of logs, whose shards are whose, what they survive."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError, InvalidDataError
from fastserve.online.changes import channel_of
from fastserve.streaming import owned
from fastserve.streaming.base import LostShardError
from fastserve.streaming.entries import encode_entry
from fastserve.streaming.owned import adopt, claim, claimed
from fastserve.streaming.producer import Producer
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.state import ShardState, decode_state
from fastserve.streaming.worker import Worker
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.integration.streaming.load import events
from tests.integration.streaming.truth import expected, log_events, prefix, stored
from tests.servers import RedisServer, free_port, start_redis
from tests.unit.streaming.feeds import feed_of, payments, spend

SHARDS = 3
SOURCE = payments(lateness="10m")
FEED = feed_of(SOURCE, spend(SOURCE), spend(SOURCE, "paid", filter="status = 'paid'"))


@pytest.fixture
def store(server: RedisServer, client: redis.Redis) -> Iterator[RedisFeeds]:
    made = RedisFeeds(server.url)
    yield made
    made.close()


def produce(store: RedisFeeds, n: int, seed: int = 1) -> None:
    Producer(store, [FEED], shards=SHARDS).send(events(n, seed))


def state_of(store: RedisFeeds, shard: int) -> ShardState:
    return decode_state(store.states([(FEED, shard)])[0], "")


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def all_read(client: redis.Redis, store: RedisFeeds) -> bool:
    ends = [client.xrevrange(FEED.key("log", shard), count=1) for shard in range(SHARDS)]
    return all(
        not end or state_of(store, shard).offset == end[0][0].decode() for shard, end in enumerate(ends)
    )


@contextmanager
def working(server: RedisServer, name: str = "w1") -> Iterator[Worker]:
    worker = Worker(lambda: RedisFeeds(server.url), "tests", name, lambda: FEEDS, settings=SETTINGS)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield worker
    finally:
        stop.set()
        thread.join()


FEEDS = [FEED]
SETTINGS = StreamSettings(SHARDS)


def check(client: redis.Redis, store: RedisFeeds) -> None:
    """Every row is the one of all events at once, and every count is right."""
    end = now_us()
    rows, outcomes = expected(client, FEED, SHARDS, end)
    assert len(rows) > 20
    assert stored(client, FEED, end) == rows
    for shard, outcome in enumerate(outcomes):
        counters = state_of(store, shard).counters
        assert counters["applied"] == len(outcome.kept)
        assert (counters["late"], counters["duplicates"]) == (outcome.late, outcome.duplicates)
        assert outcome.late and outcome.duplicates


def test_rows_are_those_of_all_events_at_once(
    server: RedisServer, client: redis.Redis, store: RedisFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "_BATCH_BYTES", 1)
    monkeypatch.setattr("fastserve.streaming.producer.ENTRY_ROWS", 40)
    with working(server):
        for seed in range(3):
            produce(store, 1_000, seed)
        until(lambda: all_read(client, store))
    check(client, store)
    assert all(state_of(store, shard).owner == "" for shard in range(SHARDS)), "given back at the end"
    assert client.zcard("!stream:tests:workers") == 0


def test_two_workers_share_the_shards_and_one_takes_what_the_other_leaves(
    server: RedisServer, client: redis.Redis, store: RedisFeeds
) -> None:
    with working(server, "a") as one:
        until(lambda: len(one.owned) == SHARDS)
        produce(store, 300)
        with working(server, "b") as other:
            until(lambda: (len(one.owned), len(other.owned)) == (2, 1))
            produce(store, 300, seed=2)
            until(lambda: all_read(client, store))
        until(lambda: len(one.owned) == SHARDS)
        produce(store, 900, seed=3)
        until(lambda: all_read(client, store))
    check(client, store)
    assert sum(state_of(store, shard).counters["takeovers"] for shard in range(SHARDS)) == 0, "all were given"


def test_a_transaction_writes_about_as_many_rows_as_redis_can_bear(
    store: RedisFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries wait: those that come next are taken for what the last ones were."""
    monkeypatch.setattr(owned, "MOST_ROWS", 300)
    monkeypatch.setattr("fastserve.streaming.producer.ENTRY_ROWS", 20)
    n = 9_000
    rows = {"card_id": list(range(n)), "event_timestamp": [format_timestamp(now_us())] * n,
            "payment_id": [f"p{i}" for i in range(n)], "amount": [1.0] * n, "status": [None] * n}  # fmt: skip
    Producer(store, [FEED], shards=SHARDS).send(rows)
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    written = [0]
    while shard.step():
        written.append(shard.state.counters["rows"])
    each = [after - before for before, after in pairwise(written)]
    assert written[-1] == sum(each) > 2_000
    assert max(each) <= 300 and each[-2] > 200


def test_who_lost_a_shard_writes_nothing_more(client: redis.Redis, store: RedisFeeds) -> None:
    produce(store, 600)
    stale = claim(store, FEED, 0, "stale", [], now_us)
    assert stale is not None
    assert claim(store, FEED, 0, "new", ["stale"], now_us) is None, "its owner lives"
    new = claim(store, FEED, 0, "new", ["new"], now_us)
    assert new is not None
    with pytest.raises(LostShardError):
        stale.step()
    assert (state_of(store, 0), stored(client, FEED, now_us())) == (new.state, {})
    stale.release()
    assert state_of(store, 0) == new.state, "nor gives it back"
    assert new.step()
    assert state_of(store, 0).counters["takeovers"] == 1
    assert new.state.epoch == 2


def test_other_processes_of_an_owner_take_entries_that_are_given(
    client: redis.Redis, store: RedisFeeds
) -> None:
    produce(store, 2_000)
    for shard in range(SHARDS):
        state = claimed(store, FEED, shard, "w1", [])
        assert state is not None
        assert claimed(store, FEED, shard, "w2", ["w1"]) is None
        one, other = (adopt(store, FEED, shard, "w1", state.epoch, now_us) for _ in range(2))
        entries = store.entries(FEED, shard, "0-0", 100)
        assert one.take(entries[:2]) == min(len(entries), 2)
        assert not other.is_as(store.states([(FEED, shard)])[0])
        with pytest.raises(LostShardError):  # it was applied meanwhile
            other.take(entries)
        assert one.take(entries) == max(len(entries) - 2, 0)
        assert one.is_as(store.states([(FEED, shard)])[0])
        assert one.take(entries) == 0, "nothing comes twice"
        assert claimed(store, FEED, shard, "w1", ["w1"]) is not None, "the same owner, in another epoch"
        with pytest.raises(LostShardError):
            adopt(store, FEED, shard, "w1", state.epoch, now_us)
    end = now_us()
    assert stored(client, FEED, end) == expected(client, FEED, SHARDS, end)[0]


def test_a_row_that_cannot_be_read_costs_its_own_events_alone(client: redis.Redis, store: RedisFeeds) -> None:
    produce(store, 300)
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    card = log_events(client, FEED, 0)[0]["card_id"]
    client.set(prefix(7) + b"%d" % card, b"rubbish")
    assert shard.step()
    letters = [fields for _, fields in client.xrange(FEED.key("dead"))]
    assert {json.loads(letter[b"body"])["card_id"] for letter in letters} == {card}
    assert all(b"the row is cut short" in letter[b"reason"] for letter in letters)
    assert client.get(prefix(7) + b"%d" % card) == b"rubbish"
    assert len(list(client.scan_iter(match=prefix(7) + b"*"))) > 3
    assert client.get(prefix(8) + b"%d" % card), "the other view's"


def test_rows_that_were_written_are_read_again_only_when_they_were_put_right(
    client: redis.Redis, store: RedisFeeds
) -> None:
    produce(store, 300)
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None and shard.step()
    whole = stored(client, FEED, now_us())

    def step_over_rubbish(seed: int) -> int:
        for key in whole:
            client.set(key, b"rubbish")
        produce(store, 600, seed)
        while shard.step():
            pass
        return client.xlen(FEED.key("dead"))

    assert step_over_rubbish(2) == 0
    assert any(client.get(key) != b"rubbish" for key in whole)
    client.incr(FEED.key("corrected", 0))
    assert step_over_rubbish(3) > 0


def test_what_is_no_event_is_a_dead_letter(client: redis.Redis, store: RedisFeeds) -> None:
    now = now_us()
    good = {"card_id": 1, "event_timestamp": format_timestamp(now - MICROS), "amount": 2.5, "payment_id": "a"}
    wrong = {
        "cannot be read: unexpected": b"{",
        "cannot be read: an event in JSON is an object": b"[1]",
        "column 'card_id': is missing": {**good, "card_id": None},
        "column 'event_timestamp': is missing": {"card_id": 1},
        "column 'amount': the column is": {**good, "amount": [1]},
        "column 'amount': 'much' does not fit": {**good, "amount": "much"},
        "column 'event_timestamp': lies in the future": {
            **good, "event_timestamp": format_timestamp(now + 60 * MICROS)
        },
    }  # fmt: skip
    log = FEED.key("log", 0)
    for body in (good, *wrong.values()):
        client.xadd(log, {"json": body if isinstance(body, bytes) else json.dumps(body)})
    client.xadd(log, {"other": "x"})
    client.xadd(log, {"arrow": b"no stream"})
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    while shard.step():
        pass
    letters = [fields for _, fields in client.xrange(FEED.key("dead"))]
    reasons = [letter[b"reason"].decode() for letter in letters]
    for wanted, found in zip(wrong, reasons, strict=False):
        assert found.startswith(wanted.partition(": is missing")[0]), (wanted, found)
    assert "a field `arrow` or `json`" in reasons[-2]
    assert reasons[-1].startswith("cannot be read")
    entries = [name.decode() for name, _ in client.xrange(log)]
    assert [letter[b"entry"].decode() for letter in letters] == entries[1:]
    counters = state_of(store, 0).counters
    assert (counters["applied"], counters["dead"], counters["events"]) == (1, 9, 10)
    assert len(stored(client, FEED, now)) == 1


def test_one_wrong_event_of_a_batch_is_one_dead_letter(client: redis.Redis, store: RedisFeeds) -> None:
    """Of a producer that is none of ours."""
    n = 37
    amounts = ["1.5"] * n
    amounts[20] = "x"
    table = pa.table({
        "card_id": list(range(n)), "payment_id": [f"p{i}" for i in range(n)], "amount": amounts,
        "event_timestamp": [format_timestamp(now_us() - MICROS)] * n,
    })  # fmt: skip
    client.xadd(FEED.key("log", 0), dict(encode_entry(table.combine_chunks().to_batches()[0])))
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    assert shard.step()
    ((_, letter),) = client.xrange(FEED.key("dead"))
    assert (letter[b"row"], json.loads(letter[b"body"])["card_id"]) == (b"20", 20)
    assert state_of(store, 0).counters["applied"] == n - 1


def test_rows_go_to_the_set_that_is_served(client: redis.Redis, store: RedisFeeds) -> None:
    """A switch while the worker runs is noticed by the transaction itself."""
    produce(store, 300)
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    client.set("!live:7", bytes(24) + json.dumps({"live": 99, "role": ""}).encode())
    assert shard.step()
    assert not list(client.scan_iter(match=prefix(7) + b"*"))
    assert list(client.scan_iter(match=prefix(99) + b"*"))


def test_changes_are_published(client: redis.Redis, store: RedisFeeds) -> None:
    produce(store, 300)
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel_of(0))
        pubsub.get_message(timeout=5)  # the confirmation
        shard = claim(store, FEED, 0, "w", [], now_us)
        assert shard is not None
        assert shard.step()
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert set(ReadBatch.from_packed(message["data"]).keys()) == set(stored(client, FEED, now_us()))


def test_a_worker_outlives_a_store_that_is_gone_for_a_while(tmp_path: Path) -> None:
    server = start_redis(tmp_path, options=("--appendonly", "yes"))
    try:
        store = RedisFeeds(server.url)
        client = redis.Redis.from_url(server.url)
        produce(store, 900)
        with working(server) as worker:
            until(lambda: all_read(client, store))
            server.stop()
            until(lambda: not worker.owned)
            server.restart()
            produce(store, 900, seed=2)
            until(lambda: all_read(client, store))
        check(client, store)
        client.close()
        store.close()
    finally:
        server.stop()


def test_a_cluster_is_refused(tmp_path: Path) -> None:
    server = start_redis(tmp_path, options=("--cluster-enabled", "yes", "--cluster-port", str(free_port())))
    try:
        with pytest.raises(ConfigError, match="no cluster"):
            RedisFeeds(server.url)
    finally:
        server.stop()


def test_a_log_keeps_what_was_not_applied_or_is_young(client: redis.Redis, store: RedisFeeds) -> None:
    log, n = FEED.key("log", 0), 1_000
    for i in range(n):
        client.xadd(log, {"json": "[]"}, id=f"{i + 1}-0")
    client.xadd(log, {"json": "[]"})
    store.trim(FEED, 0, "0-0", now_us(), archived=False)
    assert client.xlen(log) == n + 1, "nothing was applied"
    store.trim(FEED, 0, "500-0", now_us(), archived=False)
    assert n + 1 - 499 <= client.xlen(log) < n, "whole nodes of the stream go"
    assert client.xrange(log, "500-0", count=1)[0][0] == b"500-0"
    shard = claim(store, FEED, 0, "w", [], now_us)
    assert shard is not None
    while shard.step():
        pass
    before = client.xlen(log)
    shard.trim(now_us() - 3_600 * MICROS, archived=True)
    assert client.xlen(log) == before, "nothing was archived"
    store.note_archived(FEED, {0: shard.state.offset})
    shard.trim(now_us() - 3_600 * MICROS, archived=True)
    assert 1 <= client.xlen(log) < 101, "but the young one"


# ---- producing ------------------------------------------------------------------------------------------


def test_events_of_an_entity_are_in_one_log_in_their_order(client: redis.Redis, store: RedisFeeds) -> None:
    produce(store, 2_000)
    seen: dict[int, int] = {}
    order: dict[int, list[str]] = {}
    for shard in range(SHARDS):
        for event in log_events(client, FEED, shard):
            assert seen.setdefault(event["card_id"], shard) == shard
            order.setdefault(event["card_id"], []).append(event["payment_id"])
    given = events(2_000)
    for card, ids in order.items():
        assert ids == [p for c, p in zip(given["card_id"], given["payment_id"], strict=True) if c == card]
    assert client.xlen(FEED.key("log", 0)) == -(-len(log_events(client, FEED, 0)) // 500)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": [1.0, "x"]}, "column 'amount', row 1"),
        ({"card_id": [1, None]}, "column 'card_id', row 1: the join key is null"),
        ({"event_timestamp": ["2100-01-01", "2024-01-01"]}, "column 'event_timestamp', row 0: 2100-01-01"),
        ({"event_timestamp": [None, "2024-01-01"]}, "column 'event_timestamp', row 0: is null"),
        ({"amont": [1.0, 2.0]}, "unknown column 'amont'.*did you mean 'amount'"),
        ({"status": None}, "need a column 'status'"),
    ],
)
def test_a_producer_says_what_is_wrong_and_sends_nothing(
    client: redis.Redis, store: RedisFeeds, change: dict[str, Any], message: str
) -> None:
    rows = {"card_id": [1, 2], "event_timestamp": ["2024-01-01", "2024-01-01"], "payment_id": ["a", "b"],
            "amount": [1.0, 2.0], "status": ["paid", None], **change}  # fmt: skip
    with pytest.raises(InvalidDataError, match=f"(?s){message}"):
        Producer(store, [FEED], shards=SHARDS).send({k: v for k, v in rows.items() if v is not None})
    assert not client.keys("*:log:*")
