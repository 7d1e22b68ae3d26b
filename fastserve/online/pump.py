"""Reads from Redis: the keys of all calls of one loop tick share a few MGETs on one connection.

    calls of a tick      [k1 k2]  [k2 k3]  [k4 … k250]         each with the future its caller holds
    MGETs                [k1 … k100]  [k101 … k200]  [k201 … k250]     every key once
    replies              in the order of the MGETs; a call's future resolves with its last MGET

No task is made for a call: data_received resolves the futures. A call that was cancelled is skipped
when its reply comes. When the connection breaks or a reply is late, every call that waits on it fails
and the next one connects anew; the connection goes, because a late reply would answer a later MGET.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast

import hiredis

from fastserve.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.online.base import Rows, closed_error

MAX_MGET_KEYS: Final = 100  # more, and client and server take turns instead of overlapping
MIN_VERSION: Final = (6, 2)

ErrorFactory: TypeAlias = Callable[[], StoreError]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Redis server and how to log in.

    Attributes:
        label: ``host:port`` or the socket's path, for messages.
        host, port: for TCP.
        path: of a unix socket, or ''.
        tls: for TLS, else None.
        username, password: '' for none.
        db: the database's number.
        connect_timeout, timeout: seconds to connect, and to wait for a reply.
    """

    label: str
    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    username: str
    password: str
    db: int
    connect_timeout: float
    timeout: float

    def commands(self) -> list[tuple[str, ...]]:
        """What logs in: HELLO also tells the version, and needs no permission."""
        hello: tuple[str, ...] = ("HELLO", "2")
        if self.password:
            hello = (*hello, "AUTH", self.username or "default", self.password)
        return [hello, ("SELECT", str(self.db))] if self.db else [hello]


class _Waiter(Protocol):
    """What waits for one reply."""

    def done(self, reply: Any) -> None: ...
    def failed(self, error: ErrorFactory) -> None: ...


@dataclass(slots=True)
class _Answer:
    """A reply to a command of the login."""

    future: asyncio.Future[Any]

    def done(self, reply: Any) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def failed(self, error: ErrorFactory) -> None:
        if not self.future.done():
            self.future.set_exception(error())


@dataclass(slots=True)
class _Call:
    """One get_many: `missing` of its MGETs have not been answered."""

    keys: Sequence[bytes]
    future: asyncio.Future[Rows]
    missing: int = 0


@dataclass(slots=True)
class _Chunk:
    """One MGET. `found` is shared by the MGETs of a tick."""

    label: str
    found: dict[bytes, bytes | None]
    keys: list[bytes] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)

    def done(self, reply: Any) -> None:
        if not isinstance(reply, list):
            self.failed(_refusal(self.label, reply))
            return
        self.found.update(zip(self.keys, reply, strict=True))
        for call in self.calls:
            call.missing -= 1
            if not call.missing and not call.future.done():
                call.future.set_result([self.found[key] for key in call.keys])

    def failed(self, error: ErrorFactory) -> None:
        for call in self.calls:
            if not call.future.done():
                call.future.set_exception(error())


def _refusal(label: str, reply: object) -> ErrorFactory:
    return lambda: StoreUnavailableError(f"Redis at {label} answered: {reply}")


def split(calls: Iterable[_Call], label: str) -> list[_Chunk]:
    """The MGETs that answer the calls: every key once, at most MAX_MGET_KEYS in each."""
    chunks: list[_Chunk] = []
    asked: dict[bytes, _Chunk] = {}
    found: dict[bytes, bytes | None] = {}
    for call in calls:
        last: _Chunk | None = None
        for key in call.keys:
            chunk = asked.get(key)
            if chunk is None:
                if not chunks or len(chunks[-1].keys) == MAX_MGET_KEYS:
                    chunks.append(_Chunk(label, found))
                chunk = asked[key] = chunks[-1]
                chunk.keys.append(key)
            if chunk is not last and (not chunk.calls or chunk.calls[-1] is not call):
                chunk.calls.append(call)
                call.missing += 1
            last = chunk
    return chunks


class Wire(asyncio.Protocol):
    """One connection. Replies come in the order of the commands."""

    def __init__(self, endpoint: Endpoint, on_lost: Callable[[Wire], None]) -> None:
        self._endpoint = endpoint
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, _Waiter]] = deque()  # (sent at, who)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._reason: ErrorFactory | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def send(self, commands: Iterable[tuple[Any, ...]], waiters: Iterable[_Waiter]) -> None:
        """Write commands; their replies go to the waiters."""
        now = self._loop.time()
        self._waiting.extend((now, waiter) for waiter in waiters)
        assert self._transport is not None
        self._transport.write(b"".join(hiredis.pack_command(command) for command in commands))
        if self._timer is None:
            self._timer = self._loop.call_later(self._endpoint.timeout, self._check_time)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._waiting.popleft()[1].done(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            text = f"Redis at {self._endpoint.label} does not speak RESP: {error}"
            self.abort(lambda: StoreUnavailableError(text))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        label = self._endpoint.label
        reason = self._reason or (lambda: StoreUnavailableError(f"Redis at {label} closed the connection"))
        self._on_lost(self)
        while self._waiting:
            self._waiting.popleft()[1].failed(reason)

    def abort(self, reason: ErrorFactory) -> None:
        """Drop the connection; who waits fails for this reason."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def _check_time(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + self._endpoint.timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_time)
            return
        label, timeout = self._endpoint.label, self._endpoint.timeout
        self.abort(lambda: StoreTimeoutError(f"Redis at {label} did not answer within {timeout:g} s"))


async def connect(endpoint: Endpoint, on_lost: Callable[[Wire], None]) -> Wire:
    """Connect and log in.

    Raises:
        StoreUnavailableError: when the server cannot be reached, refuses or is too old.
        StoreTimeoutError: when it does not answer in time.
    """
    loop = asyncio.get_running_loop()
    wire = Wire(endpoint, on_lost)
    try:
        async with asyncio.timeout(endpoint.connect_timeout):
            if endpoint.path:
                await loop.create_unix_connection(lambda: wire, endpoint.path)
            else:
                await loop.create_connection(lambda: wire, endpoint.host, endpoint.port, ssl=endpoint.tls)
            commands = endpoint.commands()
            answers = [_Answer(loop.create_future()) for _ in commands]
            wire.send(commands, answers)
            replies = await asyncio.gather(*(answer.future for answer in answers))
            _check_login(endpoint.label, replies)
    except TimeoutError as error:
        wire.abort(_refusal(endpoint.label, "too late"))
        raise StoreTimeoutError(
            f"Redis at {endpoint.label} did not answer within {endpoint.connect_timeout:g} s",
            hint="is the address right, and the port open?",
        ) from error
    except ssl.SSLError as error:
        raise StoreUnavailableError(
            f"the TLS handshake with Redis at {endpoint.label} failed: {error}",
            hint="?ssl_ca_certs=ca.pem names the CA; redis:// is without TLS",
        ) from error
    except StoreUnavailableError:
        wire.abort(_refusal(endpoint.label, "refused"))
        raise
    except OSError as error:
        raise StoreUnavailableError(
            f"Redis at {endpoint.label} cannot be reached: {error}", hint="is redis-server running?"
        ) from error
    return wire


def _check_login(label: str, replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if "unknown command" in text:
                raise too_old(label, "older than 6.0")
            hint = ""
            if text.startswith(("WRONGPASS", "NOAUTH", "ERR AUTH")):
                hint = "the URL carries it: redis://:password@host or redis://user:password@host"
            raise StoreUnavailableError(f"Redis at {label} refused the login: {text}", hint=hint)
    hello = replies[0]
    version = dict(zip(hello[::2], hello[1::2], strict=False)).get(b"version", b"0")
    check_version(label, version.decode())


def check_version(label: str, version: str) -> None:
    """Raise StoreUnavailableError for a server older than MIN_VERSION."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < MIN_VERSION:
        raise too_old(label, version)


def too_old(label: str, version: str) -> StoreUnavailableError:
    """The error for an old server."""
    wanted = ".".join(map(str, MIN_VERSION))
    return StoreUnavailableError(
        f"Redis at {label} is {version}; fastserve needs {wanted} or newer", hint="upgrade Redis"
    )


class Pump:
    """get_many over one connection, which it makes and renews by itself.

    Args:
        endpoint: the server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._calls: list[_Call] = []  # of this tick
        self._chunks: list[_Chunk] = []  # until there is a connection
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    def get_many(self, keys: Sequence[bytes]) -> asyncio.Future[Rows]:
        """The rows of the keys, None where there is none.

        Raises:
            StoreUnavailableError: at once when the pump was closed, else through the future.
        """
        if self._closed:
            raise closed_error(self._endpoint.label)
        loop = asyncio.get_running_loop()
        call = _Call(keys, loop.create_future())
        if not keys:
            call.future.set_result([])
            return call.future
        if not self._calls:
            loop.call_soon(self._flush)
        self._calls.append(call)
        return call.future

    def close(self) -> None:
        """Drop the connection; who waits gets StoreUnavailableError."""
        self._closed = True
        label = self._endpoint.label
        self._fail(split(self._calls, label) + self._chunks, lambda: closed_error(label))
        self._calls, self._chunks = [], []
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.abort(lambda: closed_error(label))

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        self._chunks += split(calls, self._endpoint.label)
        if self._wire is not None:
            self._send()
        elif self._chunks and self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def _send(self) -> None:
        # Connecting takes seconds with a server that hangs: who gave up meanwhile needs no answer.
        chunks = [c for c in self._chunks if not all(call.future.done() for call in c.calls)]
        self._chunks = []
        if chunks and self._wire is not None:
            self._wire.send([("MGET", *chunk.keys) for chunk in chunks], chunks)

    async def _connect(self) -> None:
        try:
            self._wire = await connect(self._endpoint, self._lost)
            self._send()
        except StoreError as error:
            kind, message, hint = type(error), error.message, error.hint
            self._fail_queued(lambda: kind(message, hint=hint))
        except Exception as error:
            # A bug, but one that must not leave the callers waiting.
            self._fail_queued(_refusal(self._endpoint.label, repr(error)))
            raise
        finally:
            self._connecting = None

    def _fail_queued(self, error: ErrorFactory) -> None:
        chunks, self._chunks = self._chunks, []
        self._fail(chunks, error)

    def _lost(self, wire: Wire) -> None:
        if self._wire is wire:
            self._wire = None

    @staticmethod
    def _fail(chunks: Iterable[_Chunk], error: ErrorFactory) -> None:
        for chunk in chunks:
            chunk.failed(error)
