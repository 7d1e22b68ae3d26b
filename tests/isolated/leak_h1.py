"""Connections of HTTP/1.1: answered, pipelined, cut off, malformed, too large."""

import asyncio
import logging

from fastserve.http.connection import Context
from fastserve.http.h1 import H1Connection
from fastserve.http.limits import Limits
from fastserve.http.message import Response
from tests.isolated.meter import run
from tests.unit.http.test_h1_chunks import Wire

NATIVES = ()
logging.getLogger("fastserve.http").addHandler(logging.NullHandler())  # why each connection ended
LOOP = asyncio.new_event_loop()
CONTEXT = Context(lambda request: Response(200, "a/b", request.body), Limits(max_body_bytes=500), LOOP)
POST = b"POST /p?q=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nx-y: z\r\n\r\nhello"
STREAMS = [
    POST * 3,
    POST + POST[:40],
    POST + POST[:-2],
    b"NONSENSE\r\n\r\n" + POST,
    POST.replace(b" 5", b" 5000"),
    POST.replace(b"content-length: 5", b"transfer-encoding: chunked") + b"\r\nzz\r\n",
]


def once(i: int) -> None:
    connection = H1Connection(CONTEXT)
    connection.connection_made(Wire())
    stream = STREAMS[i % len(STREAMS)]
    connection.data_received(stream[:20])
    connection.data_received(stream[20:])
    connection.connection_lost(None)


if __name__ == "__main__":
    run(once)
    LOOP.close()
