"""The HTTP/2 session on the `h2` library: the readable twin of _ext/h2.pyx, and its stand-in.

Same contract (session.py), same limits, same answers. Allowed to differ: a fault that libnghttp2
answers by resetting the stream may end the connection here, and a client's GOAWAY ends it at once.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from fastserve.http.frames import CREDIT_REQUEST, RESET_COST, SMALL_DATA, Budget, FrameScanner, count_resets
from fastserve.http.h2_head import render
from fastserve.http.limits import Limits
from fastserve.http.message import Buffer, Request, Response
from fastserve.http.session import Owner

SLICE_FRAMES: Final = 128
HEADER_TABLE: Final = 4096  # bytes of ours, for answers; libnghttp2's bound
BOMB_FACTOR: Final = 16  # header lists this much over the limit end the connection
MAX_STREAM_ID: Final = 2**31 - 1


class Stream:
    """One request from its head to the close of its stream."""

    __slots__ = (
        "answered",
        "awaited",
        "body",
        "body_size",
        "cut",
        "ended",
        "finished",
        "headers",
        "id",
        "method",
        "offset",
        "path",
        "query",
        "reject",
        "started",
        "swallowed",
        "taken",
        "view",
        "wants_continue",
    )

    def __init__(self, stream_id: int, now: float) -> None:
        self.id = stream_id
        self.method = ""
        self.path: str | None = None
        self.query = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.body_size = 0  # counted in buffered_body_bytes
        self.swallowed = 0  # received after an early answer
        self.started = now
        self.reject = 0  # status of the limit broken in the head
        self.wants_continue = False
        self.ended = False  # END_STREAM received
        self.taken = False  # complete and handed over, or rejected
        self.awaited = False  # handed over, not answered
        self.answered = False  # an answer was submitted
        self.finished = False  # END_STREAM sent
        self.cut = False  # to be reset once finished
        self.view: memoryview | None = None
        self.offset = 0


class Session:
    """One HTTP/2 connection, server side; see session.py."""

    def __init__(self, owner: Owner, limits: Limits, now: float) -> None:
        self._owner: Owner | None = owner
        self._stats = owner.stats
        self._rejections = owner.rejections
        self._gate = owner.gate
        self._limits = limits
        self._now = now
        self._budget = Budget(limits.control_frame_budget)
        self._scanner = FrameScanner(self._budget, now)
        self._streams: dict[int, Stream] = {}
        self._ready: list[Stream] = []
        self._cancelled: list[int] = []
        self._sendable: deque[Stream] = deque()  # with DATA to send, in turn
        self._blocked: list[Stream] = []  # of those, waiting for a window
        self._out = bytearray()
        self._draining = 0
        self._last_stream_id = MAX_STREAM_ID
        self.terminated = False
        self.end_reason = ""
        self.pending_bytes = 0
        self.buffered_body_bytes = 0
        self._conn = self._connect()

    def _connect(self) -> H2Connection:
        limits = self._limits
        conn = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        values = {
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
        }
        conn.local_settings = Settings(client=False, initial_values=values)
        conn.initiate_connection()
        # h2 would end the connection at one stream too many; `_on_head` refuses the stream instead.
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAM_ID
        conn.local_settings = Settings(client=False, initial_values=values)
        conn.decoder.max_header_list_size = BOMB_FACTOR * limits.max_header_bytes
        extra = limits.connection_window_bytes - 65535
        if extra > 0:
            conn.increment_flow_control_window(extra)
        return conn

    # ---- input ----

    def feed(self, data: Buffer, now: float) -> None:
        """Take received bytes; complete requests go to the owner before it returns."""
        self._now = now
        view = memoryview(data)
        frames = 0
        while len(view) and not self.terminated:
            size = self._scanner.advance(view, now)
            if self._scanner.oversized:
                self.terminate(ErrorCodes.FRAME_SIZE_ERROR, "protocol_error")
            elif self._budget.left >= 0:
                self._receive(bytes(view[:size]))
            view = view[size:]
            frames += 1
            if frames % SLICE_FRAMES == 0 or self._budget.left < 0:
                self._dispatch()
            if self._budget.left < 0:
                self.terminate(ErrorCodes.ENHANCE_YOUR_CALM, "frame_budget")
        self._dispatch()
        self._tell_cancelled()

    def _receive(self, data: bytes) -> None:
        self._take_output()
        try:
            events = self._conn.receive_data(data)
        except H2Error as error:
            self._stats.protocol_errors += 1
            self.terminated = True
            bomb = isinstance(error, DenialOfServiceError)
            self.end_reason = "header_bomb" if bomb else "protocol_error"
            events = []
        output = self._conn.data_to_send()
        self._budget.charge(RESET_COST * count_resets(output))
        self._out += output
        for event in events:
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=stream_id, headers=headers):
                self._on_head(stream_id, headers, event.stream_ended is not None)
            case DataReceived(stream_id=stream_id):
                self._on_data(stream_id, event.data, event.flow_controlled_length)
                if len(event.data) < SMALL_DATA and event.stream_ended is None:
                    self._budget.charge()
            case StreamEnded(stream_id=stream_id):
                self._on_end(stream_id)
            case StreamReset(stream_id=stream_id):
                self._close_stream(stream_id)
            case WindowUpdated() | RemoteSettingsChanged():
                self._sendable.extend(self._blocked)
                self._blocked.clear()
                encoder = self._conn.encoder  # what the client offers is no duty to remember as much
                encoder.header_table_size = min(encoder.header_table_size, HEADER_TABLE)
            case SettingsAcknowledged():
                limit = BOMB_FACTOR * self._limits.max_header_bytes
                self._conn.decoder.max_header_list_size = limit
            case PingAckReceived() if self._draining == 1:
                self.finish_drain()
            case ConnectionTerminated():
                self.terminated = True
            case _:
                pass

    def _on_head(self, stream_id: int, headers: list[tuple[bytes, bytes]], end: bool) -> None:
        stream = self._streams[stream_id] = Stream(stream_id, self._now)
        limits = self._limits
        if (
            stream_id > self._last_stream_id
            or len(self._streams) > limits.max_concurrent_streams
            or self.pending_bytes > limits.max_pending_response_bytes
        ):
            self._stats.rejected += 1
            self._reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        self._read_head(stream, headers)
        if stream.path is None and not stream.reject:
            stream.reject = 501  # CONNECT
        if not stream.reject and self._gate.refuses(stream.path):
            stream.reject = 429
        if stream.reject:
            stream.ended = end
            self._reject(stream, stream.reject)
        elif stream.wants_continue and not end:
            self._conn.send_headers(stream_id, [(b":status", b"100")])

    def _read_head(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        limits = self._limits
        if sum(len(name) + len(value) + 32 for name, value in headers) > limits.max_header_bytes:
            stream.reject = 431
        for name, value in headers:
            if name == b":method":
                stream.method = value.decode("latin-1")
            elif name == b":path":
                if len(value) > limits.max_target_bytes:
                    stream.reject = stream.reject or 414
                stream.path, _, stream.query = value.decode("latin-1").partition("?")
            elif not name.startswith(b":"):
                stream.headers.append((bytes(name), bytes(value)))
                if name == b"content-length" and int(value) > limits.max_body_bytes:
                    stream.reject = 413
                elif name == b"expect":
                    stream.wants_continue = True

    def _on_data(self, stream_id: int, data: bytes, flow_controlled: int) -> None:
        self._conn.acknowledge_received_data(flow_controlled, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        limits = self._limits
        if stream.taken:
            stream.swallowed += len(data)
            if stream.swallowed > limits.max_body_bytes:
                self._cut(stream)
            return
        stream.body_size += len(data)
        self.buffered_body_bytes += len(data)
        self._budget.credit(len(data))
        if (
            stream.body_size > limits.max_body_bytes
            or self.buffered_body_bytes > limits.max_buffered_body_bytes
        ):
            self._reject(stream, 413)
        else:
            stream.body += data

    def _on_end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.ended = True
        if stream.finished:
            self._close_stream(stream_id, answered=True)
        elif not stream.taken:
            stream.taken = True
            self._ready.append(stream)
        elif stream.reject and not stream.answered:
            self._answer(stream, *render(self._rejections[stream.reject]))

    def _dispatch(self) -> None:
        ready, self._ready = self._ready, []
        for stream in ready:
            if self._streams.get(stream.id) is not stream or self._owner is None:
                continue
            body, stream.body = bytes(stream.body), bytearray()
            stream.awaited = True
            request = Request(stream.method, stream.path or "", stream.query, stream.headers, body)
            response = self._owner.on_request(stream.id, request)
            if response is not None:
                self._answer_safely(stream, response)

    def _tell_cancelled(self) -> None:
        while self._cancelled and self._owner is not None:
            self._owner.on_cancel(self._cancelled.pop())

    # ---- answers ----

    def submit(self, stream_id: int, response: Response) -> None:
        """Answer a request that waits for it; nothing happens when it is gone or answered."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.awaited and not self.terminated:
            self._answer_safely(stream, response)

    def _answer_safely(self, stream: Stream, response: Response) -> None:
        stream.awaited = False
        if self.terminated or self._owner is None:
            return
        try:
            head, body = render(response)
        except Exception as error:
            head, body = render(self._owner.on_failure(error))
        self._answer(stream, head, body)

    def _answer(self, stream: Stream, head: list[tuple[bytes, bytes]], body: memoryview) -> None:
        bodiless = head[0][1] in (b"204", b"304") or stream.method == "HEAD" or not len(body)
        stream.answered = True
        self._conn.send_headers(stream.id, head, end_stream=bodiless)
        if bodiless:
            self._finish(stream)
        else:
            stream.view = body
            self.pending_bytes += len(body)
            self._sendable.append(stream)

    def _reject(self, stream: Stream, status: int) -> None:
        """Answer with `status` once the client has sent all; what still comes is swallowed.

        Many clients (curl 7 for one) lose an answer that is complete before their request is.
        """
        stream.taken = True
        stream.reject = status
        stream.body = bytearray()
        self.buffered_body_bytes -= stream.body_size
        stream.body_size = 0
        self._stats.rejected += 1
        self._budget.charge()
        if stream.ended or stream.wants_continue:
            self._answer(stream, *render(self._rejections[status]))

    def _cut(self, stream: Stream) -> None:
        """Enough swallowed, or for long enough: answer now and reset after it (RFC 9113 8.1)."""
        if stream.cut:
            return
        stream.cut = True
        if stream.finished:
            self._reset(stream, ErrorCodes.NO_ERROR)
        elif stream.reject and not stream.answered:
            self._answer(stream, *render(self._rejections[stream.reject]))

    def _finish(self, stream: Stream) -> None:
        stream.finished = True
        if stream.ended:
            self._close_stream(stream.id, answered=True)
        elif stream.cut:
            self._reset(stream, ErrorCodes.NO_ERROR)

    def _reset(self, stream: Stream, error_code: ErrorCodes) -> None:
        self._budget.charge(RESET_COST)
        self._conn.reset_stream(stream.id, error_code)
        self._close_stream(stream.id)

    def _close_stream(self, stream_id: int, *, answered: bool = False) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        self.buffered_body_bytes -= stream.body_size
        if stream.view is not None:
            self.pending_bytes -= len(stream.view) - stream.offset
            stream.view = None
        if answered and stream.reject in (0, 429):  # a full server is not the client's fault
            self._budget.credit(0, CREDIT_REQUEST)
        if stream.awaited:
            self._cancelled.append(stream_id)

    def data_to_send(self, max_bytes: int) -> bytes:
        """The next output, about `max_bytes`; b"" when there is none."""
        self._take_output()
        while self._sendable and len(self._out) < max_bytes and not self.terminated:
            self._send_frame(self._sendable.popleft())
        output = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        self._tell_cancelled()
        return output

    def _take_output(self) -> None:
        self._out += self._conn.data_to_send()

    def _send_frame(self, stream: Stream) -> None:
        """One DATA frame of `stream`, then it goes to the end of the line."""
        if stream.view is None:
            return
        left = len(stream.view) - stream.offset
        window = self._conn.local_flow_control_window(stream.id)
        size = min(left, window, self._conn.max_outbound_frame_size)
        if size <= 0:
            self._blocked.append(stream)
            return
        data = bytes(stream.view[stream.offset : stream.offset + size])
        stream.offset += size
        self.pending_bytes -= size
        self._budget.credit(size)
        self._conn.send_data(stream.id, data, end_stream=size == left)
        self._take_output()
        if size == left:
            self._finish(stream)
        else:
            self._sendable.append(stream)

    # ---- life cycle ----

    @property
    def budget(self) -> int:
        """Tokens left for control frames."""
        return self._budget.left

    @property
    def in_flight(self) -> int:
        """Requests begun and not fully answered."""
        return len(self._streams)

    @property
    def closed(self) -> bool:
        """Nothing is left to read or write: close the transport."""
        if self._out or self._conn._data_to_send:
            return False
        return self.terminated or (self._draining == 2 and not self._streams)

    def expire(self, now: float) -> None:
        """Answer 408 where a body is overdue; end the connection when a head is."""
        if self.terminated:
            return
        since = self._scanner.head_since
        if since and now - since > self._limits.header_timeout_s:
            self._stats.rejected += 1
            self.terminate(ErrorCodes.ENHANCE_YOUR_CALM, "slow_head")
            return
        for stream in list(self._streams.values()):
            if now - stream.started > self._limits.body_timeout_s and not stream.ended:
                if not stream.taken:
                    self._reject(stream, 408)
                self._cut(stream)

    def grant(self, tokens: int) -> None:
        """Give back tokens of the control frame budget for time passed."""
        self._budget.credit(0, tokens)

    def _goaway(self, last_stream_id: int) -> None:
        # h2's own close_connection would forbid to finish the streams that are open.
        self._take_output()
        self._out += GoAwayFrame(0, last_stream_id=last_stream_id).serialize()

    def start_drain(self) -> None:
        """First GOAWAY (any stream id) and a PING; its answer brings the last GOAWAY."""
        if self._draining == 0 and not self.terminated:
            self._draining = 1
            self._goaway(MAX_STREAM_ID)
            self._conn.ping(bytes(8))

    def finish_drain(self) -> None:
        """Last GOAWAY: streams above the last one seen are refused, the others finish."""
        if self._draining < 2 and not self.terminated:
            self._draining = 2
            self._last_stream_id = self._conn.highest_inbound_stream_id
            self._goaway(self._last_stream_id)

    def terminate(self, error_code: int, reason: str = "") -> None:
        """GOAWAY with `error_code`, then nothing more is read or written."""
        if not self.terminated:
            self.terminated = True
            self.end_reason = self.end_reason or reason
            if error_code != ErrorCodes.NO_ERROR:
                self._stats.protocol_errors += 1
            with suppress(H2Error):
                self._conn.close_connection(error_code)

    def close(self) -> None:
        """The connection is gone: forget requests and answers, break the cycle with the owner."""
        self.terminated = True
        self._owner = None
        self._streams.clear()
        self._ready.clear()
        self._cancelled.clear()
        self._sendable.clear()
        self._blocked.clear()
