"""A Redis for each test module, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fastserve.store import FeatureStore
from tests.integration.streaming.kit import FEATURES, SHARDS
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
    made = make_repo(tmp_path / "repo", FEATURES, online_store=server.url)
    with (made / "fastserve.toml").open("a") as file:
        file.write(f'[streaming]\nshards = {SHARDS}\narchive = "200ms"\n')
    FeatureStore(made).apply()
    return made
