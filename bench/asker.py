"""A client that asks for many different entities and costs little: the project's own HTTP/2 session, and callbacks.

h2load sends one body only. Here each request is of other entities, asked as a tensor; a sample of the answers is
checked. The process that asks pins itself to the clients' core.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import uvloop

from bench.measure import quiet
from bench.processes import CLIENT_CORE
from bench.world import TENSOR, body_of, check, values
from fastserve.client.h2 import PULL_BYTES, Session
from fastserve.client.session import Buffer

Answered = Callable[[Buffer], None]
Ids = npt.NDArray[np.int64]

CHECK_EVERY: Final = 101
_POST: Final = (
    b"POST /online-features/batch HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/vnd.fastserve.tensor\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


class Connection(asyncio.Protocol):
    """One HTTP/2 connection to a server's batch endpoint.

    Attributes:
        lost: resolves when the connection ends; its exception is what went wrong, a refused request too.
        transport: of the connection.
    """

    transport: asyncio.Transport

    def __init__(self, port: int, accept: str = TENSOR) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._session = Session(self, 1 << 24)
        self._waiting: dict[int, Answered] = {}
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"127.0.0.1:%d" % port),
            (b":path", b"/online-features/batch"),
            (b"accept", accept.encode()),
            (b"content-type", b"application/json"),
        ]
        self._flushing = False

    def ask(self, body: bytes, answered: Answered) -> int:
        """Send a request at the end of this tick; the stream's id."""
        stream = self._session.request(self._headers, body)
        self._waiting[stream] = answered
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return stream

    async def answer(self, body: bytes) -> Buffer:
        """One request and its answer."""
        future: asyncio.Future[Buffer] = self._loop.create_future()
        self.ask(body, future.set_result)
        await asyncio.wait((future, self.lost), return_when=asyncio.FIRST_COMPLETED)
        return future.result() if future.done() else self._ended()

    def cancel(self, stream: int) -> None:
        """Send RST_STREAM: nobody waits for the answer."""
        del self._waiting[stream]
        self._session.cancel(stream)
        self._flush()

    def _ended(self) -> Buffer:
        self.lost.result()
        raise ConnectionError("the server closed the connection")

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._session.feed(data)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.close()
        if not self.lost.done():
            self.lost.set_result(None)

    def _flush(self) -> None:
        self._flushing = False
        while data := self._session.data_to_send(PULL_BYTES):
            self.transport.write(data)

    # ---- session.Owner ----

    def on_answer(
        self, stream_id: int, status: int, headers: list[tuple[bytes, bytes]], body: Buffer
    ) -> None:
        answered = self._waiting.pop(stream_id, None)
        if status != 200:
            self._fail(f"answered {status}: {bytes(body)[:200]!r}")
        elif answered is not None:
            answered(body)

    def on_failed(self, stream_id: int, error_code: int, processed: bool) -> None:
        self._fail(f"a request was reset with {error_code}")

    def _fail(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_exception(RuntimeError(why))


async def connect(port: int, accept: str = TENSOR) -> Connection:
    """A connection to a server on this machine."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(port, accept), "127.0.0.1", port)
    return connection


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run of requests took.

    Attributes:
        seconds: all of it.
        times_us: float64[requests], of each, in the order of the answers.
    """

    seconds: float
    times_us: npt.NDArray[np.float64]

    def quantile_us(self, q: float) -> float:
        """Of the times of requests."""
        return float(np.quantile(self.times_us, q))


def ask_all(port: int, ids: Ids, *, connections: int = 8, streams: int = 10) -> Asked:
    """A request for each row of ids, so many at a time; a sample of the answers is checked.

    Raises:
        RuntimeError: a request was refused or failed.
        AssertionError: an answer was wrong.
    """
    os.sched_setaffinity(0, {CLIENT_CORE})
    with quiet():
        return uvloop.run(_ask_all(port, ids, connections, streams))


async def _ask_all(port: int, ids: Ids, connections: int, streams: int) -> Asked:
    opened = [await connect(port) for _ in range(connections)]
    run = _Run(ids)
    begun = time.perf_counter_ns()
    for _ in range(streams):
        for connection in opened:
            run.send(connection)
    lost = [connection.lost for connection in opened]
    await asyncio.wait((run.done, *lost), return_when=asyncio.FIRST_COMPLETED)
    for connection in opened:
        if connection.lost.done():
            connection.lost.result()
        connection.transport.abort()
    run.done.result()
    return Asked((run.ended_ns - begun) / 1e9, np.array(run.times_ns, np.float64) / 1e3)


def ask_in_turn(port: int, ids: Ids) -> Asked:
    """A request for each row of ids, one at a time over HTTP/1.1 on a blocking socket: the client that adds least.

    Raises:
        AssertionError: an answer was wrong.
    """
    os.sched_setaffinity(0, {CLIENT_CORE})
    size = values(ids[0]).nbytes
    questions = [_POST % (len(body), body) for body in map(body_of, ids.tolist())]
    times = array("q")
    with quiet(), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for question, wanted in zip(questions, ids, strict=True):
            begun = time.perf_counter_ns()
            sock.sendall(question)
            answer = sock.recv(1 << 20)
            while len(answer) <= size or not _whole(answer):
                answer += sock.recv(1 << 20)
            times.append(time.perf_counter_ns() - begun)
            if len(times) % CHECK_EVERY == 1:
                check(answer.partition(b"\r\n\r\n")[2], TENSOR, wanted.tolist())
    return Asked(sum(times) / 1e9, np.array(times, np.float64) / 1e3)


def _whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer[:500]
    return len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])


class _Run:
    """Requests of one run: as one is answered, its connection sends the next."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._sent = 0
        self.times_ns = array("q")
        self.ended_ns = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, connection: Connection) -> None:
        number = self._sent
        if number == len(self._ids):
            return
        self._sent += 1
        begun = time.perf_counter_ns()

        def answered(answer: Buffer) -> None:
            now = time.perf_counter_ns()
            self.times_ns.append(now - begun)
            if number % CHECK_EVERY == 0:
                self._check(bytes(answer), number)
            self.send(connection)
            if len(self.times_ns) == len(self._ids):
                self.ended_ns = now
                self.done.set_result(None)

        connection.ask(body_of(self._ids[number].tolist()), answered)

    def _check(self, answer: bytes, number: int) -> None:
        try:
            check(answer, TENSOR, self._ids[number].tolist())
        except AssertionError as wrong:
            if not self.done.done():
                self.done.set_exception(wrong)
