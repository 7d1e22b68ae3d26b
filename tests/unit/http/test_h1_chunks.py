"""HTTP/1.1: any split of the same bytes gives the same requests and the same output."""

import asyncio
import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.http.connection import Context
from fastserve.http.h1 import H1Connection
from fastserve.http.limits import Limits
from fastserve.http.message import Response

CONVERSATION = (
    b"GET /first?x=1 HTTP/1.1\r\nhost: h\r\nx-empty:\r\n\r\n"
    b"POST /length HTTP/1.1\r\nhost: h\r\ncontent-length: 11\r\n\r\nhello world"
    b"\r\nPOST /chunked HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nx-trailer: t\r\n\r\n"
    b"POST /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    b"content-length: 4\r\n\r\nGET "
    b"HEAD /head HTTP/1.1\r\nhost: h\r\n\r\n"
    b"GET /last HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    b"GET /ignored HTTP/1.1\r\nhost: h\r\n\r\n"
)
ENDINGS = [b"", b"BAD\r\n\r\n", b"POST / HTTP/1.1\r\nhost: h\r\n\r\n"]


class Wire(asyncio.Transport):
    """A transport into memory."""

    def __init__(self):
        super().__init__()
        self.sent = bytearray()
        self.closing = False

    def write(self, data):
        self.sent += data

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def pause_reading(self):
        raise AssertionError("every request is answered at once")

    resume_reading = pause_reading


def play(pieces):
    loop = asyncio.new_event_loop()
    try:
        seen = []

        def handler(request):
            seen.append((request.method, request.path, request.query, request.headers, request.body))
            return Response(200, "a/b", request.body[::-1])

        wire = Wire()
        connection = H1Connection(Context(handler, Limits(), loop))
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        return seen, re.sub(rb"date: [^\r]*", b"", bytes(wire.sent)), wire.closing
    finally:
        loop.close()


def test_whole():
    seen, sent, closed = play([CONVERSATION])
    assert [path for _, path, *_ in seen] == [
        "/first",
        "/length",
        "/chunked",
        "/upgrade",
        "/head",
        "/last",
    ]
    assert [body for *_, body in seen] == [b"", b"hello world", b"hello0123456789", b"GET ", b"", b""]
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == 6 and closed


@settings(max_examples=150, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(CONVERSATION)), max_size=12),
    keep=st.integers(0, len(CONVERSATION)),
    ending=st.sampled_from(ENDINGS),
)
def test_chunks_do_not_matter(cuts, keep, ending):
    data = CONVERSATION[:keep] + ending
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert play([data[a:b] for a, b in pairwise(edges)]) == play([data])


def test_byte_by_byte():
    assert play([bytes([byte]) for byte in CONVERSATION]) == play([CONVERSATION])


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.binary(max_size=40), max_size=6))
def test_garbage_never_raises(pieces):
    play(pieces)
