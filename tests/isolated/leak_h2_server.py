"""Connections of HTTP/2 clients: answered, reset, cut off, too large, malformed, flooding, drained."""

from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from fastserve._native.h2 import Session
from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from fastserve.http.message import Request, Response
from fastserve.http.replies import INTERNAL, rejections
from fastserve.http.stats import Stats
from tests.isolated.meter import run

NATIVES = ("h2",)
LIMITS = Limits(max_body_bytes=5_000, max_header_bytes=500, max_target_bytes=60, control_frame_budget=30)
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/p?q=1"), (":authority", "h")]
START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, {4: 100_000}).serialize()


def head(
    stream_id: int, *extra: tuple[str, str], end: bool = False, fields: list[tuple[str, str]] = REQUEST
) -> Frame:
    flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
    return HeadersFrame(stream_id, Encoder().encode([*fields, *extra]), flags=flags)


def data(stream_id: int, size: int, end: bool = True) -> Frame:
    return DataFrame(stream_id, bytes(size), flags=["END_STREAM"] if end else [])


def sent(*frames: Frame) -> bytes:
    return START + b"".join(frame.serialize() for frame in frames)


ANSWERED = sent(
    head(1, ("x-y", "z")), data(1, 900), head(3, end=True), head(5), data(5, 100, False), data(5, 100)
)
CONVERSATIONS = [
    ANSWERED,
    sent(head(1), data(1, 50), RstStreamFrame(1, 8), head(3, end=True), RstStreamFrame(3, 8), GoAwayFrame(0)),
    sent(  # each over a limit of its own
        head(1, ("x", "y" * 600), end=True),
        head(3),
        data(3, 4_000, False),
        data(3, 4_000),
        head(5, ("content-length", "99999")),
        head(7, ("expect", "100-continue")),
        head(9, end=True, fields=[*REQUEST[:2], (":path", "/" * 99), REQUEST[3]]),
        head(11, end=True, fields=[(":method", "CONNECT"), (":authority", "h")]),
    ),
    sent(head(1), data(1, 10, False)) + bytes([0, 0, 9, 4, 0, 0, 0, 0, 1]) + bytes(9),  # SETTINGS of a stream
    sent(head(1, end=True), *[PingFrame(0, bytes(8))] * 40),  # more than the budget
    sent(head(1, ("connection", "x"), end=True), head(3, ("x-bad", "1"), end=True)) + bytes(20),
]
BODIES = [b"", b"ok", bytes(20_000)]


class Owner:
    """Answers every second request at once."""

    def __init__(self, number: int) -> None:
        self.stats, self.rejections, self.gate = Stats(), rejections(LIMITS), Gate()
        self.number = number
        self.waiting: list[int] = []

    def on_request(self, stream_id: int, request: Request) -> Response | None:
        if (self.number + stream_id) % 4 == 1:
            self.waiting.append(stream_id)
            return None
        return self.response()

    def on_cancel(self, stream_id: int) -> None:
        self.waiting.remove(stream_id)

    def on_failure(self, error: Exception) -> Response:
        return INTERNAL

    def response(self) -> Response:
        if self.number % 9 == 0:
            return Response(200, "a/b\n", b"it cannot be sent")
        return Response(200, "a/b", BODIES[self.number % 3])


def once(i: int) -> None:
    owner = Owner(i)
    session = Session(owner, LIMITS, 1.0)
    stream = CONVERSATIONS[i % len(CONVERSATIONS)]
    half = len(stream) // 2 if i % 5 == 0 else len(stream)
    session.feed(stream[:half], 1.0)
    session.data_to_send(1 << 16 if i % 4 else 1000)
    if i % 7 == 0:
        session.start_drain()
        session.finish_drain()
    session.feed(stream[half:], 1.0)
    for stream_id in owner.waiting[: i % 3]:
        session.submit(stream_id, owner.response())
    if i % 11 == 0:
        session.expire(1000.0)
    session.data_to_send(1 << 18)
    if i % 2:
        session.close()  # the other half is let go of with requests and answers in it


if __name__ == "__main__":
    run(once)
