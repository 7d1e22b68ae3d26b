"""Streams on a cluster leave the bytes that a worker leaves, whatever is killed, and whoever went before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from fastserve.config import Config
from fastserve.errors import ConfigError
from fastserve.store import FeatureStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.state import decode_state
from fastserve.streaming.stores import open_feeds
from fastserve.streaming.worker import Worker
from fastserve.timeutil import MICROS, now_us
from tests.integration.streaming.conftest import Kept
from tests.integration.streaming.kit import FEATURES, SHARDS, all_read, feed_in, fleet, offsets
from tests.integration.streaming.kit import until as until_within
from tests.integration.streaming.load import events
from tests.integration.streaming.test_crash import all_archived, check, check_archive, load
from tests.integration.streaming.truth import prefix, stored
from tests.servers import RedisServer
from tests.spark.conftest import MASTER, SETTINGS
from tests.spark.test_backfill import executors

SECONDS = 240  # an executor's first batch imports much, on two cores
ON_REDIS = pytest.mark.parametrize("kept", ["redis"], indirect=True)


def until(done: Callable[[], bool]) -> None:
    until_within(done, SECONDS)


@contextmanager
def running(repo: Path, feeds: Callable[[], Sequence[Feed]] | None = None, **settings: Any) -> Iterator[Any]:
    """A runner in this process, on the cluster that is active."""
    from materializer.streams.runner import SparkRunner

    config, stop, now = Config.from_repo(repo), threading.Event(), [feed_in(repo)]
    given = StreamSettings.of({**config.streaming, "trigger": "100ms", **settings})
    runner = SparkRunner(config, lambda: open_feeds(config), feeds or (lambda: now), given)
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    try:
        yield runner
    finally:
        stop.set()
        thread.join()


def by_a_worker(kept: Kept, server: RedisServer, feed: Feed, end_us: int) -> dict[bytes, bytes]:
    """The rows that a worker makes of the same logs, in another database."""
    other = redis.Redis.from_url(server.url, db=1)
    for shard in range(SHARDS):
        log = feed.key("log", shard)
        for name, fields in kept.client.xrange(log):
            other.xadd(log, fields, id=name)
    from fastserve.streaming.redis_feeds import RedisFeeds

    url, stop = f"{server.url}?db=1", threading.Event()
    worker = Worker(lambda: RedisFeeds(url), "tests", "w1", lambda: [feed], settings=StreamSettings(SHARDS))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        until(lambda: all_read(other, RedisFeeds(url), feed))
    finally:
        stop.set()
        thread.join()
    found = stored(other, feed, end_us)
    other.close()
    return found


@ON_REDIS
def test_rows_are_those_of_a_worker_and_of_all_events_at_once(
    cluster: Any, kept: Kept, server: RedisServer
) -> None:
    feed, store = feed_in(kept.repo), kept.feeds
    with FeatureStore(kept.repo) as features:
        for seed in range(2):
            features.push("payments", events(400, seed, 900 * MICROS))
            for shard in range(SHARDS):
                kept.client.xadd(feed.key("log", shard), {"json": "[]", "seed": seed})
            with running(kept.repo) as runner:  # another one goes on from where the one before stopped
                until(lambda: all_read(kept.client, store, feed))
                assert {one.shard for one in runner.owned.values()} == set(range(SHARDS))
    check(kept.client, store, feed)
    end = now_us()
    assert stored(kept.client, feed, end) == by_a_worker(kept, server, feed, end)
    held = store.states([(feed, shard) for shard in range(SHARDS)])
    assert [decode_state(data, "").owner for data in held] == [""] * SHARDS


@ON_REDIS
def test_a_view_that_is_applied_meanwhile_is_computed_from_then_on(cluster: Any, kept: Kept) -> None:
    feeds = [[feed_in(kept.repo)]]
    with FeatureStore(kept.repo) as features, running(kept.repo, lambda: feeds[-1]):
        features.push("payments", events(100, 1, 900 * MICROS))
        until(lambda: all_read(kept.client, kept.feeds, feeds[0][0]))
        more = (
            'late = AggregatedFeatureView("late", entities=[card], source=payments, aggregations=windows)\n'
        )
        (kept.repo / "features.py").write_text(FEATURES + more)
        features.apply()
        late = features.snapshot.view("late")
        assert len(feed_in(kept.repo).views) == 3
        feeds.append([feed_in(kept.repo)])

        def written() -> bool:
            features.push("payments", events(20, int(now_us()), 60 * MICROS))
            until(lambda: all_read(kept.client, kept.feeds, feeds[0][0]))
            return bool(list(kept.client.scan_iter(match=prefix(late.view_id) + b"*")))

        until(written)


@ON_REDIS
def test_an_executor_killed_in_the_middle_changes_nothing(cluster: Any, kept: Kept) -> None:
    feed, store = feed_in(kept.repo), kept.feeds
    with running(kept.repo):
        with load(store, kept.client, feed):
            for _ in range(2):
                before = offsets(store, feed)
                until(lambda before=before: offsets(store, feed) != before)
                os.kill(executors()[0], signal.SIGKILL)
            before = offsets(store, feed)
            until(lambda: offsets(store, feed) != before)
        until(lambda: all_read(kept.client, store, feed))
    check(kept.client, store, feed)


@ON_REDIS
def test_a_killed_driver_goes_on_and_a_worker_takes_over(kept: Kept) -> None:
    """From its checkpoint; meanwhile a worker stands by, and has the shards when the driver stops."""
    feed, store = feed_in(kept.repo), kept.feeds
    with (kept.repo / "fastserve.toml").open("a") as toml:
        toml.write("[spark]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in SETTINGS.items()))

    def moves() -> bool:
        before = offsets(store, feed)
        until(lambda: offsets(store, feed) != before)
        return True

    def owners() -> set[str]:
        held = store.states([(feed, shard) for shard in range(SHARDS)])
        return {decode_state(data, "").owner for data in held}

    with fleet(kept.repo) as workers:
        with load(store, kept.client, feed):
            spark = ("--engine", "spark", "--master", MASTER)
            workers.start(*spark)
            assert moves() and moves()
            workers.end(workers.running[0], signal.SIGKILL)
            name = workers.start(*spark)["worker"]
            worker = workers.start()["worker"]
            until(lambda: owners() == {name})
            assert moves()
            assert owners() == {name}
            assert workers.end(workers.running[0], signal.SIGTERM) == 0
            until(lambda: owners() == {worker})
            assert moves()
        until(lambda: all_read(kept.client, store, feed) and all_archived(kept.client, feed))
        assert workers.end(workers.running[0], signal.SIGTERM) == 0
    assert list((kept.repo / ".fastserve" / "spark").glob("*/commits/*"))
    check(kept.client, store, feed)
    check_archive(kept.client, feed, kept.repo)


@pytest.mark.parametrize("kept", ["lmdb", "kafka"], indirect=True)
def test_logs_may_lie_elsewhere(cluster: Any, kept: Kept) -> None:
    feed, store = feed_in(kept.repo), kept.feeds
    with FeatureStore(kept.repo) as features:
        for seed in range(2):
            features.push("payments", events(400, seed, 900 * MICROS))
    for shard in range(SHARDS):
        kept.client.xadd(feed.key("log", shard), {"json": "[]"})
    with running(kept.repo):
        until(lambda: all_read(kept.client, store, feed))
    check(kept.client, store, feed)


@pytest.mark.parametrize("kept", ["kafka"], indirect=True)
def test_a_spark_without_the_connector_is_told_what_to_add(cluster: Any, kept: Kept) -> None:
    with pytest.raises(ConfigError, match="Spark has no connector to Kafka") as caught:
        with running(kept.repo, kafka_reader="connector"):
            pass
    assert f"spark-sql-kafka-0-10_2.13:{cluster.version}" in caught.value.hint


def test_what_the_connector_reads_becomes_entries(cluster: Any) -> None:
    """Its columns, by hand."""
    from pyspark.sql import SparkSession

    from materializer.streams.kafka import ROWS
    from materializer.streams.tasks import ENTRIES, entry_of

    columns = (
        "partition int, offset bigint, timestamp timestamp, value binary,"
        " headers array<struct<key: string, value: binary>>"
    )
    session = SparkSession(cluster)
    moment = session.sql("select timestamp_micros(1700000000123456) at").first().at
    rows = [
        (1, 17, moment, b"bytes", [("x", b""), ("format", b"arrow")]),
        (1, 18, moment, b"{}", [("format", b"json")]),
        (2, 0, moment, None, None),
    ]
    frame = session.createDataFrame(rows, columns).selectExpr(*ROWS)
    wanted = session.createDataFrame([], ENTRIES).schema
    assert frame.schema.simpleString() == wanted.simpleString()
    found = [(row.shard, entry_of(row)) for row in frame.collect()]
    assert [(shard, one.id, dict(one.fields)) for shard, one in found] == [
        (1, "18-0", {b"arrow": b"bytes"}),
        (1, "19-0", {b"json": b"{}"}),
        (2, "1-0", {b"json": b""}),
    ]
    assert {one.stamped_us for _, one in found} == {1_700_000_000_123_999}
