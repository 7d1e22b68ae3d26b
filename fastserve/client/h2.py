"""HTTP/2 on asyncio: a connection (session and transport), and the few connections of a client.

Requests of one loop tick leave in one write. A request goes to the connection with the fewest in flight; another is
opened only when all are full, and only one at a time, so that a burst at the start shares the first.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from fastserve.client.options import Endpoint, Options
from fastserve.client.session import TOO_LARGE, Buffer, HeaderPairs
from fastserve.client.transport import NoHttp2Error, too_large
from fastserve.client.wire import Answer
from fastserve.errors import ServerError, UnreachableError

if TYPE_CHECKING:
    from fastserve.client.session import Session as SessionType

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.client.h2_py import Session
else:
    try:
        from fastserve._native.h2_client import Session
    except ImportError:  # built without libnghttp2
        from fastserve.client.h2_py import Session

__all__ = ["Connection", "H2Transport", "Session"]

PULL_BYTES: Final = 128 * 1024
SILENT_S: Final = (
    2.0  # a connection that owes a sign of life for so long is given up when its place is needed
)
MOVES: Final = 3  # of a request, from connections that end before they take it


class Connection(asyncio.Protocol):
    """One HTTP/2 connection.

    Attributes:
        suspect_since: loop time since which the server owes a sign of life; 0.0 when it does not.
        failure: why it ended, if it did.
    """

    transport: asyncio.Transport

    def __init__(self, pool: H2Transport, session_class: type[SessionType]) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self.session: SessionType = session_class(self, pool.max_answer)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._paused = False
        self._flush_scheduled = False
        self._heard = 0  # data_received calls, ever
        self.lost = False
        self.suspect_since = 0.0
        self.failure: ServerError | UnreachableError | None = None

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit it
        self._flush()

    def data_received(self, data: bytes) -> None:
        if not self._heard and data.startswith(b"HTTP/1."):
            self._fail_all(
                ServerError("it answers in HTTP/1.1 only", where=self._pool.where, hint='http="1.1"')
            )
            self.abort()
            return
        self._heard += 1
        self.suspect_since = 0.0
        self.session.feed(data)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.session.close()
        why = f"the connection was lost: {exc}" if exc else "the server closed the connection"
        self._fail_all(UnreachableError(why, where=self._pool.where, sent=bool(self._waiting)))
        self._pool.forget(self)

    def _fail_all(self, error: ServerError | UnreachableError) -> None:
        self.failure = self.failure or error
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    def _broke(self) -> ServerError:
        why = "the server broke the HTTP/2 protocol, or speaks another"
        return ServerError(why, where=self._pool.where, hint='http="1.1" if it has no HTTP/2')

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # ---- session.Owner ----

    def on_answer(
        self, stream_id: int, status: int, headers: list[tuple[bytes, bytes]], body: Buffer
    ) -> None:
        future = self._waiting.pop(stream_id, None)
        if future is not None and not future.done():
            named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
            future.set_result(Answer(status, named, cast(bytes, body)))

    def on_failed(self, stream_id: int, error_code: int, processed: bool) -> None:
        future = self._waiting.pop(stream_id, None)
        if future is None or future.done():
            return
        if error_code == TOO_LARGE:
            future.set_exception(too_large(self._pool.max_answer))
            return
        if self.session.broken:  # libnghttp2 refuses by itself what it has not sent yet
            future.set_exception(self._broke())
            return
        why = (
            "the server reset the request"
            if processed
            else "the server takes no more requests on this connection"
        )
        where = f"{self._pool.where}, HTTP/2 error code {error_code}"
        future.set_exception(UnreachableError(why, where=where, sent=processed))

    # ---- for the pool ----

    @property
    def usable(self) -> bool:
        """Whether new requests may begin."""
        return not (self.lost or self.session.draining or self.session.broken or self.transport.is_closing())

    @property
    def room(self) -> int:
        """How many more requests the server takes now."""
        return self.session.max_streams - self.session.in_flight

    async def ask(self, headers: HeaderPairs, body: bytes) -> Answer:
        """One request, one answer."""
        heard = self._heard
        try:
            stream_id = self.session.request(headers, body)
        except RuntimeError as error:
            self.abort()
            raise UnreachableError(str(error), where=self._pool.where) from error
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[stream_id] = future
        self._flush_soon()
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(stream_id, None) is not None and not self.lost:
                self.session.cancel(stream_id)
                if heard == self._heard and not self.suspect_since:
                    self.suspect_since = self._loop.time()
                    self.session.ping()
                self._flush_soon()
            raise
        finally:
            self._pool.freed()
            if self.session.draining and not self.session.in_flight:
                self._flush_soon()

    def abort(self) -> None:
        """Cut it off."""
        self.transport.abort()

    def close(self) -> None:
        """Close it; requests in flight fail."""
        self.transport.close()

    # ---- output ----

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self.lost or self.transport.is_closing():
            return
        while not self._paused:
            data = self.session.data_to_send(PULL_BYTES)
            if not data:
                break
            self.transport.write(data)
        if self.session.draining and not self.session.in_flight:
            self.close()
        elif self.session.broken:
            self._fail_all(self._broke())
            self.abort()


class H2Transport:
    """A few HTTP/2 connections to one server; see transport.py.

    Args:
        endpoint: where the server is.
        options: TLS files and limits.
        session_class: the native session unless it is missing.

    Raises:
        ConfigError: the TLS files cannot be loaded.
    """

    def __init__(
        self, endpoint: Endpoint, options: Options, session_class: type[SessionType] = Session
    ) -> None:
        self._endpoint = endpoint
        self._session_class = session_class
        self._max_connections = options.max_connections
        self.max_answer = options.max_answer_bytes
        self.where = str(endpoint)
        self._tls = options.ssl_context("h2") if endpoint.tls else None
        self._connections: set[Connection] = set()
        self._connecting: asyncio.Task[Connection] | None = None
        self._queue: deque[asyncio.Future[None]] = deque()  # requests waiting for room
        self._closed: asyncio.Event | None = None
        self._pseudo = [
            (b":scheme", endpoint.scheme.encode()),
            (b":authority", endpoint.authority.encode("idna" if not endpoint.host.isascii() else "ascii")),
        ]

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One request, one answer.

        A connection may end (GOAWAY) while a request is on its way to it. What the server promises not to have looked
        at, or never left here, goes to another connection at once: no failed attempt, as no server failed.
        """
        pairs = [(b":method", method.encode()), *self._pseudo]
        pairs.append((b":path", (self._endpoint.prefix + path).encode()))
        pairs += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        if body:
            pairs.append((b"content-length", b"%d" % len(body)))
        for moves_left in range(MOVES, -1, -1):
            connection = await self._take()
            try:
                return await connection.ask(pairs, body)
            except UnreachableError as error:
                if error.sent or not connection.session.draining or not moves_left:
                    raise
        raise AssertionError  # the last turn returned or raised

    async def _take(self) -> Connection:
        """A connection with room. No await stands between the choice and the caller's request."""
        while True:
            usable = [c for c in self._connections if c.usable]
            if best := _emptiest([c for c in usable if not c.suspect_since]):
                return best
            if len(usable) >= self._max_connections and self._drop_silent(usable):
                continue
            if len(usable) < self._max_connections or self._connecting is not None:
                await self._connected()
            elif best := _emptiest(usable):
                return best
            else:
                await self._room()

    def _drop_silent(self, usable: list[Connection]) -> bool:
        """Cut off a connection that gave no sign of life for SILENT_S; whether there was one."""
        since = asyncio.get_running_loop().time() - SILENT_S
        for connection in usable:
            if connection.suspect_since and connection.suspect_since < since:
                connection.abort()
                self._connections.discard(connection)
                return True
        return False

    async def _connected(self) -> None:
        """Wait until the connection being made is there; begin one if there is none."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._on_connected)
        connection = await asyncio.shield(self._connecting)
        if connection.failure is not None:  # it ended before anything could be asked
            raise connection.failure

    def _on_connected(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # every waiter has it, and there may be none left

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        try:
            transport, connection = await loop.create_connection(
                lambda: Connection(self, self._session_class), endpoint.host, endpoint.port, ssl=self._tls
            )
        except ssl.SSLCertVerificationError as error:
            raise UnreachableError(
                f"the server's certificate is not trusted: {error.verify_message}",
                where=self.where,
                hint='ca="authorities.pem" names whom to trust',
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"cannot connect: {error}", where=self.where, hint="is the server running there?"
            ) from error
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.abort()
            raise NoHttp2Error
        if not connection.lost:
            self._connections.add(connection)
        return connection

    async def _room(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was woken, and passes it on
                self.freed()
            raise
        finally:
            if waiter in self._queue:
                self._queue.remove(waiter)

    def freed(self) -> None:
        """A request ended: the first that waits for room looks again."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def forget(self, connection: Connection) -> None:
        """The connection is lost: all that wait for room look again."""
        self._connections.discard(connection)
        for _ in range(len(self._queue)):
            self.freed()
        if self._closed is not None and not self._connections:
            self._closed.set()

    async def close(self) -> None:
        """Close all connections; requests in flight fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if not self._connections:
            return
        self._closed = asyncio.Event()
        for connection in list(self._connections):
            connection.close()
        try:
            await asyncio.wait_for(self._closed.wait(), 1.0)
        except TimeoutError:  # TLS says goodbye to a server that does not listen
            for connection in list(self._connections):
                connection.abort()


def _emptiest(connections: list[Connection]) -> Connection | None:
    best = min(connections, key=lambda c: c.session.in_flight, default=None)
    return best if best is not None and best.room > 0 else None
