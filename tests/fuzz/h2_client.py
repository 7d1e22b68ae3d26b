"""The HTTP/2 client session: [how] and what a server sends, in the notation of frames.py."""

from __future__ import annotations

from typing import Any

from fastserve._native.h2_client import Session
from tests.fuzz.frames import check_output, continues, converse, output_of
from tests.fuzz.sampling import sampled

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h:1"),
    (b":path", b"/p"),
    (b"x", b"y"),
]
MAX_ANSWER = 2000


def conversation(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    stream = converse(Side(), data, SETTINGS)
    if sampled(data, 4):
        check_chunks(stream, 1 + len(data) % 60)


class Side:
    """A session with three requests on the way, and its owner."""

    def __init__(self) -> None:
        self.told: dict[int, tuple[Any, ...]] = {}
        self.asked: list[int] = []
        self.cancelled: set[int] = set()
        self.output: list[bytes] = []
        self.gone = False
        self.session = Session(self, MAX_ANSWER)
        for body in (b"", b"a body", bytes(70_000)):
            self.asked.append(self.session.request(HEAD, body))
        self.output.append(self.session.data_to_send(1 << 18))

    def on_answer(self, stream_id: int, status: int, headers: Any, body: Any) -> None:
        assert stream_id in self.asked and stream_id not in self.told and stream_id not in self.cancelled
        assert len(body) <= MAX_ANSWER
        self.told[stream_id] = (status, tuple(headers), bytes(body))

    def on_failed(self, stream_id: int, error_code: int, processed: bool) -> None:
        assert stream_id in self.asked and stream_id not in self.told and stream_id not in self.cancelled
        self.told[stream_id] = (error_code, processed)

    def take(self, part: bytes | tuple[int, int]) -> None:
        if isinstance(part, bytes):
            self.session.feed(part)
        else:
            self.act(*part)

    def act(self, action: int, argument: int) -> None:
        session = self.session
        match action & 7:
            case 0 | 1:
                self.output.append(session.data_to_send(1 << 16))
            case 2:
                self.output.append(session.data_to_send(argument))
            case 3 if not session.broken and not self.gone and len(self.asked) < 20:
                try:
                    self.asked.append(session.request(HEAD, bytes(argument)))
                except RuntimeError as error:
                    assert "no more requests" in str(error)
            case 4 if not self.gone:
                stream_id = self.asked[argument % len(self.asked)]
                session.cancel(stream_id)
                if stream_id not in self.told:
                    self.cancelled.add(stream_id)
            case 5 if not self.gone:
                session.ping()
            case 6 if argument == 1:
                session.close()
                self.gone = True
            case _:
                assert session.max_streams >= 0

    def end(self) -> None:
        self.output.append(output_of(self.session))
        check_output(b"".join(self.output), PREFACE)
        if not self.gone:
            waiting = len(self.asked) - len(self.told) - len(self.cancelled)
            assert self.session.in_flight == waiting, f"{self.session.in_flight} in flight, {waiting} wait"
        self.session.close()


def check_chunks(stream: bytes, size: int) -> None:
    """In one piece or not, the answers are the same."""
    whole, torn = Side(), Side()
    whole.session.feed(stream)
    for at in range(0, len(stream), size):
        torn.session.feed(stream[at : at + size])
    if continues(stream) and (whole.session.broken or torn.session.broken):
        return
    assert whole.session.broken == torn.session.broken
    assert whole.told == torn.told, f"{whole.told} in one piece, {torn.told} in chunks"
    whole.end()
    torn.end()
