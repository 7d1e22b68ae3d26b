"""Rows exchanged for what was seen: on every store, and against writers that are at it at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from fastserve.batch import ReadBatch
from fastserve.errors import InvalidDataError, StoreError
from fastserve.online import OnlineStore
from tests.integration.online.rows import Opener, get, row
from tests.servers import RedisServer

Handles = Callable[[], OnlineStore]
HELD = [
    None,
    b"",
    b"short",
    row(5, 5, b"seen"),
    row(5, 5, b"other"),
    row(4),
    row(5, 6),
    row(6),
    row(2**40, -1),
]
NEW = [None, row(5, 5, b"new"), row(2**40, 0)]


def expected(held: bytes | None, seen: bytes | None, new: bytes | None) -> tuple[bool, bytes | None]:
    """Whether it is done, and what stands there then."""
    if held == seen:
        return True, new
    if held is None or new is None:
        return False, held
    newer = len(held) < 24 or new[8:24] > held[8:24]
    return newer, new if newer else held


async def plant(store: OnlineStore, url: str, key: bytes, held: bytes | None) -> None:
    """Make a key hold any bytes, also some that no writer of rows would write."""
    if held is None:
        return
    if len(held) >= 24:
        await store.put_many([key], [held])
    elif url.startswith("memory"):
        store._space.rows[key] = (0, held)  # type: ignore[attr-defined]
    elif url.startswith("lmdb"):
        store._environment.write(lambda txn: txn.put(key, b"\xff" * 8 + held))  # type: ignore[attr-defined]
    else:
        await store._client.set(key, held)  # type: ignore[attr-defined]


async def test_every_case(store: OnlineStore, url: str) -> None:
    cases = [(held, seen, new) for held in HELD for seen in HELD for new in NEW]
    keys = [b"7:%d" % i for i in range(len(cases))]
    for key, (held, _, _) in zip(keys, cases, strict=True):
        await plant(store, url, key, held)
    done = await store.exchange_many(keys, [seen for _, seen, _ in cases], [new for _, _, new in cases])
    found = list(zip(done, await get(store, keys), strict=True))
    wanted = [expected(*case) for case in cases]
    assert [(c, f) for c, f, w in zip(cases, found, wanted, strict=True) if f != w] == []


async def test_lifetimes_and_dead_rows(store: OnlineStore) -> None:
    keys = [b"7:1", b"7:2", b"7:3"]
    await store.put_many(keys, [row(5)] * 3, [0, 3_600_000_000, -1])
    assert await store.exchange_many(keys[:2], [row(5)] * 2, [row(4)] * 2, [-1, 0]) == [True, True]
    # A row that is over is as good as none: what was seen while it lived is not there any more.
    assert await store.exchange_many(keys[2:], [row(5)], [row(6)]) == [False]
    assert await store.exchange_many(keys[2:], [None], [row(1)]) == [True]
    while await get(store, keys[:1]) != [None]:
        await asyncio.sleep(0.001)
    assert await get(store, keys) == [None, row(4), row(1)]


async def test_empty_and_wrong_batches(store: OnlineStore, url: str, open_at: Opener) -> None:
    assert await store.exchange_many([], [], []) == []
    for keys, seen, rows in (
        ([b"7:1"], [], [row(1)]),
        ([b"7:1", b"7:1"], [None, None], [row(1), row(2)]),
        ([b"7:1"], [None], [b"short"]),
    ):
        with pytest.raises(InvalidDataError):
            await store.exchange_many(keys, list(seen), list(rows))
    assert await get(store, [b"7:1"]) == [None]
    await store.put_many([b"7:1"], [row(1)])
    with pytest.raises(StoreError):
        await open_at(url, read_only=True).exchange_many([b"7:1"], [row(1)], [None])
    assert await get(store, [b"7:1"]) == [row(1)]


async def test_no_newer_row_is_lost_to_an_exchange(opened: Handles) -> None:
    """One handle puts rows of ever higher order, another one exchanges what it saw for a lower one."""
    writer, mender = opened(), opened()
    keys = [b"7:%d" % i for i in range(300)]
    mended = row(0, 0, b"mended")
    await writer.put_many(keys, [row(0, 1, b"wrong")] * len(keys))
    rng = random.Random(3)
    acknowledged: dict[bytes, bytes] = {}

    async def write() -> None:
        for order in range(1, 60):
            part = rng.sample(keys, 20)
            await writer.put_many(part, [row(order)] * len(part))
            acknowledged.update(dict.fromkeys(part, row(order)))

    writing = asyncio.create_task(write())
    replaced = 0
    while not writing.done():
        part = rng.sample(keys, 40)
        seen = await get(mender, part)
        wrong = [(key, old) for key, old in zip(part, seen, strict=True) if old == row(0, 1, b"wrong")]
        replaced += sum(
            await mender.exchange_many([k for k, _ in wrong], [o for _, o in wrong], [mended] * len(wrong))
        )
        await asyncio.sleep(0)
    await writing
    assert replaced
    found = dict(zip(keys, await get(mender, keys), strict=True))
    assert {key: found[key] for key in acknowledged} == acknowledged


async def test_many_keys_and_large_rows(store: OnlineStore) -> None:
    keys = [b"7:%d" % i for i in range(250)]
    rows = [row(1, i, b"x" * (i % 7) * 20_000) for i in range(250)]
    await store.put_many(keys, rows)
    assert await store.exchange_many(keys, list(rows), [row(0, i) for i in range(250)]) == [True] * 250
    assert await get(store, keys) == [row(0, i) for i in range(250)]


async def test_redis_tells_which_keys_changed(plain_redis: RedisServer, open_at: Opener) -> None:
    store = open_at(plain_redis.url + "/11")
    await store.put_many([b"7:1", b"7:2", b"7:3"], [row(5)] * 3)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    listening: asyncio.Queue[bool] = asyncio.Queue()
    store.on_changes(told.put_nowait, listening.put_nowait)
    assert await listening.get()
    await store.exchange_many([b"7:1", b"7:2", b"7:3"], [row(5), row(4), row(5)], [row(1), row(1), None])
    assert ReadBatch.from_packed(await told.get()).keys() == [b"7:1", b"7:3"]
    assert told.empty()
    async with Redis.from_url(plain_redis.url + "/11") as client:
        await client.flushdb()
        await client.script_flush()  # a server that was restarted knows no script
    assert await store.exchange_many([b"7:1"], [None], [row(1)]) == [True]
    await store.delete_many([b"7:1"])
