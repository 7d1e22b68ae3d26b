"""HTTP/2 connections on asyncio: a session (native, or the `h2` twin) and the transport around it.

Everything answered within one data_received leaves in one write. DATA is pulled from the session
only while the transport is below its high-water mark, so a slow reader holds little memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastserve.http.connection import Connection, Context
from fastserve.http.message import Request, Response

if TYPE_CHECKING:
    from fastserve.http.session import Session as SessionType

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.http.h2_py import Session
else:
    try:
        from fastserve._native.h2 import Session
    except ImportError:  # built without libnghttp2
        from fastserve.http.h2_py import Session

__all__ = ["H2Connection", "Session"]

PULL_BYTES = 128 * 1024
NO_ERROR = 0


class H2Connection(Connection):
    """One HTTP/2 connection."""

    def __init__(self, context: Context, session_class: type[SessionType] = Session) -> None:
        super().__init__(context)
        now = self.loop.time()
        self.session: SessionType = session_class(self, self.limits, now)
        self._in_feed = False
        self._flush_scheduled = False
        self._idle_since = now
        self._served = 0  # requests seen at the last look
        self._requests = 0

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.stats.bytes_in += size
        if self.closing:
            self.swallow(size)
            return
        self._in_feed = True
        try:
            self.session.feed(data, self.loop.time())
        finally:
            self._in_feed = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.session.close()

    def on_request(self, token: int, request: Request) -> Response | None:
        self._requests += 1
        return Connection.on_request(self, token, request)

    def reply(self, token: int, response: Response) -> None:
        self.session.submit(token, response)
        if not self._flush_scheduled:  # answers that come in one loop tick share a write
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        if self._in_feed or self.closing:
            return
        session = self.session
        while not self.paused:
            data = session.data_to_send(PULL_BYTES)
            if not data:
                break
            self.write(data)
            if len(data) < PULL_BYTES:
                break
        if session.closed:
            self._note_session_end()
            self.close_gently()
        elif self.paused and session.terminated:  # it does not even read why
            self._note_session_end()
            self.abort()

    def _note_session_end(self) -> None:
        if self.session.end_reason:
            self.note_end(self.session.end_reason)

    # ---- time ----

    def check(self, now: float) -> None:
        if self.closing:
            self.check_closing(now)
            return
        session = self.session
        if self.stalled(now, session.pending_bytes > 0):
            self.stats.rejected += 1
            self.note_end("slow_reader")
            self.abort()
            return
        session.grant(self.tokens_of_time(now))
        session.expire(now)
        if session.in_flight or self._requests != self._served:
            self._served = self._requests
            self._idle_since = now
        elif now - self._idle_since > self.limits.idle_timeout_s:
            session.terminate(NO_ERROR, "idle")
        self.flush()

    def drain(self, patient: bool = False) -> None:
        self.session.start_drain()
        self.flush()

    def finish_drain(self) -> None:
        self.session.finish_drain()
        self.flush()
