"""Connections to an HTTP/2 server: answers, resets, what is too large or malformed, requests given up."""

from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from fastserve._native.h2_client import Session
from tests.isolated.meter import run

NATIVES = ("h2_client",)
HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h:1"),
    (b":path", b"/p"),
    (b"x", b"y"),
]
BAD_HEAD = [*HEAD, (b"not a name", b"y")]
OK = Encoder().encode([(":status", "200"), ("x-y", "z" * 50)])


def answer(stream_id: int, size: int) -> bytes:
    head = HeadersFrame(stream_id, OK, flags=["END_HEADERS"])
    return head.serialize() + DataFrame(stream_id, bytes(size), flags=["END_STREAM"]).serialize()


START = SettingsFrame(0, {3: 10}).serialize()
STREAMS = [
    START + answer(1, 100) + answer(3, 9_000) + RstStreamFrame(5, 7).serialize(),
    START + answer(1, 10)[:-3] + GoAwayFrame(0, last_stream_id=1).serialize(),
    START + answer(3, 100)[:70] + bytes([0, 0, 9, 4, 0, 0, 0, 0, 1]) + bytes(9),
    START + answer(5, 0) + answer(1, 5_000) + answer(3, 5_001),
]


class Owner:
    """Counts."""

    told = 0

    def on_answer(self, *outcome: object) -> None:
        self.told += 1

    on_failed = on_answer


def once(i: int) -> None:
    owner = Owner()
    session = Session(owner, 5_000)
    ids = [session.request(HEAD, bytes(size)) for size in (0, 3_000, 70_000)]
    if i % 3 == 0:
        try:
            session.request(BAD_HEAD, b"")
            raise SystemExit("nothing was raised")
        except ValueError:
            session.cancel(ids[i % 2])
    session.data_to_send(1 << 16)
    session.feed(STREAMS[i % len(STREAMS)])
    session.ping()
    session.data_to_send(1 << 16)
    assert owner.told >= (i % 4 == 0)
    if i % 2:
        session.close()


if __name__ == "__main__":
    run(once)
