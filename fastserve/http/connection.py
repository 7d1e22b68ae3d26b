"""What HTTP/1.1 and HTTP/2 connections share: calling the handler, back-pressure, time-outs, closing.

A connection is an asyncio.Protocol that lives in ``Context.connections``. The server's sweeper calls
``check(now)`` on each a few times per time-out, so a request arms and disarms no timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from fastserve.http.message import Buffer, Handler, Request, Response
from fastserve.http.replies import INTERNAL, rejections
from fastserve.http.stats import Stats

log = logging.getLogger("fastserve.http")

LINGER_BYTES = 64 * 1024 * 1024  # swallowed after a final answer, at most; a few times the largest body
# ... of a client that did harm: what it sent before it could know. To read the rest costs more than all before it.
HARM_LINGER_BYTES = 256 * 1024
HARM = frozenset({"frame_budget", "header_bomb", "protocol_error"})

# A drain leaves clients this long for what they sent before they knew of it: an HTTP/2 one until it answers our PING
# at the latest, one that speaks HTTP/1.1 for its next request, which is then the last.
NOTICE_S = 1.0


class Context:
    """What all connections of one server share."""

    def __init__(
        self, handler: Handler, limits: Limits, loop: asyncio.AbstractEventLoop, gate: Gate | None = None
    ) -> None:
        self.handler = handler
        self.gate = Gate() if gate is None else gate
        self.limits = limits
        self.loop = loop
        self.stats = Stats()
        self.rejections = rejections(limits)
        self.connections: set[Connection] = set()
        self.draining = False
        self.closed = False
        self.emptied: asyncio.Event = asyncio.Event()


class Connection(asyncio.Protocol):
    """One client connection. Subclasses parse bytes and call `answer`, and give `reply` and `check`."""

    transport: asyncio.Transport

    def __init__(self, context: Context) -> None:
        self.context = context
        self.handler = context.handler
        self.gate = context.gate
        self.limits = context.limits
        self.stats = context.stats
        self.rejections = context.rejections
        self.loop = context.loop
        self.paused = False  # the transport holds more than the high-water mark
        self.closing = False  # no more input is looked at
        self.waiting: dict[int, asyncio.Future[Response]] = {}  # token -> answer to come
        self.lingering_since = 0.0
        self.end_reason = ""  # why the server ended it
        self._lingered = 0
        self._written = 0  # handed to the transport, ever
        self._flushed = 0  # of that, on its way to the client at the last look
        self._progress_at = self._granted_at = self.loop.time()

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit it
        self.context.connections.add(self)
        self.transport.set_write_buffer_limits(high=self.limits.write_high_water_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.stats.open_connections -= 1
        for token in list(self.waiting):
            self.on_cancel(token)
        self.forget()

    def forget(self) -> None:
        """Leave the server's set; the last one to leave ends a drain."""
        connections = self.context.connections
        connections.discard(self)
        if not connections:
            self.context.emptied.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.flush()

    # ---- for subclasses ----

    def flush(self) -> None:
        """Write what can be written now."""
        raise NotImplementedError

    def reply(self, token: int, response: Response) -> None:
        """The answer that `answer` did not have at once."""
        raise NotImplementedError

    def check(self, now: float) -> None:
        """Enforce the time-outs."""
        raise NotImplementedError

    def drain(self, patient: bool = False) -> None:
        """Finish what is in flight, take nothing new, close.

        Args:
            patient: there is time: let the client be the one that ends it, where the protocol has a way.
        """
        raise NotImplementedError

    def finish_drain(self) -> None:
        """The time of notice is over: stop taking anything new now."""

    # ---- the handler ----

    def on_request(self, token: int, request: Request) -> Response | None:
        """Call the handler. None: its awaitable is waited for, and `reply(token, ...)` follows."""
        self.stats.requests += 1
        try:
            result = self.handler(request)
            if result.__class__ is Response:
                return result
            return self._wait(token, result)
        except Exception as error:
            return self.on_failure(error)

    def on_failure(self, error: BaseException) -> Response:
        """Log a handler's exception and give the 500 for it."""
        self.stats.handler_errors += 1
        log.error("the handler failed: %r", error, exc_info=error)
        return INTERNAL

    def _wait(self, token: int, result: Response | Awaitable[Response]) -> Response | None:
        if isinstance(result, Response):
            return result
        future: asyncio.Future[Response] = asyncio.ensure_future(result, loop=self.loop)
        if future.done():
            return self._result_of(future)
        self.waiting[token] = future
        future.add_done_callback(partial(self._on_done, token))
        return None

    def _on_done(self, token: int, future: asyncio.Future[Response]) -> None:
        if self.waiting.get(token) is not future:  # cancelled by us: nobody waits for it
            if not future.cancelled() and future.exception() is not None:
                log.info("a cancelled handler failed: %r", future.exception())
            return
        del self.waiting[token]
        self.reply(token, self._result_of(future))

    def _result_of(self, future: asyncio.Future[Response]) -> Response:
        try:
            response: Any = future.result()
        except (Exception, asyncio.CancelledError) as error:
            return self.on_failure(error)
        if not isinstance(response, Response):
            return self.on_failure(TypeError(f"the handler gave {response!r}, not a Response"))
        return response

    def on_cancel(self, token: int) -> None:
        """The client no longer wants this answer."""
        future = self.waiting.pop(token, None)
        if future is not None:
            self.stats.cancelled += 1
            future.cancel()

    # ---- output and its end ----

    def write(self, data: Buffer) -> None:
        """Hand bytes to the transport, counted."""
        size = len(data)
        self._written += size
        self.stats.bytes_out += size
        self.transport.write(data)

    def stalled(self, now: float, pending: bool) -> bool:
        """True when output waits (`pending`, or in the transport) and next to none left for write_timeout_s."""
        buffered = self.transport.get_write_buffer_size()
        flushed = self._written - buffered
        if flushed - self._flushed >= self.limits.min_progress_bytes or not (buffered or pending):
            self._flushed = flushed
            self._progress_at = now
            return False
        return now - self._progress_at > self.limits.write_timeout_s

    def tokens_of_time(self, now: float) -> int:
        """Of the control frame budget, that came back since the last call."""
        tokens = int((now - self._granted_at) * self.limits.control_frames_per_second)
        if tokens:
            self._granted_at = now
        return tokens

    def note_end(self, reason: str) -> None:
        """The server ends this connection; only the first reason counts."""
        if not self.end_reason:
            self.end_reason = reason
            peer = self.transport.get_extra_info("peername")
            self.stats.endings.note(reason, peer, self.loop.time())

    def abort(self) -> None:
        """Drop the connection and whatever it holds."""
        self.closing = True
        self.transport.abort()

    def close_gently(self) -> None:
        """Close after the output is sent; swallow input for a while so that no TCP reset kills it."""
        if self.closing:
            return
        self.closing = True
        self.lingering_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def swallow(self, size: int) -> None:
        """Input after the end."""
        self._lingered += size
        if self._lingered > (HARM_LINGER_BYTES if self.end_reason in HARM else LINGER_BYTES):
            self.note_end("input_after_end")
            self.abort()

    def check_closing(self, now: float) -> None:
        """The deadlines of a connection that `close_gently` has ended."""
        if self.stalled(now, False):
            self.abort()
        elif (
            now - self.lingering_since > self.limits.linger_timeout_s
            and not self.transport.get_write_buffer_size()
        ):
            # TLS has been waiting for the client's close_notify meanwhile, and swallowing all else.
            self.transport.close() if self.transport.can_write_eof() else self.transport.abort()
