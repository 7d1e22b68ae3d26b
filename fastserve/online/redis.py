"""``redis://``, ``rediss://`` (TLS) and ``unix://``: Redis 6.2 or newer, or a server that speaks like it.

    redis://[[user]:password@]host[:6379][/db]      rediss://… likewise
    unix://[[user]:password@]/path/to/redis.sock[?db=0]

Options after ``?``: ``socket_timeout`` (2) and ``socket_connect_timeout`` (5), seconds; for TLS
``ssl_ca_certs`` (file), ``ssl_cert_reqs`` (required | optional | none), ``ssl_check_hostname`` (true),
``ssl_certfile`` and ``ssl_keyfile`` (the client's own).

One string a row under the key as it is, expiring by Redis. Reads go through pump.py. Writes run in a
script that compares the stored row's order with the new one's, at most 100 keys a run so that readers
wait less than a millisecond, several runs a round trip; it also publishes the keys that it changed
(changes.py), so an account that writes needs the right to publish there. How durable an acknowledged write is, is up to
the server: ``appendonly yes`` keeps it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError, StoreTimeoutError, StoreUnavailableError
from fastserve.online.base import (
    Lifetimes,
    OnRows,
    Rows,
    check_batch,
    closed_error,
    read_only_error,
)
from fastserve.online.changes import channel_of, pack_keys
from fastserve.online.feed import ChangeFeed
from fastserve.online.pump import Endpoint, Pump, check_version

# The order is 16 bytes, compared as four big-endian u32: Lua's `<` on strings follows the locale, and
# its numbers hold 53 bits. A stored value too short to be a row is not ours and gives way.
NEWEST_WINS: Final = """
local written, changed = 0, {}
for i, key in ipairs(KEYS) do
  local row, px = ARGV[2 * i - 1], ARGV[2 * i]
  local held = redis.call('GETRANGE', key, 8, 23)
  local newer = #held < 16
  if not newer then
    local a, b, c, d = struct.unpack('>I4I4I4I4', row, 9)
    local e, f, g, h = struct.unpack('>I4I4I4I4', held)
    if a ~= e then newer = a > e elseif b ~= f then newer = b > f
    elseif c ~= g then newer = c > g else newer = d > h end
  end
  if newer then
    if px == '0' then redis.call('SET', key, row) else redis.call('SET', key, row, 'PX', px) end
    written = written + 1
    if #key < 65536 then changed[#changed + 1] = struct.pack('<I2', #key) .. key end
  end
end
if #changed > 0 then redis.call('PUBLISH', ARGV[#ARGV], table.concat(changed)) end
return written
"""
_SHA: Final = hashlib.sha1(NEWEST_WINS.encode()).hexdigest()
_MAX_KEYS: Final = 100
_MAX_BYTES: Final = 4 << 20
_CALLS_DEEP: Final = 4
_CONNECTIONS: Final = 4  # of writers; more put_many at a time wait for one
_DELETE_KEYS: Final = 500
_MAX_PX: Final = 10**15  # 31,000 years; Redis refuses what overflows its clock
_GLOB: Final = re.compile(rb"[*?\[\]\\^]")
_OPTIONS: Final = ("socket_timeout", "socket_connect_timeout", "ssl_ca_certs", "ssl_cert_reqs",
                   "ssl_check_hostname", "ssl_certfile", "ssl_keyfile", "db")  # fmt: skip


class RedisStore:
    """See the module's docstring.

    Args:
        url: without password, for messages.
        endpoint: for the reads' connection.
        settings: redis-py's, for the connections of everything else.
        read_only: refuse writes.
    """

    def __init__(self, url: str, endpoint: Endpoint, settings: dict[str, Any], *, read_only: bool) -> None:
        self.url = url
        self.tells_changes = True
        self._label = endpoint.label
        self._channel = channel_of(endpoint.db)
        self._endpoint = endpoint
        self._read_only = read_only
        self._pump = Pump(endpoint)
        self._feeds: list[ChangeFeed] = []
        pool = BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=None, **settings)
        self._client = Redis.from_pool(pool)
        self._known = False  # whether the server's version has been looked at
        self._closed = False

    def get_many(self, keys: Sequence[bytes]) -> asyncio.Future[Rows]:
        """See OnlineStore."""
        return self._pump.get_many(keys)

    def fetch(self, batch: ReadBatch, done: OnRows, now_us: int) -> bool:
        """See OnlineStore."""
        return self._pump.fetcher.fetch(batch, done, now_us)

    def on_changes(self, told: Callable[[bytes], None], listening: Callable[[bool], None]) -> None:
        """See OnlineStore."""
        self._check_open()
        feed = ChangeFeed(self._endpoint, self._channel, self._pump.fetcher, told, listening)
        self._feeds.append(feed)

    async def put_many(
        self, keys: Sequence[bytes], rows: Sequence[bytes], lifetimes_us: Lifetimes = None
    ) -> int:
        """See OnlineStore."""
        self._check_writable()
        keys, rows, lifetimes = check_batch(keys, rows, lifetimes_us)
        calls = list(_calls(keys, rows, lifetimes))
        written = 0
        with self._translated():
            await self._check_server()
            for i in range(0, len(calls), _CALLS_DEEP):
                written += await self._run(calls[i : i + _CALLS_DEEP])
        self._pump.forget(keys)
        return written

    async def _run(self, calls: Sequence[_ScriptCall]) -> int:
        """Run the script for each call in one round trip; load it first where it is unknown."""
        replies = await self._pipe(calls)
        unknown = [isinstance(reply, redis.exceptions.NoScriptError) for reply in replies]
        if any(unknown):
            await self._client.script_load(NEWEST_WINS)
            again = [call for call, miss in zip(calls, unknown, strict=True) if miss]
            known = [reply for reply, miss in zip(replies, unknown, strict=True) if not miss]
            replies = known + await self._pipe(again)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return sum(replies)

    async def _pipe(self, calls: Sequence[_ScriptCall]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                pipe.evalsha(_SHA, len(keys), *keys, *arguments, self._channel)
            return await pipe.execute(raise_on_error=False)

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        """See OnlineStore."""
        self._check_writable()
        deleted = 0
        with self._translated():
            await self._check_server()
            for i in range(0, len(keys), _DELETE_KEYS):
                part = keys[i : i + _DELETE_KEYS]
                async with self._client.pipeline(transaction=False) as pipe:
                    pipe.unlink(*part)
                    pipe.publish(self._channel, pack_keys(part))
                    deleted += (await pipe.execute())[0]
        self._pump.forget(keys)
        return deleted

    async def sweep(self) -> int:
        """See OnlineStore: Redis expires rows by itself."""
        self._check_writable()
        return 0

    async def scan(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """See OnlineStore."""
        self._check_open()
        pattern = _GLOB.sub(rb"\\\g<0>", prefix) + b"*"
        with self._translated():
            await self._check_server()
            async for key in self._client.scan_iter(match=pattern, count=1_000):
                yield key

    async def close(self) -> None:
        """See OnlineStore."""
        if not self._closed:
            self._closed = True
            for feed in self._feeds:
                await feed.close()
            self._pump.close()
            await self._client.aclose()

    async def _check_server(self) -> None:
        if self._known:
            return
        try:
            info = await self._client.info("server")
            check_version(self._label, str(info["redis_version"]))
        except redis.exceptions.NoPermissionError:
            pass  # an account that may not ask; the reads' connection learns it from HELLO
        self._known = True

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error(self.url)

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise read_only_error(self.url)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise StoreError for whatever redis-py raises."""
        try:
            yield
        except redis.exceptions.TimeoutError as error:
            raise StoreTimeoutError(f"Redis at {self._label} did not answer in time") from error
        except redis.exceptions.AuthenticationError as error:
            raise StoreUnavailableError(
                f"Redis at {self._label} refused the login: {error}",
                hint="the URL carries it: redis://:password@host or redis://user:password@host",
            ) from error
        except redis.exceptions.ConnectionError as error:
            raise StoreUnavailableError(
                f"Redis at {self._label} cannot be reached: {error}",
                hint="is redis-server running?",
            ) from error
        except redis.exceptions.RedisError as error:
            hint = ""
            if "channel" in str(error):
                hint = f"an account that writes publishes what it changed: ACL SETUSER … &{self._channel.decode()}"
            raise StoreUnavailableError(f"Redis at {self._label} answered: {error}", hint=hint) from error


_ScriptCall = tuple[Sequence[bytes], list[bytes | int]]


def _calls(keys: Sequence[bytes], rows: Sequence[bytes], lifetimes: Sequence[int]) -> Iterator[_ScriptCall]:
    """The script's runs: up to 100 keys and about 4 MiB each. Arguments: row, milliseconds, …"""
    start = size = 0
    arguments: list[bytes | int] = []
    for i, (row, lifetime) in enumerate(zip(rows, lifetimes, strict=True)):
        if i - start == _MAX_KEYS or (size and size + len(row) > _MAX_BYTES):
            yield keys[start:i], arguments
            start, size, arguments = i, 0, []
        size += len(row)
        arguments += (row, _milliseconds(lifetime))
    if arguments:
        yield keys[start:], arguments


def _milliseconds(lifetime_us: int) -> int:
    """Rounded up; 0 stays 0 (forever), and what is over already gets the shortest life there is."""
    return min(max(-(-lifetime_us // 1_000), 1), _MAX_PX) if lifetime_us else 0


# ---- URL ---------------------------------------------------------------------------------------


def open_redis(url: str, read_only: bool) -> RedisStore:
    """The opener of the schemes.

    Raises:
        ConfigError: for a malformed URL, an unknown option or an unusable certificate.
    """
    settings = _settings(url)
    shown = _without_password(url)
    path = settings.get("path", "")
    if url.startswith("unix://") and not path:
        raise ConfigError("the socket's path is missing", where=shown, hint="unix:///run/redis.sock")
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    endpoint = Endpoint(
        label=path or f"{host}:{port}",
        host=host,
        port=port,
        path=path,
        tls=_tls(settings, shown),
        username=settings.get("username", ""),
        password=settings.get("password", ""),
        db=settings.get("db", 0),
        connect_timeout=settings["socket_connect_timeout"],
        timeout=settings["socket_timeout"],
    )
    # No retries: a caller is told at once, and a batch that is written again is harmless.
    settings |= {"retry": Retry(NoBackoff(), 0), "protocol": 2}
    return RedisStore(shown, endpoint, settings, read_only=read_only)


def _settings(url: str) -> dict[str, Any]:
    """redis-py's settings, checked."""
    shown = _without_password(url)
    try:
        for name in parse_qs(urlsplit(url).query, strict_parsing="?" in url):
            if name not in _OPTIONS:
                raise ConfigError(
                    f"unknown option {name!r}", where=shown, hint=f"one of {', '.join(_OPTIONS)}"
                )
        settings: dict[str, Any] = {
            "socket_timeout": 2.0, "socket_connect_timeout": 5.0, **parse_url(url)
        }  # fmt: skip
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"the URL is malformed: {error}", where=shown) from error
    database = urlsplit(url).path.strip("/")
    if not url.startswith("unix://") and database and not database.isdecimal():
        raise ConfigError(f"{database!r} is no database number", where=shown, hint="redis://host/0")
    return settings


def _tls(settings: dict[str, Any], shown: str) -> Any:
    """redis-py's own TLS context, so that both kinds of connection check the same."""
    if settings.get("connection_class") is not SSLConnection:
        if any(name.startswith("ssl_") for name in settings):
            raise ConfigError("ssl_ options need rediss://", where=shown)
        return None
    own = {name: value for name, value in settings.items() if name.startswith("ssl_")}
    try:
        return SSLConnection(**own).ssl_context.get()
    except (OSError, redis.exceptions.RedisError) as error:
        raise ConfigError(f"the TLS options are unusable: {error}", where=shown) from error


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/?]*@", "***@", url)
