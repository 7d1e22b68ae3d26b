"""``redis://``, ``rediss://`` (TLS) and ``unix://``: Redis 6.2 or newer, or a server that speaks like it.

    redis://[[user]:password@]host[:6379][/db]      rediss://… likewise
    unix://[[user]:password@]/path/to/redis.sock[?db=0]

Options after ``?``: ``socket_timeout`` (2) and ``socket_connect_timeout`` (5), seconds; for TLS
``ssl_ca_certs`` (file), ``ssl_cert_reqs`` (required | optional | none), ``ssl_check_hostname`` (true),
``ssl_certfile`` and ``ssl_keyfile`` (the client's own).

One string a row under the key as it is, expiring by Redis. Reads and writes have a connection each (pump.py): what
is asked is in fetcher_py.py, what is written, and why no older row replaces a newer one, in writer.py. Writes publish
the keys that they changed (changes.py), so an account that writes needs the right to publish there. redis-py does what
is not hot, and is loaded once there is such: most runs of the materializer need none of it. How durable an acknowledged
write is, is up to the server: ``appendonly yes`` keeps it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError, StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.online.base import (
    Lifetimes,
    OnRows,
    Opened,
    Rows,
    check_batch,
    lifetimes_of,
)
from fastserve.online.changes import channel_of, pack_keys
from fastserve.online.exchange import EXCHANGE, check_exchange, script_calls
from fastserve.online.pump import Endpoint, Line, Pump, check_version
from fastserve.online.writer import Writer

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from fastserve.online.feed import ChangeFeed

T = TypeVar("T")

_CONNECTIONS: Final = 4  # of redis-py
_TIMEOUTS: Final = {"socket_timeout": 2.0, "socket_connect_timeout": 5.0}
_DELETE_KEYS: Final = 500
_MAX_PX: Final = 10**15  # 31,000 years; Redis refuses what overflows its clock
_GLOB: Final = re.compile(rb"[*?\[\]\\^]")
_OPTIONS: Final = ("socket_timeout", "socket_connect_timeout", "ssl_ca_certs", "ssl_cert_reqs",
                   "ssl_check_hostname", "ssl_certfile", "ssl_keyfile", "db")  # fmt: skip


class RedisStore(Opened):
    """See the module's docstring.

    Args:
        url: without password, for messages.
        endpoint: for the reads' connection.
        connect: makes redis-py's client, for everything else.
        read_only: refuse writes.
    """

    def __init__(
        self, url: str, endpoint: Endpoint, connect: Callable[[], Redis], *, read_only: bool
    ) -> None:
        super().__init__(url, read_only=read_only)
        self.tells_changes = True
        self._label = endpoint.label
        self._channel = channel_of(endpoint.db)
        self._endpoint = endpoint
        self._pump = Pump(endpoint)
        self._writes = Line(endpoint, partial(Writer, endpoint.label, self._channel))
        self._feeds: list[ChangeFeed] = []
        self._connect = connect
        self._known = False  # whether the server's version has been looked at

    @cached_property
    def _client(self) -> Redis:
        return self._connect()

    @cached_property
    def _exchange(self) -> Any:
        return self._client.register_script(EXCHANGE)

    def get_many(self, keys: Sequence[bytes]) -> asyncio.Future[Rows]:
        """See OnlineStore."""
        return self._pump.get_many(keys)

    def get_fresh(self, keys: Sequence[bytes]) -> asyncio.Future[Rows]:
        """See OnlineStore."""
        self._pump.forget(ReadBatch(keys))
        return self._pump.get_many(keys)

    def fetch(self, batch: ReadBatch, done: OnRows, now_us: int) -> bool:
        """See OnlineStore."""
        return self._pump.fetcher.fetch(batch, done, now_us)

    def on_changes(self, told: Callable[[bytes], None], listening: Callable[[bool], None]) -> None:
        """See OnlineStore."""
        from fastserve.online.feed import ChangeFeed  # noqa: PLC0415  (a server's)

        self._check_open()
        feed = ChangeFeed(self._endpoint, self._channel, self._pump.fetcher, told, listening)
        self._feeds.append(feed)

    async def put_many(
        self, keys: Sequence[bytes], rows: Sequence[bytes], lifetimes_us: Lifetimes = None
    ) -> int:
        """See OnlineStore."""
        keys, rows, lifetimes = check_batch(keys, rows, lifetimes_us)
        batch = ReadBatch(keys)
        batch.fill(rows, 0)
        return await self.put_batch(batch, lifetimes)

    async def put_batch(self, batch: ReadBatch, lifetimes_us: Lifetimes = None) -> int:
        """See OnlineStore."""
        self._check_writable()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._writes.talker.write(batch, _milliseconds(lifetimes_us), partial(_resolve, done))
        written = await done
        self._pump.forget(batch)
        return written

    async def exchange_many(
        self, keys: Sequence[bytes], seen: Rows, rows: Rows, lifetimes_us: Lifetimes = None
    ) -> list[bool]:
        """See OnlineStore."""
        self._check_writable()
        check_exchange(keys, seen, rows, lifetimes_us)
        lives = _milliseconds(lifetimes_us)
        px = lifetimes_of(lives, len(keys))
        done: list[int] = []
        with self._translated():
            await self._check_server()
            for part, words in script_calls(keys, seen, rows, px):
                done += await self._exchange(keys=part, args=[self._channel, *words])
        self._pump.forget(ReadBatch(keys))
        return [bool(one) for one in done]

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
        self._pump.forget(ReadBatch(keys))
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
            self._writes.close()
            if "_client" in self.__dict__:
                await self._client.aclose()

    async def _check_server(self) -> None:
        if self._known:
            return
        import redis.exceptions  # noqa: PLC0415

        try:
            info = await self._client.info("server")
            check_version(self._label, str(info["redis_version"]))
        except redis.exceptions.NoPermissionError:
            pass  # an account that may not ask; the reads' connection learns it from HELLO
        self._known = True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise StoreError for whatever redis-py raises."""
        import redis.exceptions  # noqa: PLC0415

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


def _resolve(future: asyncio.Future[int], error: StoreError | None, written: int) -> None:
    if future.done():  # the caller gave up
        return
    if error is None:
        future.set_result(written)
    else:
        future.set_exception(error)


def _milliseconds(lifetimes_us: Lifetimes) -> npt.NDArray[np.int64] | None:
    """Rounded up; 0 stays 0 (for ever), and what is over already gets the shortest life there is."""
    if lifetimes_us is None:
        return None
    if not isinstance(lifetimes_us, np.ndarray):
        lifetimes_us = np.array([lifetime or 0 for lifetime in lifetimes_us], np.int64)
    if not lifetimes_us.any():
        return None
    lives = np.clip(lifetimes_us // 1_000 + (lifetimes_us % 1_000 > 0), 1, _MAX_PX)
    lives[lifetimes_us == 0] = 0
    return lives


# ---- URL ---------------------------------------------------------------------------------------


def open_redis(url: str, read_only: bool) -> RedisStore:
    """The opener of the schemes.

    Raises:
        ConfigError: for a malformed URL, an unknown option or an unusable certificate.
    """
    shown = _without_password(url)
    endpoint = _endpoint(url, shown)
    if url.startswith("unix://") and not endpoint.path:
        raise ConfigError("the socket's path is missing", where=shown, hint="unix:///run/redis.sock")
    return RedisStore(shown, endpoint, partial(_client, url), read_only=read_only)


def check_url(url: str) -> str:
    """The URL without its password, for messages, of whoever connects by redis-py itself.

    Raises:
        ConfigError: as of open_redis.
    """
    shown = _without_password(url)
    _endpoint(url, shown)
    return shown


def _endpoint(url: str, shown: str) -> Endpoint:
    """The server, as redis-py reads the URL; checked."""
    try:
        parts, options = urlsplit(url), _options(url, shown)
        path = unquote(parts.path) if parts.scheme == "unix" else ""
        host, port = unquote(parts.hostname or "localhost"), parts.port or 6379
        connect, timeout = (
            _cast(float, options, name, _TIMEOUTS[name])
            for name in ("socket_connect_timeout", "socket_timeout")
        )
        db = _cast(int, options, "db", None)
    except ValueError as error:
        raise ConfigError(f"the URL is malformed: {error}", where=shown) from error
    if db is None:
        db = 0 if path else _database(parts, shown)
    return Endpoint(
        label=path or f"{host}:{port}",
        host=host,
        port=port,
        path=path,
        tls=_tls(url, options, shown),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        db=db,
        connect_timeout=connect,
        timeout=timeout,
    )


def _options(url: str, shown: str) -> dict[str, str]:
    found = parse_qs(urlsplit(url).query, strict_parsing="?" in url)
    for name in found:
        if name not in _OPTIONS:
            raise ConfigError(f"unknown option {name!r}", where=shown, hint=f"one of {', '.join(_OPTIONS)}")
    return {name: texts[0] for name, texts in found.items()}


def _cast(kind: Callable[[str], T], options: dict[str, str], name: str, default: T) -> T:
    if name not in options:
        return default
    try:
        return kind(options[name])
    except ValueError:
        raise ValueError(f"{name}={options[name]} is no number") from None


def _database(parts: SplitResult, shown: str) -> int:
    text = parts.path.strip("/")
    if parts.scheme == "unix" or not text:
        return 0
    if not text.isdecimal():
        raise ConfigError(f"{text!r} is no database number", where=shown, hint="redis://host/0")
    return int(text)


def _client(url: str) -> Redis:
    """redis-py's client. It does not retry: a caller is told at once, and a batch that is written again is harmless."""
    from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415
    from redis.asyncio.connection import parse_url  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    settings: dict[str, Any] = {**_TIMEOUTS, **parse_url(url), "retry": Retry(NoBackoff(), 0), "protocol": 2}
    return Redis.from_pool(BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=None, **settings))


def _tls(url: str, options: dict[str, str], shown: str) -> Any:
    """redis-py's own TLS context, so that both kinds of connection check the same."""
    if not url.startswith("rediss://"):
        if any(name.startswith("ssl_") for name in options):
            raise ConfigError("ssl_ options need rediss://", where=shown)
        return None
    from redis.asyncio.connection import SSLConnection, parse_url  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    own: dict[str, Any] = {n: value for n, value in parse_url(url).items() if n.startswith("ssl_")}
    try:
        return SSLConnection(**own).ssl_context.get()
    except (OSError, RedisError) as error:
        raise ConfigError(f"the TLS options are unusable: {error}", where=shown) from error


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/?]*@", "***@", url)
