"""The change feed of Redis: established, told, lost, back; and what is on its way when a change comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hiredis
import pytest
from redis.asyncio import Redis

from fastserve.batch import ReadBatch
from fastserve.batch.batch_py import CHANGED
from fastserve.errors import StoreError
from fastserve.online import OnlineStore
from fastserve.online.changes import channel_of, pack_keys
from tests.integration.online.rows import Opener, row
from tests.servers import RedisServer, start_redis

CHANNEL = channel_of(0)


def packed(*keys: bytes) -> bytes:
    return pack_keys(keys)


class Heard:
    """What a feed said, in order: messages, True and False."""

    def __init__(self, store: OnlineStore) -> None:
        self._said: asyncio.Queue[bytes | bool] = asyncio.Queue()
        store.on_changes(self._said.put_nowait, self._said.put_nowait)

    async def next(self) -> bytes | bool:
        async with asyncio.timeout(20):
            return await self._said.get()

    def nothing_more(self) -> bool:
        return self._said.empty()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may kill or pause."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def redis(own_redis: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_redis.url)
    yield client
    await client.aclose()


async def test_what_is_published_is_told_in_order(
    own_redis: RedisServer, redis: Redis, open_at: Opener
) -> None:
    heard = Heard(open_at(own_redis.url))
    assert await heard.next() is True
    messages = [packed(b"7:%d" % i, b"8:%d" % i) for i in range(500)]
    for message in messages:
        await redis.publish(CHANNEL, message)
    assert [await heard.next() for _ in messages] == messages
    await redis.publish(channel_of(1), b"another database's")
    await redis.publish(CHANNEL, b"")
    assert await heard.next() == b"" and heard.nothing_more()


async def test_a_database_and_tls_and_a_socket_have_their_feed(
    tls_redis: RedisServer, plain_redis: RedisServer, open_at: Opener
) -> None:
    for url in (tls_redis.url.replace("?", "/3?"), f"{plain_redis.unix_url}?db=3"):
        heard = Heard(open_at(url))
        assert await heard.next() is True
        client = Redis.from_url(url)
        await client.publish(channel_of(3), b"x")
        assert await heard.next() == b"x"
        await client.aclose()


async def test_a_lost_feed_is_told_of_and_comes_back(
    own_redis: RedisServer, redis: Redis, open_at: Opener
) -> None:
    heard = Heard(open_at(own_redis.url))
    assert await heard.next() is True
    await redis.client_kill_filter(_type="pubsub")
    assert [await heard.next(), await heard.next()] == [False, True]
    own_redis.kill()
    assert await heard.next() is False
    own_redis.restart()
    assert await heard.next() is True
    writer = open_at(own_redis.url)
    await writer.put_many([b"7:1"], [row(1)])
    assert await heard.next() == packed(b"7:1")


async def test_a_server_that_hangs_is_a_lost_feed(own_redis: RedisServer, open_at: Opener) -> None:
    heard = Heard(open_at(own_redis.url))
    assert await heard.next() is True
    os.kill(own_redis.pid, signal.SIGSTOP)
    assert await heard.next() is False
    os.kill(own_redis.pid, signal.SIGCONT)
    assert await heard.next() is True


async def test_a_server_that_comes_late(own_redis: RedisServer, open_at: Opener) -> None:
    own_redis.kill()
    store = open_at(own_redis.url)
    heard = Heard(store)
    with pytest.raises(StoreError):
        await store.get_many([b"7:1"])
    own_redis.restart()
    assert await heard.next() is True, "what was never there is not told to be lost"


async def test_a_closed_store_tells_nothing(own_redis: RedisServer, redis: Redis, open_at: Opener) -> None:
    store = open_at(own_redis.url)
    heard = Heard(store)
    assert await heard.next() is True
    await store.close()
    while await redis.client_list(_type="pubsub"):
        await asyncio.sleep(0.001)
    assert heard.nothing_more()
    with pytest.raises(StoreError, match="closed"):
        Heard(store)


async def test_an_account_without_the_channel_reads_on(
    own_redis: RedisServer, redis: Redis, open_at: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.acl_setuser(
        "reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+mget", "+subscribe", "+ping"]
    )
    store = open_at(own_redis.url.replace("//", "//reader:pw@"))
    heard = Heard(store)
    while "NOPERM" not in caplog.text:
        assert await store.get_many([b"7:1"]) == [None]
        await asyncio.sleep(0)
    await redis.acl_setuser("reader", enabled=True, channels=[CHANNEL.decode()])
    assert await heard.next() is True


class Script:
    """A server that answers when it is told to; a Redis cannot be made to wait between two connections."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.port = 0
        self._writers: dict[str, asyncio.StreamWriter] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Script]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers.values():
                writer.close()

    def say(self, who: str, data: bytes) -> None:
        """Bytes for the reader ("MGET") or the subscriber ("SUBSCRIBE")."""
        self._writers[who].write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                name = command[0].decode()
                self._writers[name] = writer
                if name == "HELLO":
                    writer.write(b"*2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n")
                elif name == "SUBSCRIBE":
                    writer.write(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(CHANNEL), CHANNEL))
                elif name == "PING":
                    writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
                elif name == "MGET":
                    self.asked.set()
        writer.close()


def message(payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
        len(CHANNEL),
        CHANNEL,
        len(payload),
        payload,
    )


async def test_a_row_on_its_way_when_the_change_comes_is_flagged(open_at: Opener) -> None:
    async with Script().running() as script:
        store = open_at(f"redis://127.0.0.1:{script.port}")
        heard = Heard(store)
        assert await heard.next() is True
        early, answered = ReadBatch([b"7:1", b"7:2"]), asyncio.Event()
        assert not store.fetch(early, lambda error: early.own() or answered.set(), 1)
        async with asyncio.timeout(20):
            await script.asked.wait()
        script.asked.clear()
        script.say("SUBSCRIBE", message(packed(b"7:2", b"7:9")))
        assert await heard.next() == packed(b"7:2", b"7:9")
        late = store.get_many([b"7:1", b"7:2"])
        async with asyncio.timeout(20):
            await script.asked.wait()
        script.say("MGET", b"*2\r\n$1\r\na\r\n$3\r\nold\r\n*1\r\n$3\r\nnew\r\n")
        async with asyncio.timeout(20):
            assert await late == [b"a", b"new"], "only the changed key is asked again"
            await answered.wait()
        assert (early.rows(), early.flags()) == ([b"a", b"old"], [0, CHANGED])
        await store.close()


@pytest.mark.parametrize("garbage", [message(b"\x05\x00ab"), b"*x\r\n", b"+surprise\r\n"])
async def test_a_feed_that_cannot_be_read_is_lost(garbage: bytes, open_at: Opener) -> None:
    async with Script().running() as script:
        store = open_at(f"redis://127.0.0.1:{script.port}")
        heard = Heard(store)
        assert await heard.next() is True
        pending = store.get_many([b"7:1"])
        async with asyncio.timeout(20):
            await script.asked.wait()
        script.say("SUBSCRIBE", garbage)
        if garbage == message(b"\x05\x00ab"):
            assert await heard.next() == b"\x05\x00ab", "who keeps rows must know that they cannot be right"
        assert [await heard.next(), await heard.next()] == [False, True]
        script.say("MGET", b"*1\r\n$-1\r\n")
        assert await pending == [None]
        await store.close()


async def test_a_write_of_this_process_is_seen_by_its_next_read(
    open_at: Opener, own_redis: RedisServer
) -> None:
    """However late the answer to an earlier question is."""
    store = open_at(own_redis.url)
    for ts in range(1, 100):
        early = store.get_many([b"7:1"])
        await store.put_many([b"7:1"], [row(ts)])
        assert await store.get_many([b"7:1"]) == [row(ts)]
        await early
