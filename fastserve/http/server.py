"""One listening port: HTTP/2 with prior knowledge, HTTP/1.1, and both over TLS with ALPN.

    server = Server(handler, limits=Limits(), ssl_context=None)
    await server.start("127.0.0.1", 6566)
    ...
    await server.drain(10.0)

A fresh connection is a `Sniffer`: it shakes hands where there is TLS, and the first bytes (or ALPN) decide which
protocol takes over. It counts as a connection from when it is accepted.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from fastserve.errors import ConfigError
from fastserve.http.connection import NOTICE_S, Connection, Context
from fastserve.http.gate import Gate
from fastserve.http.h1 import H1Connection
from fastserve.http.h2 import H2Connection, Session
from fastserve.http.limits import Limits
from fastserve.http.message import Handler
from fastserve.http.stats import Stats

if TYPE_CHECKING:
    from fastserve.http.session import Session as SessionType

T = TypeVar("T")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BACKLOG = 1024
PATIENCE: Final = 0.8  # share of a drain's time that an idle client of a replaced server is waited for
SWEEP_SLICE = 64  # connections looked at before others have their turn: thousands of idle ones delay nobody


class Begun(Generic[T]):
    """A coroutine that has run up to where it first waits: what it does before that is done now, not in a later tick.

    Args:
        work: it has to wait at least once.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._waits_for = work.send(None)

    async def finish(self) -> T:
        """Its result."""
        return await self

    def __await__(self) -> Generator[Any, Any, T]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    told = yield waits_for
                except BaseException as error:
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(told)
        except StopIteration as end:
            return cast(T, end.value)


class Sniffer(Connection):
    """A connection before its protocol is known."""

    def __init__(
        self, context: Context, session_class: type[SessionType], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(context)
        self._session_class = session_class
        self._tls = tls
        self._handshake: asyncio.Task[asyncio.Transport | None] | None = None  # while it is under way
        self._first = b""
        self._made_at = self.loop.time()
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        stats, context = self.stats, self.context
        stats.connections += 1
        stats.open_connections += 1
        if stats.open_connections > self.limits.max_connections or context.closed:
            stats.rejected += 1
            if not context.closed:
                self.note_end("too_many")
            self.abort()
        elif self._tls is not None:
            self._shake_hands(self._tls)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone:
            self._gone = True
            self._end_handshake()
            super().connection_lost(exc)

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        """Put TLS between the transport and us, before the first byte is read."""
        patience_s = 2 * self.limits.header_timeout_s  # it is `check` that ends one that takes too long
        begun = Begun(
            self.loop.start_tls(self.transport, self, tls, server_side=True, ssl_handshake_timeout=patience_s)
        )
        self._handshake = self.loop.create_task(begun.finish())
        self._handshake.add_done_callback(self._on_shaken)

    def _on_shaken(self, handshake: asyncio.Task[asyncio.Transport | None]) -> None:
        self._handshake = None
        transport = None if handshake.cancelled() or handshake.exception() else handshake.result()
        if transport is None or self._gone:
            self.connection_lost(None)  # of a handshake that failed TLS tells nobody
            return
        self.transport, first, self._first = transport, self._first, b""
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            self._become(H2Connection(self.context, self._session_class), first)
        elif first:
            self.data_received(first)

    def _end_handshake(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()

    def data_received(self, data: bytes) -> None:
        first = self._first = self._first + data
        if self._handshake is not None:
            return  # it came with the last message of the handshake, which is told a moment later
        if first.startswith(PREFACE[: len(first)]) and len(first) < len(PREFACE):
            return  # may still become either: the preface begins like a request line
        if first.startswith(PREFACE):
            self._become(H2Connection(self.context, self._session_class), first)
        else:
            self._become(H1Connection(self.context), first)

    def _become(self, successor: Connection, first: bytes) -> None:
        self.context.connections.discard(self)
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)
        if first:
            successor.data_received(first)
        if self.context.draining and not successor.closing:
            successor.drain(patient=True)  # it has just said something

    def flush(self) -> None:
        pass

    def check(self, now: float) -> None:
        if now - self._made_at > self.limits.header_timeout_s:
            self.stats.rejected += 1
            self.note_end("slow_head")
            self.abort()

    def abort(self) -> None:
        self._end_handshake()
        super().abort()

    def drain(self, patient: bool = False) -> None:
        if self._handshake is None and not patient and self.loop.time() - self._made_at > NOTICE_S:
            self.abort()

    def finish_drain(self) -> None:
        if self._handshake is None:  # a client that is let in may ask
            self.abort()


class Server:
    """Serves `handler` on one port.

    Args:
        handler: see fastserve/http/message.py.
        limits: bounds and time-outs.
        gate: shut by who knows the load; always open without one.
        ssl_context: from `make_ssl_context`; None serves cleartext.
        session_class: the HTTP/2 session; the native one unless it is missing.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        gate: Gate | None = None,
        ssl_context: ssl.SSLContext | None = None,
        session_class: type[SessionType] = Session,
    ) -> None:
        self.handler = handler
        self.limits = Limits() if limits is None else limits
        self.gate = gate
        self.ssl_context = ssl_context
        self.session_class = session_class
        self._context: Context | None = None
        self._listeners: list[asyncio.AbstractServer] = []
        self._sweeper: asyncio.Handle | None = None
        self._due: list[Connection] = []  # not yet looked at in this sweep

    # ---- start ----

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        reuse_port: bool = False,
        sock: socket.socket | None = None,
    ) -> None:
        """Listen on host:port (0: a free one), or on a bound `sock`, and serve until drained.

        Raises:
            ConfigError: the address is taken, unknown or not allowed.
        """
        loop = asyncio.get_running_loop()
        self._context = Context(self.handler, self.limits, loop, self.gate)
        try:
            sock = bind(host, port, reuse_port) if sock is None else sock
        except OSError as error:
            raise bind_error(host, port, error) from error
        try:
            await self.listen(sock)
        except OSError as error:  # another socket of ours listens on it since
            sock.close()
            raise bind_error(host, port, error) from error
        self._sweep()

    async def listen(self, sock: socket.socket) -> Callable[[], None]:
        """Accept on a bound socket too, and own it; what ends that and leaves the accepted connections be."""
        context = self._started()
        listener = await context.loop.create_server(
            lambda: Sniffer(context, self.session_class, self.ssl_context), sock=sock, backlog=BACKLOG
        )
        if context.draining:
            listener.close()
        else:
            self._listeners.append(listener)
        return listener.close

    @property
    def stats(self) -> Stats:
        """The counters."""
        return self._started().stats

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets; empty once draining."""
        return [sock for listener in self._listeners for sock in getattr(listener, "sockets", ())]

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self.sockets[0].getsockname()[1])

    def _started(self) -> Context:
        if self._context is None:
            raise RuntimeError("the server was not started")
        return self._context

    def _sweep(self) -> None:
        self._due = list(self._started().connections)
        self._sweep_slice()

    def _sweep_slice(self) -> None:
        context = self._started()
        now, due = context.loop.time(), self._due
        for connection in due[-SWEEP_SLICE:]:
            if connection in context.connections:
                connection.check(now)
        del due[-SWEEP_SLICE:]
        if due:
            self._sweeper = context.loop.call_soon(self._sweep_slice)
        else:
            self._sweeper = context.loop.call_later(self.limits.sweep_interval_s, self._sweep)

    # ---- end ----

    async def drain(self, timeout_s: float, hurry: asyncio.Event | None = None) -> None:
        """Stop accepting, finish what is in flight, close; stragglers are cut at `timeout_s`.

        Args:
            hurry: for a server whose successor accepts already. Until it is set, or most of the time is over,
                nobody is cut off: an idle client of HTTP/1.1 may ask once more, and is told to come again, and one
                of HTTP/2 has that long to hear of it.
        """
        context = self._started()
        end = context.loop.time() + timeout_s
        self._stop_listening()
        context.draining = True
        if hurry is not None and not hurry.is_set():
            self._drain_connections(patient=True)
            await self._emptied(timeout_s * PATIENCE, hurry)
        self._drain_connections(patient=False)
        left_s = end - context.loop.time()
        if not await self._emptied(min(left_s / 4, NOTICE_S)):
            for connection in list(context.connections):
                connection.finish_drain()
            await self._emptied(end - context.loop.time())
        await self.close()

    def _drain_connections(self, *, patient: bool) -> None:
        for connection in list(self._started().connections):
            connection.drain(patient)

    async def _emptied(self, timeout_s: float, hurry: asyncio.Event | None = None) -> bool:
        """Whether the last connection is gone."""
        context = self._started()
        end = context.loop.time() + timeout_s
        watched = [context.emptied, *([hurry] if hurry is not None else [])]
        while context.connections:
            left_s = end - context.loop.time()
            if left_s <= 0 or (hurry is not None and hurry.is_set()):
                return False
            context.emptied.clear()
            waits = [context.loop.create_task(event.wait()) for event in watched]
            await asyncio.wait(waits, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        return True

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """Close everything now; awaitables in flight are cancelled."""
        context = self._started()
        self._stop_listening()
        context.draining = context.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(context.connections):
            connection.abort()
        await self._emptied(1.0)


def bind(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A bound TCP socket, not yet listening; OSError when the address cannot be had."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def bind_error(host: str, port: int, error: OSError) -> ConfigError:
    """Why host:port cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        message, hint = "the port is taken", "stop the other process or choose another port"
    elif error.errno == errno.EACCES:
        message, hint = "not allowed to listen", "ports below 1024 need privileges; take a higher one"
    else:
        message, hint = f"cannot listen: {error}", "give a local address, e.g. 127.0.0.1 or 0.0.0.0"
    return ConfigError(message, where=f"{host}:{port}", hint=hint)


def make_ssl_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS >= 1.2 with ALPN (h2, http/1.1) for `Server`.

    Args:
        cert: path of the PEM certificate chain.
        key: path of its PEM private key.

    Raises:
        ConfigError: a file is missing, unreadable or does not fit the other.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    # Two tickets are a third of a handshake's CPU, and hardly ever used: clients keep their connections, and a
    # worker cannot read a ticket of another one.
    context.num_tickets = 0
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot load the TLS certificate: {error}",
            where=f"{cert}, {key}",
            hint="give a PEM chain and the private key that belongs to it",
        ) from error
    return context
