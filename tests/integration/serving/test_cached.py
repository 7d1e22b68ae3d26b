"""A server with its cache before a real Redis: hits, changes that are heard, rows while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastserve import Entity, FeatureView, Field
from fastserve.online import OnlineStore, open_store
from fastserve.registry import RegisteredView, open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.read_path import FeatureBatch, ReadPath, decode_columns
from fastserve.serving.row_cache import ViewCache
from tests.servers import RedisServer, start_redis
from tests.support import NOW_US, put

USER = Entity("user", join_keys="user_id", dtype="int64")
KEPT = FeatureView("kept", entities=[USER], schema=[Field("x", "int64", default=7)])
NEVER = FeatureView("never", entities=[USER], schema=[Field("x", "int64")], max_staleness="0s")


@dataclass
class Cached:
    """What the tests work on."""

    redis: RedisServer
    store: OnlineStore
    writer: OnlineStore
    cache: ViewCache
    path: ReadPath
    catalog: Catalog

    def view(self, name: str) -> RegisteredView:
        return self.catalog.snapshot.view(name)

    async def read(self, view: str, ids: list[int]) -> FeatureBatch:
        answer = self.path.read(
            self.catalog.plan("", (f"{view}:x",), False), {"user_id": ids}, decode_columns
        )
        return await answer if isinstance(answer, asyncio.Future) else answer

    async def values(self, view: str, ids: list[int]) -> list[Any]:
        values: list[Any] = (await self.read(view, ids)).reads[0].columns[0].to_pylist()
        return values

    async def until(self, name: str, least: float) -> None:
        while self.cache.counters()[name] < least:
            await asyncio.sleep(0.001)


@pytest.fixture
async def cached(tmp_path: Path) -> AsyncIterator[Cached]:
    redis = start_redis(tmp_path)
    registry = open_registry(f"sqlite:///{tmp_path}/registry.db", "tests")
    registry.apply([USER, KEPT, NEVER])
    store, writer = open_store(redis.url), open_store(redis.url)
    cache = ViewCache(store, 1 << 20, stale_if_down_us=60_000_000)
    catalog = Catalog(registry)
    made = Cached(redis, store, writer, cache, ReadPath(store, lambda: NOW_US, cache=cache), catalog)
    await made.until("feed_up", 1)
    yield made
    await catalog.close()
    await store.close()
    await writer.close()
    redis.stop()


async def test_a_row_is_asked_for_once_and_absence_too(cached: Cached) -> None:
    await put(cached.writer, cached.view("kept"), [{"user_id": 1, "x": 5}])
    await cached.until("changes", 1)
    for _ in range(3):
        assert await cached.values("kept", [1, 2]) == [5, 7]
    counters = cached.cache.counters()
    assert (counters["hits"], counters["negative_hits"], counters["inserts"]) == (4, 2, 2)
    assert cached.path.counters()["reads"] == 1


async def test_what_another_process_writes_is_answered_next(cached: Cached) -> None:
    for value in range(1, 20):
        await put(
            cached.writer, cached.view("kept"), [{"user_id": 1, "x": value}], event_us=NOW_US - 100 + value
        )
        await cached.until("changes", value)
        assert await cached.values("kept", [1]) == [value]


async def test_a_view_that_is_never_cached(cached: Cached) -> None:
    for _ in range(3):
        assert await cached.values("never", [1]) == [None]
    assert cached.cache.counters()["hits"] == 0 and cached.path.counters()["reads"] == 3


async def test_rows_are_answered_and_flagged_while_the_store_is_down(cached: Cached) -> None:
    await put(cached.writer, cached.view("kept"), [{"user_id": 1, "x": 5}])
    await cached.until("changes", 1)
    await cached.values("kept", [1])
    cached.redis.stop()
    await cached.until("feed_lost", 1)
    batch = await cached.read("kept", [1, 2])
    assert batch.reads[0].columns[0].to_pylist() == [5, None]
    assert batch.reads[0].row_status.tolist() == [1, 5], (
        "PRESENT, and UNAVAILABLE for who was not read before"
    )
    assert batch.stale == 1 and batch.unavailable
