"""More than a server can do, and a store that stops: a real server before a real Redis, asked over HTTP/2."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.client.aio import open_transport
from fastserve.client.options import Endpoint, Options
from fastserve.client.transport import Transport
from fastserve.client.wire import Answer
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.timeutil import format_timestamp
from tests.servers import RedisServer, serving, start_redis
from tests.support import NOW_US, make_repo, put

FEATURES = """
from fastserve import Entity, FeatureService, FeatureView, Field
user = Entity("user", join_keys="user_id", dtype="int64")
stats = FeatureView("stats", entities=[user], schema=[Field("clicks", "int64")])
ranking = FeatureService("ranking", features=[stats])
"""
USERS = 500
PRESENT, UNAVAILABLE = 1, 5
UNTIL_S = 30.0


@dataclass
class Place:
    """A repo and its Redis, which has a row for each user: ten clicks times its id."""

    repo: Path
    redis: RedisServer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    redis = start_redis(tmp_path, options=("--appendonly", "yes", "--appendfsync", "always"))
    try:
        repo = make_repo(tmp_path / "repo", FEATURES, online_store=redis.url)
        with FeatureStore(repo) as store:
            snapshot = store.apply().snapshot

        async def fill() -> None:
            online = open_store(redis.url)
            await claim(online, snapshot.registry_id)
            await put(
                online, snapshot.view("stats"), [{"user_id": i, "clicks": 10 * i} for i in range(USERS)]
            )
            await online.close()

        asyncio.run(fill())
        yield Place(repo, redis)
    finally:
        redis.process.send_signal(signal.SIGCONT)
        redis.stop()


class Client:
    """Asks a server, and does not ask again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def ask(self, ids: list[int], deadline_ms: int = 0) -> tuple[int, dict[str, Any], Answer]:
        """(status, JSON, the answer) of a read."""
        body = json.dumps({"feature_service": "ranking", "entities": {"user_id": ids}}).encode()
        headers = {"content-type": "application/json"}
        headers |= {"fastserve-deadline-ms": str(deadline_ms)} if deadline_ms else {}
        answer = await self._transport.send("POST", "/online-features/batch", headers, body)
        return answer.status, json.loads(answer.body), answer

    async def metric(self, name: str) -> float:
        """A figure of /metrics."""
        answer = await self._transport.send("GET", "/metrics", {}, b"")
        lines = bytes(answer.body).decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"fastserve_{name}{{"))

    async def until(self, name: str, least: float) -> None:
        """Look at a figure until it is so high."""
        end = time.monotonic() + UNTIL_S
        while await self.metric(name) < least:
            assert time.monotonic() < end, f"{name} stays below {least}"
            await asyncio.sleep(0.01)

    async def until_answered(self, ids: list[int]) -> dict[str, Any]:
        """Ask until all values are there; the JSON of that answer."""
        end = time.monotonic() + UNTIL_S
        while (found := (await self.ask(ids))[1])["values"] != clicks(ids):
            assert time.monotonic() < end, found
            await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def asking(repo: Path, *options: str) -> AsyncIterator[Client]:
    """A client of a server of its own."""
    with serving(repo, "--clock", format_timestamp(NOW_US), *options) as (port, _):
        options_ = Options(http="2", max_connections=1)
        transport = open_transport(Endpoint.parse(f"http://127.0.0.1:{port}"), options_)
        try:
            yield Client(transport)
        finally:
            await transport.close()


def clicks(ids: list[int]) -> list[list[int]]:
    return [[10 * i for i in ids]]


async def test_beyond_its_limit_a_server_refuses_at_once_and_answers_what_it_admitted(place: Place) -> None:
    ids = list(range(USERS))
    async with asking(place.repo, "--max-queue-ms", "1") as client:
        await client.until("cache_feed_up", 1)
        assert (await client.ask(ids))[1]["values"] == clicks(ids)
        answers = await asyncio.gather(*(client.ask(ids * 10) for _ in range(100)))  # sent in one piece
        found = [status for status, _, _ in answers]
        assert set(found) == {200, 429} and found[0] == 200
        for status, body, answer in answers:
            if status == 200:
                assert body["values"] == clicks(ids * 10)
            else:
                assert answer.headers["retry-after"] == "1" and body["error"]["code"] == "overloaded"
        assert await client.metric("admission_refused_total") == found.count(429)
        assert (await client.ask(ids))[0] == 200, "back to normal"


async def test_at_the_deadline_there_is_what_is_there(place: Place) -> None:
    async with asking(place.repo) as client:
        await client.until("cache_feed_up", 1)
        await client.ask([1])
        place.redis.process.send_signal(signal.SIGSTOP)
        status, body, _ = await client.ask([1, 2], deadline_ms=300)
        assert status == 200
        assert body["values"] == [[10, None]] and body["statuses"] == [[PRESENT, UNAVAILABLE]]
        assert "in time" in body["metadata"]["unavailable"]
        place.redis.process.send_signal(signal.SIGCONT)
        assert (await client.ask([1, 2]))[1]["values"] == [[10, 20]]


async def test_a_store_that_hangs_is_left_alone_until_it_answers_again(place: Place) -> None:
    async with asking(place.repo, "--deadline-ms", "50", "--cache-mb", "0") as client:
        await client.until_answered([3])
        place.redis.process.send_signal(signal.SIGSTOP)
        for _ in range(10):
            assert (await client.ask([3]))[1]["statuses"] == [[UNAVAILABLE]]
        assert await client.metric("store_breaker_open") == 1
        late = await client.metric("store_late_total")
        why = [(await client.ask([3]))[1]["metadata"]["unavailable"] for _ in range(20)]
        assert any("failed lately" in reason for reason in why)
        assert await client.metric("store_late_total") - late < 20, (
            "most were answered without asking the store"
        )
        place.redis.process.send_signal(signal.SIGCONT)
        await client.until_answered([3])
        assert await client.metric("store_breaker_open") == 0


async def test_while_the_store_is_down_old_rows_are_answered_and_flagged(place: Place) -> None:
    async with asking(place.repo) as client:
        await client.until("cache_feed_up", 1)
        await client.ask([1])
        place.redis.kill()
        await client.until("cache_feed_lost_total", 1)
        _, body, _ = await client.ask([1, 2])
        assert body["values"] == [[10, None]] and body["statuses"] == [[PRESENT, UNAVAILABLE]]
        assert body["metadata"]["stale_rows"] == 1 and body["metadata"]["unavailable"]
        place.redis.restart()
        found = await client.until_answered([1, 2])
        assert "stale_rows" not in found["metadata"]
