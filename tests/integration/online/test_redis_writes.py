"""Bulk writes to Redis: fresh rows without comparing, and still no older row replaces a newer one.

Whatever two writers do at the same time, and wherever one of them is killed: per key the largest order stays, what was
acknowledged is there, no reader sees a key go back, and every changed key is published.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from fastserve.batch import ReadBatch
from fastserve.errors import StoreUnavailableError
from fastserve.online import OnlineStore
from fastserve.online.changes import channel_of
from fastserve.online.writer import ASK_EVERY, FRESH_KEYS, SCRIPT_KEYS
from tests.integration.online.rows import Opener, row
from tests.servers import RedisServer

ROOT = Path(__file__).parents[3]
DB = 9
N = 5_000
KEYS = [b"7:%d" % i for i in range(N)]


@pytest.fixture
async def redis(plain_redis: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(f"{plain_redis.url}/{DB}")
    await client.flushdb()
    await client.config_resetstat()
    yield client
    await client.flushdb()
    await client.aclose()


@pytest.fixture
def store(plain_redis: RedisServer, redis: Redis, open_at: Opener) -> OnlineStore:
    return open_at(f"{plain_redis.url}/{DB}")


def batch(keys: Sequence[bytes], rows: Sequence[bytes]) -> ReadBatch:
    made = ReadBatch(keys)
    made.fill(list(rows), 0)
    return made


async def calls(client: Redis) -> dict[str, int]:
    """Commands since the last reset -> how often."""
    stats = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in stats.items()}


async def test_a_first_load_is_not_compared_and_the_next_one_is(store: OnlineStore, redis: Redis) -> None:
    assert await store.put_batch(batch(KEYS, [row(5, i) for i in range(N)])) == N
    first = await calls(redis)
    assert first["msetnx"] >= (N - 50 * SCRIPT_KEYS) // FRESH_KEYS and first["msetnx"] == first["exec"]
    assert await store.get_many(KEYS) == [row(5, i) for i in range(N)]
    await redis.config_resetstat()
    assert await store.put_batch(batch(KEYS, [row(6, i % 2) for i in range(N)])) == N
    assert await store.put_batch(batch(KEYS, [row(6, 1)] * N)) == N // 2
    assert await store.put_batch(batch(KEYS, [row(4, 9)] * N)) == 0
    assert await store.get_many(KEYS) == [row(6, 1)] * N
    again = await calls(redis)
    tries = 1 + 3 * (N // SCRIPT_KEYS) // ASK_EVERY
    assert again.get("msetnx", 0) <= tries + 1_048_576 // (FRESH_KEYS * 60), (
        "once rows are in the way it asks rarely"
    )


async def test_fresh_rows_have_their_lifetimes(store: OnlineStore, redis: Redis) -> None:
    lives = np.array([0, 60_000_000, 1, -5] * (N // 4), np.int64)
    await store.put_batch(batch([b"8:%d" % i for i in range(2_000)], [row(1)] * 2_000))  # it has asked
    await redis.config_resetstat()
    assert await store.put_batch(batch(KEYS, [row(1)] * N), lives) == N
    assert (await calls(redis))["exec"] > 1
    assert await redis.pttl("7:0") == await redis.pttl(KEYS[-4]) == -1
    for key in (KEYS[1], KEYS[-3]):
        assert 0 < await redis.pttl(key) <= 60_000
    for key in (KEYS[2], KEYS[3], KEYS[-1]):
        assert await redis.pttl(key) <= 1
    assert await store.put_batch(batch(KEYS[:1000], [row(2)] * 1000), lives[:1000][::-1]) == 1000
    assert 0 < await redis.pttl(KEYS[2]) <= 60_000 and await redis.pttl(KEYS[3]) == -1


@pytest.mark.parametrize("expire", [False, True])
async def test_rows_in_the_way_are_compared(store: OnlineStore, redis: Redis, expire: bool) -> None:
    await store.put_batch(batch([b"8:%d" % i for i in range(2_000)], [row(1)] * 2_000))  # it has asked
    rng = random.Random(3)
    held = {i: rng.choice([4, 5, 6]) for i in rng.sample(range(N), N // 150)}
    await store.put_many([KEYS[i] for i in held], [row(held[i], 0, b"held") for i in held])
    lives = np.full(N, 3_600_000_000, np.int64) if expire else None
    newer = N - sum(stamp >= 5 for stamp in held.values())
    assert await store.put_batch(batch(KEYS, [row(5, 0, b"new")] * N), lives) == newer
    wanted = [row(held[i], 0, b"held") if held.get(i, 0) >= 5 else row(5, 0, b"new") for i in range(N)]
    assert await store.get_many(KEYS) == wanted


async def test_every_change_is_told_and_a_row_that_lost_is_not(
    store: OnlineStore, redis: Redis, open_at: Opener, plain_redis: RedisServer
) -> None:
    said: asyncio.Queue[bytes | bool] = asyncio.Queue()
    open_at(f"{plain_redis.url}/{DB}").on_changes(said.put_nowait, said.put_nowait)
    assert await said.get() is True
    await store.put_batch(batch(KEYS, [row(5)] * N))
    assert await told(redis, said) == sorted(KEYS)
    other = open_at(f"{plain_redis.url}/{DB}")  # does not know of a first load
    await other.put_batch(batch(KEYS, [row(4 + i % 2 * 2) for i in range(N)]))
    compared = await told(redis, said)
    assert set(compared) >= set(KEYS[1::2])
    assert len(compared) <= N // 2 + FRESH_KEYS, (
        "a fresh command that found rows in its way tells all of its keys"
    )


async def told(redis: Redis, said: asyncio.Queue[bytes | bool]) -> list[bytes]:
    """The keys told since the last time, sorted."""
    await redis.publish(channel_of(DB), b"\3\0end")
    keys: list[bytes] = []
    while not keys or keys[-1] != b"end":
        message = await said.get()
        assert isinstance(message, bytes)
        keys += ReadBatch.from_packed(message).keys()
    return sorted(set(keys) - {b"end"})


async def test_an_account_without_transactions_uses_the_script(
    plain_redis: RedisServer, redis: Redis, open_at: Opener
) -> None:
    commands = ["+mget", "+select", "+evalsha", "+eval", "+set", "+mset", "+publish"]
    await redis.acl_setuser(
        "loader", enabled=True, passwords=["+pw"], keys=["7:*"], commands=commands, channels=["!fastserve:*"]
    )
    store = open_at(plain_redis.url.replace("//", "//loader:pw@") + f"/{DB}")
    assert await store.put_batch(batch(KEYS, [row(1)] * N)) == N
    assert await store.get_many(KEYS) == [row(1)] * N
    await redis.acl_deluser("loader")


async def test_a_server_without_room_says_so(store: OnlineStore, redis: Redis) -> None:
    used = int((await redis.info("memory"))["used_memory"])
    await redis.config_set("maxmemory", used + 300_000)
    try:
        with pytest.raises(StoreUnavailableError, match="OOM"):
            await store.put_batch(batch(KEYS, [row(1, 0, bytes(500))] * N))
    finally:
        await redis.config_set("maxmemory", 0)
    assert await store.put_batch(batch(KEYS, [row(2, 0, bytes(500))] * N)) == N


async def test_batches_that_are_written_at_once_do_not_mix(store: OnlineStore) -> None:
    parts = [[b"%d:%d" % (n, i) for i in range(1_500)] for n in range(7)]
    counts = await asyncio.gather(
        *(store.put_batch(batch(part, [row(n)] * 1_500)) for n, part in enumerate(parts)),
        *(store.put_many([part[0], b"9:%d" % n], [row(0), row(1)]) for n, part in enumerate(parts[1:])),
    )
    assert sum(counts[:7]) + sum(counts[7:]) >= 7 * 1_500 + 6
    for n, part in enumerate(parts):
        assert await store.get_many(part) == [row(n)] * 1_500


async def test_a_caller_that_gives_up_leaves_no_trace(store: OnlineStore) -> None:
    task = asyncio.create_task(store.put_batch(batch(KEYS, [row(1)] * N)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.put_batch(batch(KEYS, [row(2)] * N)) == N


# Writes the same keys again and again; says what it is about to write, and that it was acknowledged.
LOADER = """
import asyncio, json, random, sys
from fastserve.batch import ReadBatch
from fastserve.online import open_store
from tests.integration.online.rows import row

async def main(url, seed, n_keys, bulk):
    rng = random.Random(int(seed))
    store = open_store(url)
    for turn in range(30):
        n = int(n_keys) if bulk == "bulk" else 40
        picks = rng.sample(range(int(n_keys)), n)
        stamps = [rng.randrange(1, 10**6) for _ in picks]
        rows = [row(ts, int(seed), b"%d" % ts * 40) for ts in stamps]
        print(json.dumps([picks, stamps]), flush=True)
        batch = ReadBatch([b"7:%d" % i for i in picks])
        batch.fill(rows, 0)
        await store.put_batch(batch)
        print("acknowledged", flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", [1])
async def test_racing_writers_of_which_some_are_killed(
    seed: int, store: OnlineStore, redis: Redis, plain_redis: RedisServer, tmp_path: Path
) -> None:
    """Two bulk loads and two pushers on the same keys, from an empty store; one of each is killed on the way."""
    url, n, rng = f"{plain_redis.url}/{DB}", 2_000, random.Random(seed)
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    writers = []
    for i, log in enumerate(logs):
        arguments = [LOADER, url, str(i), str(n), "bulk" if i < 2 else "push"]
        with log.open("wb") as out:
            writers.append(subprocess.Popen([sys.executable, "-c", *arguments], cwd=ROOT, stdout=out))
    keys, seen = KEYS[:n], [b""] * n
    doomed = {0: rng.randint(1, 12), 2: rng.randint(1, 12)}
    while any(writer.poll() is None for writer in writers):
        for i, (key, now) in enumerate(zip(keys, await store.get_many(keys), strict=True)):
            order = b"" if now is None else now[8:24]
            assert order >= seen[i], f"{key!r} went back"
            seen[i] = order
        for i, acknowledged in doomed.items():
            if logs[i].read_text().count("acknowledged") >= acknowledged:
                writers[i].kill()
    assert [writer.wait() for writer in writers][1::2] == [0, 0]
    check_what_is_left(logs, await store.get_many(keys))


def check_what_is_left(logs: Sequence[Path], found: Sequence[bytes | None]) -> None:
    """Per key the largest order of what was acknowledged, or of what a killed writer may have written beyond."""
    least, possible = [b""] * len(found), [set[bytes]() for _ in found]
    for seed, log in enumerate(logs):
        lines = log.read_text().splitlines()
        for i, line in enumerate(lines):
            if line == "acknowledged" or not line.endswith("]]"):
                continue
            acknowledged = lines[i + 1 : i + 2] == ["acknowledged"]
            for pick, stamp in zip(*json.loads(line), strict=True):
                made = row(stamp, seed, b"%d" % stamp * 40)
                possible[pick].add(made)
                if acknowledged:
                    least[pick] = max(least[pick], made[8:24])
    for i, now in enumerate(found):
        assert now is not None and now in possible[i] and now[8:24] >= least[i]
