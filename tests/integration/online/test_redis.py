"""What is Redis's own: coalescing, scripts, time-outs, logins, servers that go and come back."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fastserve.batch import ReadBatch
from fastserve.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.online import OnlineStore, open_store
from fastserve.online.fetcher_py import SLICE_US
from fastserve.online.pump import Wire
from tests.integration.online.rows import Opener, row
from tests.servers import RedisServer, start_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may kill or pause."""
    server = start_redis(tmp_path, options=("--appendonly", "yes", "--appendfsync", "always"))
    yield server
    server.stop()


@pytest.fixture
async def redis(plain_redis: RedisServer) -> AsyncIterator[Redis]:
    """A client beside the store, on database 5, to look at it and to meddle."""
    client = Redis.from_url(f"{plain_redis.url}/5")
    await client.config_resetstat()
    yield client
    await client.flushdb()
    await client.aclose()


@pytest.fixture
async def store(plain_redis: RedisServer, redis: Redis) -> AsyncIterator[OnlineStore]:
    store = open_store(f"{plain_redis.url}/5")
    yield store
    await store.close()


async def calls_of(client: Redis, command: str) -> int:
    """How often the server ran a command since the test began."""
    stats = await client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def keyspace_reads(client: Redis) -> int:
    stats = await client.info("stats")
    return int(stats["keyspace_hits"]) + int(stats["keyspace_misses"])


async def test_calls_of_one_tick_share_mgets_and_ask_each_key_once(store: OnlineStore, redis: Redis) -> None:
    keys = [b"7:%d" % i for i in range(250)]
    await store.put_many(keys, [row(i) for i in range(250)])
    await store.get_many([b"connect"])
    await redis.config_resetstat()
    futures = [store.get_many(keys[i : i + 40]) for i in range(0, 250, 5)]
    found = await asyncio.gather(*futures)
    assert found == [[row(j) for j in range(i, min(i + 40, 250))] for i in range(0, 250, 5)]
    assert await calls_of(redis, "mget") == 3
    assert await keyspace_reads(redis) == 250


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_replies_that_are_much_work_share_the_loop_with_others(
    tls: bool, plain_redis: RedisServer, tls_redis: RedisServer, open_at: Opener
) -> None:
    store = open_at((tls_redis.url if tls else plain_redis.url).replace("?", "/5?"))
    turns, told, loop = 0, [], asyncio.get_running_loop()
    all_told = loop.create_future()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not all_told.done():
            loop.call_soon(turn)

    def done(error: StoreError | None) -> None:
        told.append((error, turns))
        if len(told) == 8:
            all_told.set_result(None)
        over = time.monotonic_ns() + SLICE_US * 1_000
        while time.monotonic_ns() < over:
            pass

    await store.get_many([b"connect"])
    turn()
    for i in range(8):
        batch = ReadBatch([b"8:%d:%d" % (i, key) for key in range(100)])
        assert not store.fetch(batch, done, 0)
    await all_told
    assert [error for error, _ in told] == [None] * 8
    assert len({at for _, at in told}) == 8, "after a slice of work others have their turn"
    await store.get_many([b"and it reads on"])


async def test_a_later_tick_asks_again(store: OnlineStore) -> None:
    """Read your own writes: a read after an acknowledged write never shares an earlier read."""
    for ts in range(1, 50):
        early = store.get_many([b"7:1"])
        await store.put_many([b"7:1"], [row(ts)])
        assert await store.get_many([b"7:1"]) == [row(ts)]
        assert (await early)[0] in (None, row(ts - 1), row(ts))


async def test_a_cancelled_caller_harms_nobody(store: OnlineStore) -> None:
    keys = [b"7:%d" % i for i in range(150)]
    await store.put_many(keys, [row(i) for i in range(150)])
    futures = [store.get_many(keys) for _ in range(6)]
    futures[0].cancel()
    await asyncio.sleep(0)
    futures[3].cancel()
    for i in (1, 2, 4, 5):
        assert await futures[i] == [row(j) for j in range(150)]
    assert await store.get_many(keys[:1]) == [row(0)]


async def test_who_gave_up_before_there_was_a_connection_is_not_asked_for(
    store: OnlineStore, redis: Redis
) -> None:
    """A server that hung is not greeted with the requests of all that time."""
    gone = [store.get_many([b"gone%d" % i]) for i in range(300)]
    await asyncio.sleep(0)  # the tick is over: their MGETs wait for the connection
    for future in gone:
        future.cancel()
    assert await store.get_many([b"wanted"]) == [None]
    assert await calls_of(redis, "mget") == 1


async def test_no_task_is_made_for_a_read(store: OnlineStore) -> None:
    await store.get_many([b"connect"])
    before = asyncio.all_tasks()
    futures = [store.get_many([b"7:%d" % i]) for i in range(10)]
    assert asyncio.all_tasks() == before
    await asyncio.gather(*futures)


async def test_lifetimes_are_redis_expiries(store: OnlineStore, redis: Redis) -> None:
    await store.put_many([b"7:1", b"7:2", b"7:3"], [row(1)] * 3, [60_000_000, 0, 1_500])
    assert 50_000 < await redis.pttl("7:1") <= 60_000
    assert await redis.pttl("7:2") == -1
    assert await redis.pttl("7:3") <= 2
    await store.put_many([b"7:1"], [row(2)], [0])
    assert await redis.pttl("7:1") == -1
    await store.put_many([b"7:1"], [row(1)], [1_000])
    assert await redis.pttl("7:1") == -1, "a row that lost leaves the winner's life alone"


async def test_at_most_100_keys_and_4_mib_a_script_run(store: OnlineStore, redis: Redis) -> None:
    await redis.script_flush()
    await store.put_many([b"7:%d" % i for i in range(201)], [row(1)] * 201)
    assert [await calls_of(redis, name) for name in ("evalsha", "eval")] == [3, 3], (
        "it had to be told the script"
    )
    await redis.config_resetstat()
    big = row(1, 1, bytes(3 << 20))
    assert await store.put_many([b"8:1", b"8:2", b"8:3"], [big] * 3) == 3
    assert await calls_of(redis, "evalsha") == 3


async def test_the_script_is_loaded_again_after_a_flush(store: OnlineStore, redis: Redis) -> None:
    for ts in (1, 2, 3):
        await redis.script_flush()
        keys = [b"7:%d" % i for i in range(950)]
        assert await store.put_many(keys, [row(ts)] * 950) == 950
    assert await store.get_many([b"7:949"]) == [row(3)]


async def test_what_is_not_ours_gives_way_or_reads_as_absent(store: OnlineStore, redis: Redis) -> None:
    await redis.set("7:short", "hello")
    await redis.hset("7:hash", "a", "b")
    assert await store.get_many([b"7:short", b"7:hash"]) == [b"hello", None]
    assert await store.put_many([b"7:short", b"7:hash"], [row(-5), row(1)]) == 2
    assert await store.get_many([b"7:short", b"7:hash"]) == [row(-5), row(1)]


async def test_a_server_that_dies_and_comes_back(own_redis: RedisServer, open_at: Opener) -> None:
    store = open_at(own_redis.url)
    await store.put_many([b"7:1"], [row(1)])
    assert await store.get_many([b"7:1"]) == [row(1)]
    os.kill(own_redis.pid, signal.SIGSTOP)
    in_flight = store.get_many([b"7:1"])
    await asyncio.sleep(0)
    own_redis.kill()
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1"):
        await in_flight
    with pytest.raises(StoreUnavailableError, match="cannot be reached") as caught:
        await store.get_many([b"7:1"])
    assert "redis-server" in caught.value.hint
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.put_many([b"7:1"], [row(2)])
    own_redis.restart()
    assert await store.get_many([b"7:1"]) == [row(1)]
    assert await store.put_many([b"7:1"], [row(2)]) == 1
    assert await store.get_many([b"7:1"]) == [row(2)]
    await store.close()


async def test_a_server_that_hangs(own_redis: RedisServer, open_at: Opener) -> None:
    """Late replies fail their callers and are never taken for the answer to a later question."""
    store = open_at(f"{own_redis.url}?socket_timeout=0.5&socket_connect_timeout=0.5")
    await store.put_many([b"7:1", b"7:2"], [row(1), row(2)])
    assert await store.get_many([b"7:1"]) == [row(1)]
    os.kill(own_redis.pid, signal.SIGSTOP)
    late = [store.get_many([b"7:1"]), store.get_many([b"7:1", b"7:2"])]
    for future in late:
        with pytest.raises(StoreTimeoutError, match=r"did not answer within 0\.5 s"):
            await future
    with pytest.raises(StoreTimeoutError):
        await store.get_many([b"7:1"])  # the connection went, and the next is not answered either
    with pytest.raises(StoreTimeoutError):
        await store.put_many([b"7:1"], [row(9)])
    os.kill(own_redis.pid, signal.SIGCONT)
    assert await store.get_many([b"7:2"]) == [row(2)]
    await store.close()


async def test_many_callers_of_a_dead_server_all_hear_of_it(own_redis: RedisServer, open_at: Opener) -> None:
    store = open_at(own_redis.url)
    own_redis.kill()
    futures = [store.get_many([b"7:%d" % i]) for i in range(50)]
    errors = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(error) for error in errors} == {StoreUnavailableError}
    assert len(set(map(id, errors))) == 50, "no two callers share an exception and its traceback"
    await store.close()


async def test_close_fails_who_waits(own_redis: RedisServer, open_at: Opener) -> None:
    store = open_at(own_redis.url)
    await store.get_many([b"7:1"])
    os.kill(own_redis.pid, signal.SIGSTOP)
    sent = store.get_many([b"7:1"])
    await asyncio.sleep(0)
    queued = store.get_many([b"7:2"])
    await store.close()
    for future in (sent, queued):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await future


async def test_wrong_password(tls_redis: RedisServer, open_at: Opener) -> None:
    for wrong in (tls_redis.url.replace("s3cret", "wrong"), tls_redis.url.replace(":s3cret%40word@", "")):
        store = open_at(wrong)
        for call in (store.get_many, lambda keys, s=store: s.put_many(keys, [row(1)])):
            with pytest.raises(StoreUnavailableError, match=r"refused the login|NOAUTH") as caught:
                await call([b"7:1"])
            assert "password@host" in caught.value.hint
            assert "%40word" not in str(caught.value) + store.url
        await store.close()


async def test_a_user_with_a_name(plain_redis: RedisServer, redis: Redis, open_at: Opener) -> None:
    await redis.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["7:*"],
                            commands=["+mget", "+select", "+evalsha", "+eval", "+set", "+mset",
                                      "+publish"])  # fmt: skip
    store = open_at(plain_redis.url.replace("//", "//reader:pw@") + "/5")
    with pytest.raises(StoreUnavailableError, match="channel") as refused:
        await store.put_many([b"7:%d" % time.time_ns()], [row(1)])
    assert "&!fastserve:changes:5" in refused.value.hint
    await redis.acl_setuser("reader", enabled=True, channels=["!fastserve:changes:5"])
    assert await store.put_many([b"7:1"], [row(1)]) == 1
    assert await store.get_many([b"7:1"]) == [row(1)]
    with pytest.raises(StoreUnavailableError, match="NOPERM"):
        await store.get_many([b"8:1"])
    await store.close()
    await redis.acl_deluser("reader")


async def test_tls_is_checked(
    tls_redis: RedisServer, plain_redis: RedisServer, tmp_path: Path, open_at: Opener
) -> None:
    port = tls_redis.port
    unknown_ca = open_at(f"rediss://:s3cret%40word@127.0.0.1:{port}")
    other_name = open_at(tls_redis.url.replace("127.0.0.1", "localhost"))
    no_tls_there = open_at(f"rediss://127.0.0.1:{plain_redis.port}?socket_connect_timeout=0.2")
    for store in (unknown_ca, other_name, no_tls_there):
        with pytest.raises(StoreError, match=r"127\.0\.0\.1|localhost"):
            await store.get_many([b"7:1"])
        with pytest.raises(StoreError, match=r"127\.0\.0\.1|localhost"):
            await store.put_many([b"7:1"], [row(1)])
        await store.close()
    for options in ("ssl_cert_reqs=none", f"ssl_ca_certs={tls_redis.directory}/cert.pem"):
        store = open_at(f"rediss://:s3cret%40word@127.0.0.1:{port}?{options}")
        assert await store.get_many([b"7:1"]) == [None]
        await store.close()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n", r"6\.0\.16; .* 6\.2"),
        (b"-ERR unknown command `HELLO`, with args\r\n", r"older than 6\.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RESP"),
        (b"", "closed the connection"),
    ],
)  # fmt: skip
async def test_servers_that_will_not_do(reply: bytes, message: str, open_at: Opener) -> None:
    """Redis before 6.2 is not on this machine, so its answer to HELLO is played back."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        store = open_at(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(StoreUnavailableError, match=message):
            await store.get_many([b"7:1"])
        await store.close()


async def test_what_fails_at_the_first_send_is_told_to_who_waits(
    plain_redis: RedisServer, open_at: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug, as with natives of another version: it must not leave callers waiting for ever."""

    def broken(wire: Wire) -> None:
        raise TypeError("this is a bug")

    told = list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(str(what["exception"])))
    monkeypatch.setattr(Wire, "send", broken)
    store = open_at(plain_redis.url)
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailableError, match="this is a bug"):
            await store.get_many([b"7:1"])
        await store.close()
    gc.collect()
    assert told == ["this is a bug"]


async def test_nothing_is_left_behind(plain_redis: RedisServer, redis: Redis, open_at: Opener) -> None:
    """filterwarnings=error would turn an unclosed socket into a failure here."""
    others = {client["id"] for client in await redis.client_list()}
    store = open_at(plain_redis.url)
    await store.put_many([b"7:1"], [row(1)])
    await store.delete_many([b"7:1"])
    assert await store.get_many([b"7:1"]) == [None]
    opened = {client["id"] for client in await redis.client_list()} - others
    assert len(opened) == 3, "a connection for reads, one for writes, one for the rest"
    await store.close()
    del store
    gc.collect()
    while opened & {client["id"] for client in await redis.client_list()}:
        await asyncio.sleep(0.001)
