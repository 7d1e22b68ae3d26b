"""Logs in Kafka, over TCP to librdkafka's own cluster; states and rows in Redis."""

from __future__ import annotations

import sys
import threading

import pytest
import redis

from fastserve.config import Config
from fastserve.errors import ConfigError, StoreError
from fastserve.store import FeatureStore
from fastserve.streaming.members import worker_name
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.stores import open_feeds
from fastserve.streaming.worker import Worker
from fastserve.timeutil import now_us
from tests.integration.streaming.conftest import Kept
from tests.integration.streaming.kit import SHARDS, all_read, feed_in, until
from tests.integration.streaming.load import events
from tests.integration.streaming.truth import expected, stored

pytestmark = pytest.mark.parametrize("kept", ["kafka"], indirect=True)


def work(kept: Kept) -> None:
    """A worker, until it has read everything."""
    config, feeds = Config.from_repo(kept.repo), [feed_in(kept.repo)]
    stop = threading.Event()
    worker = Worker(
        lambda: open_feeds(config), "tests", worker_name(), lambda: feeds, settings=StreamSettings(SHARDS)
    )
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        until(lambda: all_read(kept.client, kept.feeds, feeds[0]))
    finally:
        stop.set()
        thread.join()


def test_rows_are_those_of_all_events_at_once(kept: Kept) -> None:
    feed = feed_in(kept.repo)
    with FeatureStore(kept.repo) as features:
        for seed in range(2):
            features.push("payments", events(400, seed))
            kept.client.xadd(feed.key("log", seed), {"json": "[]"})
            work(kept)  # another one goes on where the one before stopped
    end = now_us()
    rows, outcomes = expected(kept.client, feed, SHARDS, end)
    assert len(rows) > 20
    assert stored(kept.client, feed, end) == rows
    assert sum(outcome.duplicates for outcome in outcomes)
    assert kept.client.xlen(feed.key("dead")) == 2


def test_entries_are_read_again_from_anywhere(kept: Kept) -> None:
    feed, store = feed_in(kept.repo), kept.feeds
    before = store.added(feed, 2)
    assert before is not None
    store.append([(feed, 2, {b"json": b"%d" % i}) for i in range(5)])
    start = f"{before}-0"
    found = store.entries(feed, 2, start, 100)
    assert [entry.fields for entry in found] == [{b"json": b"%d" % i} for i in range(5)]
    assert [entry.id for entry in store.entries(feed, 2, start, 100)] == [entry.id for entry in found]
    assert store.entries(feed, 2, found[1].id, 2) == found[2:4]
    assert store.entries(feed, 2, found[4].id, 2) == []
    assert store.added(feed, 2) == before + 5
    assert store.last(feed, 2) == found[4].id
    assert abs(found[0].stamped_us - now_us()) < 60_000_000


def test_what_was_deleted_before_it_was_read_is_told(kept: Kept) -> None:
    feed = feed_in(kept.repo)
    with pytest.raises(
        StoreError
    ):  # an offset that the topic does not have stands for one that it has no more
        kept.feeds.wait({(feed, 3): "900000-0"}, 5)


def test_shards_are_partitions(kept: Kept, client: redis.Redis) -> None:
    feed = feed_in(kept.repo)
    assert kept.feeds.shard_count(feed, 9) == SHARDS, "as the topic has it"
    client.set(feed.key("shards"), 3)
    with pytest.raises(ConfigError, match="4 partitions, and the feed 3 shards"):
        kept.feeds.shard_count(feed, 9)


def test_without_the_library_it_is_said(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastserve.streaming.kafka_feeds")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match="need confluent-kafka"):
        open_feeds(Config.from_repo(kept.repo))
