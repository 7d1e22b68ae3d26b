"""Every store of the contract, each behind the URL a user would write."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import uvloop

from fastserve.online import OnlineStore, open_store
from tests.integration.online.rows import Opener
from tests.servers import RedisServer, start_redis

_numbers = itertools.count()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test here runs on both event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("plain"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("tls"), tls=True, password="s3cret@word")
    yield server
    server.stop()


@pytest.fixture(params=["memory", "lmdb", "redis", "unix", "rediss"])
async def url(
    request: pytest.FixtureRequest, tmp_path: Path, plain_redis: RedisServer, tls_redis: RedisServer
) -> AsyncIterator[str]:
    """An empty store's URL; rediss has a password and database 3."""
    urls = {
        "memory": f"memory://contract{next(_numbers)}",
        "lmdb": f"lmdb://{tmp_path}/online?map_size=1MiB",
        "redis": plain_redis.url,
        "unix": f"{plain_redis.unix_url}?db=1",
        "rediss": tls_redis.url.replace("?", "/3?"),
    }
    url = urls[request.param]
    yield url
    if request.param in ("redis", "unix", "rediss"):
        store = open_store(url)
        await store.delete_many([key async for key in store.scan()])
        await store.close()


@pytest.fixture
async def open_at() -> AsyncIterator[Opener]:
    """open_store, but closed at the end: uvloop never ends closing a loop that has open sockets when
    warnings are errors.
    """
    stores: list[OnlineStore] = []

    def open_one(url: str, *, read_only: bool = False) -> OnlineStore:
        stores.append(open_store(url, read_only=read_only))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
def opened(url: str, open_at: Opener) -> Callable[[], OnlineStore]:
    """Opens the store, as often as called."""
    return partial(open_at, url)


@pytest.fixture
async def store(opened: Callable[[], OnlineStore]) -> OnlineStore:
    return opened()
