"""A bulk load into Redis, killed again and again while others push: it ends as if nothing had happened to it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.online import OnlineStore, open_store
from tests.integration.materializer.repo import DAY, SCHEMA, T0, TIME, Repo
from tests.integration.online.rows import row
from tests.servers import RedisServer, start_redis

KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "4"))
USERS = 20_000
N_DAYS = 3
NOW = T0 + 30 * DAY
ARGS = ("--incremental", "--now", "2013-01-31", "--target", "online")


@pytest.fixture(scope="module")
def source(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two thirds of the users on each of three days, some twice, in shuffled order."""
    repo = Repo.at(applied / "forever").copy(tmp_path_factory.mktemp("crash-redis") / "source")
    rng = np.random.default_rng(2)
    n = N_DAYS * USERS * 2 // 3
    events = pa.array(T0 + rng.integers(0, N_DAYS * 24 * 60, n) * 60_000_000).cast(TIME)
    columns = {
        "user": pa.array(rng.integers(0, USERS, n)).cast(pa.string()),
        "event_timestamp": events,
        "created": events,
        "amount": rng.random(n),
        "visits": pa.array(rng.integers(0, 9, n), mask=rng.random(n) < 0.3),
        "city": pa.array(rng.choice(["Köln", "Rome", "Llanfairpwllgwyngyll"], n)),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), repo.path / "data" / "a.parquet")
    return repo


@pytest.fixture(scope="module")
def undisturbed(source: Repo) -> dict[bytes, bytes]:
    """What one run in peace leaves, in another kind of store."""
    repo = source.copy(source.path.parent / "undisturbed")
    repo.materialize(NOW, incremental=True, target="online")
    return repo.online_rows()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    started = start_redis(tmp_path)
    yield started
    started.stop()


async def test_killed_loads_and_pushes(
    source: Repo, undisturbed: dict[bytes, bytes], server: RedisServer, tmp_path: Path
) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    repo = source.copy(tmp_path / "killed", server.url)
    keys = KeyEncoder(repo.view().view_id, ["string"]).encode([[str(i) for i in range(USERS)]], USERS)
    pushed = {key: row(NOW + 1, 0, b"pushed") for key in rng.sample(keys, USERS // 50)}
    stale = {key: row(T0 - DAY, 0, b"stale") for key in rng.sample(sorted(undisturbed), USERS // 50)}
    told: set[bytes] = set()
    store = open_store(server.url)
    listening: asyncio.Queue[bool] = asyncio.Queue()
    store.on_changes(lambda message: told.update(ReadBatch.from_packed(message).keys()), listening.put_nowait)
    assert await listening.get()
    kills = 0
    async with Redis.from_url(server.url) as client:
        pushes = asyncio.create_task(push(store, list(pushed.items()) + list(stale.items()), rng))
        while kills < KILLS:
            kills += await killed(repo, client, rng)
            if await client.dbsize() >= len(undisturbed):  # it got through: from the beginning
                kept = [key async for key in store.scan() if key not in pushed]
                await store.delete_many(kept)
                repo = source.copy(tmp_path / f"killed-{kills}", server.url)
        await pushes
    code, _, err = await asyncio.to_thread(repo.cli, *ARGS)
    assert code == 0, err
    wanted = {**stale, **undisturbed, **pushed}
    found = await rows_of(store)
    assert found.keys() >= undisturbed.keys() | pushed.keys()
    assert {key: held for key, held in found.items() if held != wanted[key]} == {}
    assert told >= found.keys() and listening.empty(), "every key that is there was told"
    await store.close()


async def push(store: OnlineStore, rows: list[tuple[bytes, bytes]], rng: random.Random) -> None:
    """Rows of others, newer and older ones, a few at a time, until each was pushed."""
    rng.shuffle(rows)
    for start in range(0, len(rows), 10):
        part = rows[start : start + 10]
        await store.put_many([key for key, _ in part], [held for _, held in part])
        await asyncio.sleep(rng.uniform(0, 0.1))


async def killed(repo: Repo, client: Redis, rng: random.Random) -> bool:
    """Run until the store has so many keys, and kill -9; False when the run was done before."""
    process = repo.start(*ARGS)
    enough = await client.dbsize() + rng.randrange(1, USERS // 3)
    try:
        while await client.dbsize() < enough:
            if process.poll() is not None:
                return False
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
    return process.returncode == -9


async def rows_of(store: OnlineStore) -> dict[bytes, bytes]:
    keys = [key async for key in store.scan() if not key.startswith(b"!")]
    rows = store.get_many(keys)
    found = await rows if isinstance(rows, asyncio.Future) else rows
    return {key: held for key, held in zip(keys, found, strict=True) if held is not None}
