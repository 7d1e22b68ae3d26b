"""A Redis for each test module, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from fastserve.config import Config
from fastserve.store import FeatureStore
from fastserve.streaming.base import FeedStore
from fastserve.streaming.stores import open_feeds
from tests.integration.streaming.kit import FEATURES, SHARDS, feed_in
from tests.integration.streaming.looks import KafkaLooks, LmdbLooks
from tests.servers import RedisServer, start_redis
from tests.support import make_repo


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    started = start_redis(tmp_path_factory.mktemp("redis"))
    yield started
    started.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(server.url)
    made.flushall()
    yield made
    made.close()


@pytest.fixture
def repo(tmp_path: Path, server: RedisServer, client: redis.Redis) -> Path:
    """On Redis."""
    return applied(tmp_path / "repo", server.url)


@dataclass(frozen=True)
class Kept:
    """A repo, its feeds, and what looks into its store as redis-py does."""

    repo: Path
    feeds: FeedStore
    client: Any


@pytest.fixture(params=["redis", "lmdb"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """On each store that has streams."""
    kafka = ""
    if request.param != "lmdb":
        url = request.getfixturevalue("server").url
        client = request.getfixturevalue("client")
    else:
        url = f"lmdb://{tmp_path}/online?sync=off"
        client = LmdbLooks(url)
    if request.param == "kafka":
        kafka = request.getfixturevalue("kafka")
    repo = applied(tmp_path / "repo", url, kafka)
    feeds = open_feeds(Config.from_repo(repo))
    if kafka:
        client = KafkaLooks(client, open_feeds(Config.from_repo(repo)), kafka, feed_in(repo))
    made = Kept(repo, feeds, client)
    yield made
    made.feeds.close()
    client.close()


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    """librdkafka's own cluster, on TCP; topics there have four partitions."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    cluster = confluent_kafka.Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 4}
    )
    brokers = cluster.list_topics(timeout=10).brokers.values()
    cluster.list_topics("fastserve.tests.payments.card_id", timeout=10)  # makes it
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    cluster.flush(1)


def applied(folder: Path, url: str, kafka: str = "") -> Path:
    made = make_repo(folder, FEATURES, online_store=url)
    with (made / "fastserve.toml").open("a") as file:
        file.write(f'[streaming]\nshards = {SHARDS}\narchive = "200ms"\nkafka = "{kafka}"\n')
    FeatureStore(made).apply()
    return made
