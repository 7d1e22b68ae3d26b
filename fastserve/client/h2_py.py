"""The HTTP/2 client session on the `h2` library: the readable twin of _ext/h2_client.pyx, and its stand-in."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from fastserve.client.session import (
    CONNECTION_WINDOW,
    INITIAL_MAX_STREAMS,
    MAX_HEADER_BYTES,
    STREAM_WINDOW,
    TOO_LARGE,
    Buffer,
    HeaderPairs,
    Owner,
)

FRAME_HEAD: Final = 9
GOAWAY: Final = 7
MAX_FRAME: Final = 16384
NO_LIMIT: Final = 2**31


class Exchange:
    """A request and what came of its answer."""

    __slots__ = ("body", "headers", "id", "offset", "request", "status")

    def __init__(self, stream_id: int, request: bytes) -> None:
        self.id = stream_id
        self.request = request
        self.offset = 0  # of the request's body, sent
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()


class Session:
    """One HTTP/2 connection, client side; see session.py."""

    def __init__(self, owner: Owner, max_answer_bytes: int) -> None:
        self._owner: Owner | None = owner
        self._max_answer = max_answer_bytes
        self._streams: dict[int, Exchange] = {}
        self._sendable: deque[Exchange] = deque()  # with body to send, in turn
        self._blocked: list[Exchange] = []  # of those, waiting for a window
        self._input = bytearray()  # the frame under way
        self._out = bytearray()
        self.draining = False
        self.broken = False
        self._conn = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        values = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        }
        self._conn.local_settings = Settings(client=True, initial_values=values)
        self._conn.decoder.max_header_list_size = MAX_HEADER_BYTES
        self._conn.initiate_connection()
        self._conn.increment_flow_control_window(CONNECTION_WINDOW - 65535)

    # ---- requests ----

    def request(self, headers: HeaderPairs, body: bytes) -> int:
        """Begin a request; its stream id."""
        try:
            stream_id = self._conn.get_next_available_stream_id()
            self._conn.send_headers(stream_id, list(headers), end_stream=not body)
        except H2Error as error:
            raise RuntimeError("the connection takes no more requests") from error
        exchange = self._streams[stream_id] = Exchange(stream_id, body)
        if body:
            self._sendable.append(exchange)
        return stream_id

    def cancel(self, stream_id: int) -> None:
        """RST_STREAM(CANCEL), and neither callback."""
        if self._streams.pop(stream_id, None) is not None:
            self._reset(stream_id)

    def _reset(self, stream_id: int) -> None:
        with suppress(H2Error):  # the server has just ended the stream or the connection
            self._conn.reset_stream(stream_id, ErrorCodes.CANCEL)

    def ping(self) -> None:
        """Ask for a sign of life."""
        with suppress(H2Error):
            self._conn.ping(bytes(8))

    # ---- bytes ----

    def feed(self, data: Buffer) -> None:
        """Take received bytes."""
        self._input += data
        while not self.broken and len(self._input) >= FRAME_HEAD:
            length = int.from_bytes(self._input[:3])
            if length > MAX_FRAME:
                self.broken = True
                return
            if len(self._input) < FRAME_HEAD + length:
                return
            frame = bytes(self._input[: FRAME_HEAD + length])
            del self._input[: FRAME_HEAD + length]
            if frame[3] == GOAWAY and length >= 8:  # h2 would give up the streams that are being answered
                self._on_goaway(int.from_bytes(frame[9:13]) & 0x7FFFFFFF)
            else:
                self._receive(frame)

    def _receive(self, frame: bytes) -> None:
        try:
            events = self._conn.receive_data(frame)
        except H2Error:
            self.broken = True
            return
        for event in events:
            self._on_event(event)

    def _on_goaway(self, last_stream_id: int) -> None:
        self.draining = True
        for stream_id in [known for known in self._streams if known > last_stream_id]:
            del self._streams[stream_id]
            self._fail(stream_id, ErrorCodes.REFUSED_STREAM, False)

    def _fail(self, stream_id: int, code: int, processed: bool) -> None:
        if self._owner is not None:
            self._owner.on_failed(stream_id, int(code), processed)

    def _on_event(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id=stream_id) if stream_id in self._streams:
                exchange = self._streams[stream_id]
                head = [(bytes(name), bytes(value)) for name, value in event.headers]
                exchange.status = int(dict(head)[b":status"])
                exchange.headers = [pair for pair in head if pair[0] != b":status"]
            case DataReceived(stream_id=stream_id):
                self._on_data(stream_id, event.data, event.flow_controlled_length)
            case StreamEnded(stream_id=stream_id):
                self._on_end(stream_id)
            case StreamReset(stream_id=stream_id):
                if self._streams.pop(stream_id, None) is not None:
                    code = event.error_code if event.error_code is not None else ErrorCodes.INTERNAL_ERROR
                    self._fail(stream_id, code, code != ErrorCodes.REFUSED_STREAM)
            case WindowUpdated() | RemoteSettingsChanged():
                self._sendable.extend(self._blocked)
                self._blocked.clear()
            case _:
                pass

    def _on_data(self, stream_id: int, data: bytes, flow_controlled: int) -> None:
        with suppress(H2Error):
            self._conn.acknowledge_received_data(flow_controlled, stream_id)
        exchange = self._streams.get(stream_id)
        if exchange is None:
            return
        exchange.body += data
        if len(exchange.body) > self._max_answer:
            self.cancel(stream_id)
            self._fail(stream_id, TOO_LARGE, True)

    def _on_end(self, stream_id: int) -> None:
        exchange = self._streams.pop(stream_id, None)
        if exchange is None or self._owner is None:
            return
        if exchange.offset < len(exchange.request):  # answered before it had read all (RFC 9113 8.1)
            self._reset(stream_id)
        self._owner.on_answer(stream_id, exchange.status, exchange.headers, exchange.body)

    def data_to_send(self, max_bytes: int) -> bytes:
        """The next output, about `max_bytes` (at most a frame more)."""
        self._out += self._conn.data_to_send()
        while self._sendable and len(self._out) < max_bytes:
            self._send_frame(self._sendable.popleft())
        output = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        return output

    def _send_frame(self, exchange: Exchange) -> None:
        """One DATA frame of a request's body, then it goes to the end of the line."""
        if self._streams.get(exchange.id) is not exchange:
            return
        try:
            window = self._conn.local_flow_control_window(exchange.id)
            left = len(exchange.request) - exchange.offset
            size = min(left, window, self._conn.max_outbound_frame_size)
            if size <= 0:
                self._blocked.append(exchange)
                return
            data = exchange.request[exchange.offset : exchange.offset + size]
            self._conn.send_data(exchange.id, data, end_stream=size == left)
        except H2Error:  # the stream ended meanwhile; its event tells the owner
            return
        exchange.offset += size
        self._out += self._conn.data_to_send()
        if size < left:
            self._sendable.append(exchange)

    # ---- life cycle ----

    @property
    def in_flight(self) -> int:
        """Requests without a complete answer."""
        return len(self._streams)

    @property
    def max_streams(self) -> int:
        """How many the server takes at once."""
        found = self._conn.remote_settings.max_concurrent_streams
        return found if found < NO_LIMIT else INITIAL_MAX_STREAMS

    def close(self) -> None:
        """The transport is gone."""
        self._owner = None
        self.broken = True
        self._streams.clear()
        self._sendable.clear()
        self._blocked.clear()
