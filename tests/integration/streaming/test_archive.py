"""Streamed events in the offline store: each entry once, and training reads them beside the batch source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from deltalake import DeltaTable

from fastserve.config import Config
from fastserve.offline import streamed
from fastserve.offline.streamed import StreamedEvents, events_uri
from fastserve.store import FeatureStore
from fastserve.streaming import archive
from fastserve.streaming.archive import Archive, follow
from fastserve.streaming.feeds import Feed
from fastserve.streaming.producer import Producer
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.timeutil import MICROS, format_timestamp, now_us
from materializer.optimize.run import Request, optimize
from tests.integration.streaming.kit import SHARDS, feed_in, until
from tests.integration.streaming.load import events
from tests.integration.streaming.truth import log_events
from tests.servers import RedisServer
from tests.unit.streaming.feeds import feed_of, payments

FEED = feed_of(payments())
Row = tuple[Any, ...]


@pytest.fixture
def store(server: RedisServer, client: redis.Redis) -> Iterator[RedisFeeds]:
    made = RedisFeeds(server.url)
    yield made
    made.close()


def uri(root: Path, feed: Feed = FEED) -> str:
    return events_uri(str(root), feed.project, feed.source.name, list(feed.join_keys))


def archived(root: Path, feed: Feed = FEED) -> list[Row]:
    table = DeltaTable(uri(root, feed)).to_pyarrow_table()
    times = table["event_timestamp"].cast(pa.int64()).to_pylist()
    return sorted(zip(table["card_id"].to_pylist(), times, table["payment_id"].to_pylist(), strict=True))


def logged(client: redis.Redis) -> list[Row]:
    found = [event for shard in range(SHARDS) for event in log_events(client, FEED, shard)]
    return sorted((event["card_id"], event["event_timestamp"], event["payment_id"]) for event in found)


def test_every_entry_is_appended_once(
    tmp_path: Path, store: RedisFeeds, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_BYTES", 50_000)
    producer = Producer(store, [FEED], shards=SHARDS)
    producer.send(events(3_000))
    rounds = 0
    while follow(store, str(tmp_path), FEED):
        rounds += 1
        if rounds == 1:
            producer.send(events(1_000, seed=2))
    assert rounds > 1
    assert archived(tmp_path) == logged(client)
    ends = [client.xrevrange(FEED.key("log", shard), count=1)[0][0] for shard in range(SHARDS)]
    assert client.mget([FEED.key("archived", shard) for shard in range(SHARDS)]) == ends
    table = DeltaTable(uri(tmp_path)).to_pyarrow_table()
    assert table["created_timestamp"].null_count == 0


def test_rubbish_is_passed_by(tmp_path: Path, store: RedisFeeds, client: redis.Redis) -> None:
    store.shard_count(FEED, SHARDS)
    client.xadd(FEED.key("log", 0), {"json": "[]"})
    assert follow(store, str(tmp_path), FEED) == 1
    assert follow(store, str(tmp_path), FEED) == 0
    assert archived(tmp_path) == []


def test_of_two_that_follow_one_appends(
    tmp_path: Path,
    server: RedisServer,
    store: RedisFeeds,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two that have read the same entries: the second to commit is refused."""
    Producer(store, [FEED], shards=SHARDS).send(events(500))
    meet = threading.Barrier(2)
    append = StreamedEvents.append

    def together(self: StreamedEvents, *args: Any) -> bool:
        meet.wait(10)
        return append(self, *args)

    monkeypatch.setattr(streamed.StreamedEvents, "append", together)
    done: list[int] = []
    StreamedEvents(uri(tmp_path), FEED.schema)
    stores = [RedisFeeds(server.url) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda one=one: done.append(follow(one, str(tmp_path), FEED)))
        for one in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done)[0] == 0 < sorted(done)[1]
    assert archived(tmp_path) == logged(client)


def test_a_thread_follows_what_it_is_told_to(
    tmp_path: Path, server: RedisServer, store: RedisFeeds, client: redis.Redis
) -> None:
    ours: list[Feed] = []
    made = Archive(lambda: RedisFeeds(server.url), str(tmp_path), lambda: ours, 0.01)
    made.start()
    try:
        Producer(store, [FEED], shards=SHARDS).send(events(300))
        ours.append(FEED)
        until(lambda: client.exists(FEED.key("archived", 0)) == 1)
    finally:
        made.stop()
    assert archived(tmp_path) == logged(client)


def test_training_reads_streamed_events_beside_the_source(
    repo: Path, store: RedisFeeds, client: redis.Redis
) -> None:
    """Of an event that is in both one counts."""
    now = now_us()
    at = [now - seconds * MICROS for seconds in (100, 90, 80)]
    batch = {"card_id": [1, 1], "payment_id": ["a", "b"], "amount": [1.0, 2.0], "status": ["paid", "open"]}
    times = pa.array(at[:2], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**batch, "event_timestamp": times}), repo / "payments.parquet")
    stream = {"card_id": [1, 1], "payment_id": ["b", "c"], "amount": [2.0, 4.0], "status": ["open", "paid"],
              "event_timestamp": [format_timestamp(t) for t in at[1:]]}  # fmt: skip
    with FeatureStore(repo) as features:
        moments = pa.array([at[1], now - MICROS], pa.timestamp("us", "UTC"))
        labels = pa.table({"card_id": [1, 1], "event_timestamp": moments})
        wanted = ["spend:count_1h", "paid:amount_sum_1h"]

        def values() -> list[list[Any]]:
            made = features.get_historical_features(labels, wanted)
            table = made if isinstance(made, pa.Table) else made.to_arrow()
            return [table[name.partition(":")[2]].to_pylist() for name in wanted]

        assert values() == [[2, 2], [1.0, 1.0]]
        features.push("payments", stream)
        assert follow(store, Config.from_repo(repo).offline_store, feed_in(repo))
        assert values() == [[2, 3], [1.0, 5.0]]


def test_files_of_events_are_joined(repo: Path, store: RedisFeeds) -> None:
    """The rows stay, a stream goes on where it was, and of all views over them one at a time may."""
    feed, root = feed_in(repo), Config.from_repo(repo).offline_store
    producer = Producer(store, [feed], shards=SHARDS)
    for seed in range(5):
        producer.send(events(200, seed, 60 * MICROS))
        assert follow(store, root, feed)
    before = archived(Path(root), feed)
    none = {name: pa.array([], kind) for name, kind in zip(feed.schema.names, feed.schema.types, strict=True)}
    pq.write_table(pa.table(none), repo / "payments.parquet")
    labels = pa.table(
        {"card_id": [1, 2], "event_timestamp": pa.array([now_us()] * 2, pa.timestamp("us", "UTC"))}
    )
    with FeatureStore(repo) as opened:
        version = DeltaTable(uri(Path(root), feed)).version()
        opened.create_training_dataset(labels, "kept", ["paid:count_1h"])
        ids = [opened.registry.snapshot().view(name).view_id for name in ("spend", "paid")]
        with opened.registry.lock_rewrite(min(ids)):
            busy = optimize(opened.config, Request(views=("paid",)))
        report = optimize(opened.config, Request())
    assert busy.status == "already_running"
    (about,) = report.views
    assert (about.view, about.status) == ("payments:card_id", "ok")
    assert about.files_before >= 5 and about.files_after < about.files_before and about.dates_joined
    assert list(about.pinned) == [version], "a training set was made from it"
    assert archived(Path(root), feed) == before
    assert not follow(store, root, feed), "nothing is appended again"
    producer.send(events(50, 9, 60 * MICROS))
    assert follow(store, root, feed)
    assert len(archived(Path(root), feed)) > len(before)
