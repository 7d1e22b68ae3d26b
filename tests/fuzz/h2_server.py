"""The HTTP/2 server session: [how] and what a client sends, in the notation of frames.py.

With ROOMY limits nothing is cut off for being too much, and the conversation in one piece, in chunks, and with the
twin must lead to the same requests.
"""

from __future__ import annotations

from typing import Any

from fastserve._native.h2 import Session
from fastserve.http.gate import Gate
from fastserve.http.h2_py import Session as PySession
from fastserve.http.limits import Limits
from fastserve.http.message import Request, Response
from fastserve.http.replies import INTERNAL, rejections
from fastserve.http.stats import Stats
from tests.fuzz.frames import check_output, continues, converse, output_of
from tests.fuzz.sampling import sampled

ROOMY = 0x01
AWAITED = 0x02  # requests are answered later, by SUBMIT

SMALL = Limits(
    max_header_bytes=400,
    max_target_bytes=60,
    max_body_bytes=500,
    max_buffered_body_bytes=900,
    max_pending_response_bytes=40_000,
    control_frame_budget=60,
    max_concurrent_streams=4,
    stream_window_bytes=1000,
    connection_window_bytes=70_000,
)
LARGE = Limits(control_frame_budget=1_000_000)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
BODIES = (b"", b"ok", bytes(30_000))


def conversation(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    how = data[0]
    stream = converse(Side(Session, LARGE if how & ROOMY else SMALL, not how & AWAITED), data, PREFACE)
    if how & ROOMY and sampled(data, 16):
        check_chunks(stream, 1 + len(data) % 60)
        if sampled(data, 1024):
            check_twin(stream)


class Side:
    """A session and its owner."""

    def __init__(self, make_session: Any, limits: Limits, answers: bool) -> None:
        self.stats, self.rejections, self.limits = Stats(), REJECTIONS[id(limits)], limits
        self.gate = Gate()
        self.answers = answers
        self.requests: dict[int, tuple[Any, ...]] = {}
        self.waiting: list[int] = []
        self.now = 1.0
        self.gone = False
        self.output: list[bytes] = []
        self.session = make_session(self, limits, self.now)

    # what the session calls

    def on_request(self, stream_id: int, request: Request) -> Response | None:
        assert stream_id not in self.requests, "two requests of one stream"
        self.requests[stream_id] = (
            request.method,
            request.path,
            request.query,
            tuple(request.headers),
            request.body,
        )
        assert len(request.body) <= self.limits.max_body_bytes
        if self.answers:
            return response(stream_id)
        self.waiting.append(stream_id)
        return None

    def on_cancel(self, stream_id: int) -> None:
        self.waiting.remove(stream_id)

    def on_failure(self, error: Exception) -> Response:
        assert isinstance(error, (ValueError, TypeError)), error
        return INTERNAL

    # what the fuzzer does

    def take(self, part: bytes | tuple[int, int]) -> None:
        if isinstance(part, bytes):
            self.session.feed(part, self.now)
        else:
            self.act(*part)
        assert self.session.buffered_body_bytes <= self.limits.max_buffered_body_bytes

    def act(self, action: int, argument: int) -> None:
        session = self.session
        match action & 15:
            case 0 | 1 | 2:
                self.output.append(session.data_to_send(argument if action & 2 else 1 << 16))
            case 3 | 4:
                self.submit(argument)
            case 5:
                self.now += argument
                session.expire(self.now)
            case 6:
                session.start_drain()
            case 7:
                session.finish_drain()
            case 8:
                session.grant(argument)
            case 9:
                session.terminate(argument)
            case 10:
                session.submit(argument, response(argument))
            case 11 if not self.gone:
                session.close()
                self.gone, self.waiting = True, []
            case _:
                pass

    def submit(self, argument: int) -> None:
        if self.waiting and not self.session.terminated:  # later answers are dropped, and told as cancelled
            stream_id = self.waiting.pop(argument % len(self.waiting))
            self.session.submit(stream_id, response(argument))

    def end(self) -> None:
        while self.waiting and not self.session.terminated:
            self.submit(0)
        self.output.append(output_of(self.session))
        check_output(b"".join(self.output))
        session = self.session
        assert session.in_flight >= 0 and session.pending_bytes >= 0 and session.buffered_body_bytes >= 0
        if not session.in_flight:
            assert session.pending_bytes == session.buffered_body_bytes == 0, "bytes of no stream"
        session.close()


REJECTIONS = {id(limits): rejections(limits) for limits in (SMALL, LARGE)}


def response(number: int) -> Response:
    if number == 255:
        return Response(200, "a/b\n", b"it cannot be sent")
    return Response(204 if number == 254 else 200, "a/b", BODIES[(number >> 1) % 3])


def check_chunks(stream: bytes, size: int) -> None:
    """In one piece a request that is reset right after it is not handed over; else all is the same."""
    whole, torn = (Side(Session, LARGE, False) for _ in range(2))
    whole.session.feed(stream, 1.0)
    for at in range(0, len(stream), size):
        torn.session.feed(stream[at : at + size], 1.0)
    over = is_over(whole.session)
    if over != is_over(torn.session) or (over and continues(stream)):
        assert continues(stream)
        return
    for stream_id, request in whole.requests.items():
        assert torn.requests[stream_id] == request, (torn.requests[stream_id], request)
    for stream_id in torn.waiting:
        assert stream_id in whole.requests or over, f"stream {stream_id} is not handed over"
    if not over:
        *rest, budget = accounts(whole.session)
        *torn_rest, torn_budget = accounts(torn.session)
        # A block that is refused before its end is paid for at its end: until then its token may stand for another.
        assert rest == torn_rest and abs(budget - torn_budget) <= 1


def is_over(session: Any) -> bool:
    """Whether it has ended the connection, or libnghttp2 has."""
    session.data_to_send(1 << 18)
    return bool(session.terminated or session.closed)


def accounts(session: Any) -> tuple[int, int, int]:
    return session.in_flight, session.buffered_body_bytes, session.budget


def check_twin(stream: bytes) -> None:
    """What both give as a request must be the same; what is none, libnghttp2 and h2 may tell differently."""
    native, twin = Side(Session, LARGE, False), Side(PySession, LARGE, False)
    native.session.feed(stream, 1.0)
    twin.session.feed(stream, 1.0)
    for stream_id in native.requests.keys() & twin.requests.keys():
        assert native.requests[stream_id] == twin.requests[stream_id], stream_id
