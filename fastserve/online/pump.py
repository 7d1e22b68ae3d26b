"""A connection to Redis of our own, made when there is something to ask and renewed by itself: a Line.

What is asked and what the replies mean is a Talker's: the Fetcher's for reads (fetcher_py.py), the Writer's for writes
(writer.py). Here are sockets, logins and time-outs. When the connection breaks or a reply is late, everybody who waits
on it fails and the next call connects anew; the connection goes, because a late reply would answer a later question.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast

import hiredis

from fastserve.batch import ReadBatch
from fastserve.errors import CodecError, StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.online.base import Rows, closed_error
from fastserve.online.fetcher import Fetcher

MIN_VERSION: Final = (6, 2)

ErrorFactory: TypeAlias = Callable[[], StoreError]
LATE_AGAIN_S: Final = 0.01


class Talker(Protocol):
    """What is said on a connection, without I/O. Replies come in the order of the requests."""

    @property
    def queued(self) -> int:
        """Whether there is anything to send, as a number."""
        ...

    @property
    def waiting_since(self) -> float | None:
        """The loop's time when the oldest request without a reply was sent; None: all are answered."""
        ...

    def requests(self, now: float) -> bytes:
        """What is to be sent; it counts as sent from here on."""
        ...

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; see asyncio.BufferedProtocol."""
        ...

    def buffer_updated(self, size: int) -> bool:
        """Take the bytes. True: enough for one turn of the loop; call it again in the next one, with 0.

        CodecError: they are no reply; the connection is of no use any more.
        """
        ...

    def fail_sent(self, make_error: ErrorFactory) -> None:
        """The connection is lost: who waits for its replies fails. What is queued stays so."""
        ...

    def fail_all(self, make_error: ErrorFactory) -> None:
        """There is no connection: all who wait fail."""
        ...

    def close(self, make_error: ErrorFactory) -> None:
        """All who wait fail, and so does every later call."""
        ...


T = TypeVar("T", bound=Talker)


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

    def commands(self) -> list[tuple[Any, ...]]:
        """What logs in: HELLO also tells the version, and needs no permission."""
        hello: tuple[Any, ...] = ("HELLO", "2")
        if self.password:
            hello = (*hello, "AUTH", self.username or "default", self.password)
        return [hello, ("SELECT", str(self.db))] if self.db else [hello]


class _Login(asyncio.Protocol):
    """The first seconds of a connection: what logs in is sent, `replies` resolves with the answers."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._endpoint = endpoint
        self._commands = endpoint.commands()
        self._reader = hiredis.Reader()
        self._answers: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        wire.write(b"".join(hiredis.pack_command(command) for command in self._commands))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._answers.append(reply)
        except hiredis.ProtocolError as error:
            self._fail(f"Redis at {self._endpoint.label} does not speak RESP: {error}")
        if len(self._answers) == len(self._commands) and not self.replies.done():
            self.replies.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"Redis at {self._endpoint.label} closed the connection")

    def _fail(self, text: str) -> None:
        if not self.replies.done():
            self.replies.set_exception(StoreUnavailableError(text))


class Wire(asyncio.BufferedProtocol):
    """One connection that is logged in: bytes from the Talker and to it.

    Args:
        endpoint: the server.
        talker: what is said.
        on_lost: called once, at the moment it is of no use any more.
    """

    def __init__(self, endpoint: Endpoint, talker: Talker, on_lost: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._talker = talker
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        """Send what is queued."""
        assert self._transport is not None
        requests = self._talker.requests(self._loop.time())
        if requests:
            self._transport.write(requests)
        if self._timer is None:
            self._timer = self._loop.call_later(self._endpoint.timeout, self._check_time)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._talker.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._take(nbytes):
            assert self._transport is not None
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _take(self, nbytes: int) -> bool:
        """Whether more than one turn's worth has come."""
        if self._transport is None:
            return False
        try:
            return self._talker.buffer_updated(nbytes) and self._transport is not None
        except CodecError as error:
            text = f"Redis at {self._endpoint.label} does not speak RESP: {error}"
            self.drop(lambda: StoreUnavailableError(text))
            return False

    def _read_on(self) -> None:
        if self._take(0):
            self._loop.call_soon(self._read_on)
        elif self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        label = self._endpoint.label
        self.drop(lambda: StoreUnavailableError(f"Redis at {label} closed the connection"))

    def drop(self, reason: ErrorFactory) -> None:
        """End the connection; who waits for its replies fails for this reason."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._on_lost()
        transport.abort()
        self._talker.fail_sent(reason)

    def _check_time(self, late: float | None = None) -> None:
        """Look whether a reply is overdue.

        Args:
            late: the request that was overdue a moment ago. Only who is late twice is: when this process was held up,
                the reply may have come, and is read in between.
        """
        self._timer = None
        since = self._talker.waiting_since
        if since is None:
            return
        left = since + self._endpoint.timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_time)
        elif since != late:
            self._timer = self._loop.call_later(LATE_AGAIN_S, self._check_time, since)
        else:
            label, timeout = self._endpoint.label, self._endpoint.timeout
            self.drop(lambda: StoreTimeoutError(f"Redis at {label} did not answer within {timeout:g} s"))


async def connect(endpoint: Endpoint) -> asyncio.Transport:
    """Connect and log in. The transport is paused: give it a protocol, then resume reading.

    Raises:
        StoreUnavailableError: when the server cannot be reached, refuses or is too old.
        StoreTimeoutError: when it does not answer in time.
    """
    loop = asyncio.get_running_loop()
    login = _Login(endpoint)
    transport: Any = None
    try:
        async with asyncio.timeout(endpoint.connect_timeout):
            if endpoint.path:
                transport, _ = await loop.create_unix_connection(lambda: login, endpoint.path)
            else:
                transport, _ = await loop.create_connection(
                    lambda: login, endpoint.host, endpoint.port, ssl=endpoint.tls
                )
            _check_login(endpoint.label, await login.replies)
        transport.pause_reading()
        return cast(asyncio.Transport, transport)
    except BaseException as error:
        if transport is not None:
            transport.abort()
        told = _translated(endpoint, error)
        if told is None:
            raise
        raise told from error


def attach(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Hand what `connect` has made to the protocol that is to have it."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()


def _translated(endpoint: Endpoint, error: BaseException) -> StoreError | None:
    """What the caller is told of what happened while connecting, if it is another error."""
    if isinstance(error, StoreError):  # some are OSErrors, too
        return None
    if isinstance(error, TimeoutError):
        return StoreTimeoutError(
            f"Redis at {endpoint.label} did not answer within {endpoint.connect_timeout:g} s",
            hint="is the address right, and the port open?",
        )
    if isinstance(error, ssl.SSLError):
        return StoreUnavailableError(
            f"the TLS handshake with Redis at {endpoint.label} failed: {error}",
            hint="?ssl_ca_certs=ca.pem names the CA; redis:// is without TLS",
        )
    if isinstance(error, OSError):
        return StoreUnavailableError(
            f"Redis at {endpoint.label} cannot be reached: {error}", hint="is redis-server running?"
        )
    return None


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


class Line(Generic[T]):
    """One connection, which makes and renews itself when its talker has something to say.

    Args:
        endpoint: the server.
        make_talker: called with what wakes the line.

    Attributes:
        talker: what is said.
    """

    def __init__(self, endpoint: Endpoint, make_talker: Callable[[Callable[[], None]], T]) -> None:
        self._endpoint = endpoint
        self.talker = make_talker(self._wake)
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Drop the connection; who waits gets StoreUnavailableError."""
        label = self._endpoint.label
        if self._connecting is not None:
            self._connecting.cancel()
        self.talker.close(lambda: closed_error(label))
        if self._wire is not None:
            self._wire.drop(lambda: closed_error(label))

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._wire is not None:
            self._wire.send()
        elif self.talker.queued and self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            transport = await connect(self._endpoint)
            self._connecting = None
            self._wire = Wire(self._endpoint, self.talker, self._lost)
            attach(transport, self._wire)
            self._wire.send()
        except StoreError as error:
            self._connecting = None
            kind, message, hint = type(error), error.message, error.hint
            self.talker.fail_all(lambda: kind(message, hint=hint))
        except Exception as error:
            # A bug, but one that must not leave the callers waiting.
            self._connecting = None
            text = f"Redis at {self._endpoint.label}: {error!r}"
            if self._wire is not None:
                self._wire.drop(lambda: StoreUnavailableError(text))
            self.talker.fail_all(lambda: StoreUnavailableError(text))
            raise

    def _lost(self) -> None:
        self._wire = None


class Pump(Line[Fetcher]):
    """The line for reads.

    Args:
        endpoint: the server.

    Attributes:
        fetcher: what is asked; its `fetch` is the store's.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, lambda wake: Fetcher(endpoint.label, wake))
        self.fetcher = self.talker

    def get_many(self, keys: Sequence[bytes]) -> asyncio.Future[Rows]:
        """The rows of the keys, None where there is none.

        Raises:
            StoreUnavailableError: at once when the pump was closed, else through the future.
        """
        future: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        batch = ReadBatch(keys)

        def done(error: StoreError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(batch.rows())
            else:
                future.set_exception(error)

        if self.talker.fetch(batch, done, 0):
            future.set_result(batch.rows())
        else:
            future.add_done_callback(lambda _: batch.abandon())
        return future

    def forget(self, keys: ReadBatch) -> None:
        """These keys were written: no later read shares an answer that may be older."""
        if self.talker.waiting_since is not None:
            self.talker.forget(keys)
