"""Several processes on one store: races, growth, sudden death, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastserve.errors import StoreError, StoreUnavailableError
from fastserve.online import open_store
from tests.integration.online.rows import Opener, get, row
from tests.servers import RedisServer

ROOT = Path(__file__).parents[3]
N_KEYS = 60

# Writes every key in batches, each with a random stamp; prints the newest stamp it wrote per key.
WRITER = """
import asyncio, random, sys
from fastserve.online import open_store
from tests.integration.online.rows import row

async def main(url, seed, n_keys):
    rng = random.Random(seed)
    store = open_store(url)
    best = [0] * int(n_keys)
    for _ in range(40):
        picks = rng.sample(range(len(best)), 30)
        stamps = [rng.randrange(1, 10**6) for _ in picks]
        payload = bytes([int(seed)]) * rng.randrange(3_000)
        await store.put_many([b"7:%d" % i for i in picks], [row(ts, 0, payload) for ts in stamps])
        for i, ts in zip(picks, stamps):
            best[i] = max(best[i], ts)
    await store.close()
    print(*best)

asyncio.run(main(*sys.argv[1:]))
"""


def spawn(script: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *args], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
async def test_writers_in_two_processes(
    kind: str, tmp_path: Path, plain_redis: RedisServer, open_at: Opener
) -> None:
    """The newest wins between processes too. The LMDB map starts small, so both also grow it, and this
    process, which only reads, follows.
    """
    url = f"lmdb://{tmp_path}/online?map_size=131072" if kind == "lmdb" else f"{plain_redis.url}/7"
    store = open_at(url)
    keys = [b"7:%d" % i for i in range(N_KEYS)]
    assert await get(store, keys) == [None] * N_KEYS
    writers = [spawn(WRITER, url, str(seed), str(N_KEYS)) for seed in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        assert len(await get(store, keys)) == N_KEYS
    bests = [[int(ts) for ts in writer.communicate()[0].split()] for writer in writers]
    found = [r[:24] if r else None for r in await get(store, keys)]
    assert found == [row(max(pair)) for pair in zip(*bests, strict=True)]
    await store.delete_many(keys)
    await store.close()


DIES = """
import asyncio, os, signal, sys
from fastserve.online import open_store
from tests.integration.online.rows import row

async def main(url):
    store = open_store(url)
    await store.put_many([b"7:%d" % i for i in range(500)], [row(i, 0, b"x" * 300) for i in range(500)])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1]))
"""


async def test_lmdb_keeps_what_it_acknowledged_when_the_writer_is_killed(
    tmp_path: Path, open_at: Opener
) -> None:
    url = f"lmdb://{tmp_path}/online"
    with spawn(DIES, url) as process:
        assert process.wait(30) == -signal.SIGKILL
    store = open_at(url)
    found = await get(store, [b"7:%d" % i for i in range(500)])
    assert found == [row(i, 0, b"x" * 300) for i in range(500)]
    assert await store.put_many([b"7:1"], [row(900)]) == 1, "the dead writer's lock is free"
    await store.close()


HOLDS = """
import asyncio, sys
from fastserve.online.lmdb import open_lmdb

store = open_lmdb(sys.argv[1], False)
with store._environment.handle.begin(write=True) as txn:
    txn.put(b"7:1", b"half done")
    print("holding", flush=True)
    sys.stdin.read()
"""


async def test_lmdb_recovers_from_a_writer_killed_inside_its_transaction(
    tmp_path: Path, open_at: Opener
) -> None:
    url = f"lmdb://{tmp_path}/online"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, url], cwd=ROOT, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "holding\n"
        store = open_at(url)
        assert await get(store, [b"7:1"]) == [None], "readers do not wait for a writer"
        holder.kill()
    assert await store.put_many([b"7:1"], [row(1)]) == 1
    assert await get(store, [b"7:1"]) == [row(1)]
    await store.close()


async def test_lmdb_opened_before_a_fork_says_so_and_can_be_opened_anew(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/online"
    store = open_store(url)
    await store.put_many([b"7:1"], [row(1)])
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.raises(StoreError, match="before a fork"):
                store.get_many([b"7:1"])
            own = open_store(url)
            code = 0 if own.get_many([b"7:1"]) == [row(1)] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert await store.put_many([b"7:1"], [row(2)]) == 1
    await store.close()


async def test_lmdb_read_only(tmp_path: Path, open_at: Opener) -> None:
    """A missing file is an error; a handle that only reads and one that writes share the file."""
    url = f"lmdb://{tmp_path}/online"
    with pytest.raises(StoreUnavailableError, match="cannot open") as caught:
        open_at(url, read_only=True)
    assert "materialize" in caught.value.hint
    assert not (tmp_path / "online").exists()
    await open_at(url).close()
    reader = open_at(url, read_only=True)
    assert await get(reader, [b"7:1"]) == [None]
    writer = open_at(url)
    await writer.put_many([b"7:1"], [row(1)])
    await writer.close()
    assert await get(reader, [b"7:1"]) == [row(1)]
    await reader.close()


async def test_lmdb_without_sync(tmp_path: Path, open_at: Opener) -> None:
    store = open_at(f"lmdb://{tmp_path}/deep/down/online?sync=off&map_size=1GiB")
    assert await store.put_many([b"7:1"], [row(1)]) == 1
    assert await get(store, [b"7:1"]) == [row(1)]
    await store.close()


async def test_lmdb_full_disk_or_broken_file_is_a_store_error(tmp_path: Path, open_at: Opener) -> None:
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "data.mdb").write_bytes(b"this is no LMDB file" * 1_000)
    with pytest.raises(StoreUnavailableError, match="cannot open"):
        open_at(f"lmdb://{tmp_path}/online")
