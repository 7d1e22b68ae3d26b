"""One worker's side of the supervision: its listening sockets, its readiness, and what it is told.

The supervisor hands each worker the listening sockets of all slots. It accepts on its own; on a sibling's only while
told to, because that one crashed and its connections would wait. What goes through the pipe:

    ready                      to the supervisor: requests are answered
    failed <why>               to the supervisor: it will end before it is ready
    adopt <slot>               accept for this slot too
    release <slot>             no longer: its own worker is back
    retire                     a successor serves: drain, and take the time it takes

The pipe's end means that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection as Pipe
from typing import Final, TypeAlias

from fastserve.http.server import bind, bind_error

log = logging.getLogger("fastserve.http.workers")

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
RESTART_SIGNAL: Final = signal.SIGHUP
# Ctrl-C and a terminal's end reach the whole process group: the supervisor's word is what counts.
NOT_FOR_WORKERS: Final = (signal.SIGINT, RESTART_SIGNAL)

StopListening: TypeAlias = Callable[[], None]
Listen: TypeAlias = Callable[[socket.socket], Awaitable[StopListening]]
Announce: TypeAlias = Callable[[int, str, int], str]


def ready_line(count: int, host: str, port: int) -> str:
    """The one line that says the service is up."""
    workers = "1 worker" if count == 1 else f"{count} workers"
    return f"fastserve: {workers} ready on {host}:{port}"


class Worker:
    """What a target is told about its place.

    Args:
        pipe: to the supervisor; None for a worker alone.
        sockets: slot -> its listening socket.
        announce: the ready line of a worker alone.

    Attributes:
        index: 0 .. count - 1.
        count: workers in all.
        host, port: where to listen; the port is a real one, never 0.
    """

    def __init__(
        self,
        index: int,
        count: int,
        host: str,
        port: int,
        pipe: Pipe | None,
        sockets: Mapping[int, socket.socket],
        announce: Announce = ready_line,
    ) -> None:
        self.index = index
        self.count = count
        self.host = host
        self.port = port
        self._pipe = pipe
        self._sockets = dict(sockets)
        self._announce = announce
        self._listen: Listen | None = None
        self._adopted: dict[int, asyncio.Future[StopListening]] = {}
        self._leave: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None

    def listen(self) -> socket.socket:
        """A socket bound to host:port, for ``Server.start(sock=...)``; the server owns it.

        Raises:
            ConfigError: the port is taken.
        """
        sock = self._sockets.pop(self.index, None)
        if sock is not None:
            return sock
        try:
            return bind(self.host, self.port, reuse_port=True)
        except OSError as error:
            raise bind_error(self.host, self.port, error) from error

    def report_ready(self, listen: Listen | None = None) -> None:
        """Tell the supervisor that this worker answers; the last one prints the ready line.

        Call it within the running event loop: from here on a stop signal is kept for `stopped`.

        Args:
            listen: ``Server.listen``, to accept for a sibling that crashed until that is replaced.
        """
        self._listen = listen
        self._arm()
        if self._pipe is not None:
            self._pipe.send_bytes(b"ready")
        else:
            print(self._announce(self.count, self.host, self.port), flush=True)

    def report_failure(self, why: str) -> None:
        """Tell the supervisor why this worker is about to end before it was ready."""
        if self._pipe is not None:
            self._pipe.send_bytes(b"failed " + why.encode()[:4_000])

    async def stopped(self) -> None:
        """Returns when the worker should drain: SIGTERM, SIGINT, replaced, or the supervisor is gone."""
        await self._arm().wait()
        for sock in self._sockets.values():  # or connections would wait at a port that nobody serves
            sock.close()
        self._sockets.clear()

    @property
    def hurry(self) -> asyncio.Event:
        """Set unless this worker is replaced by a successor that serves already; for ``Server.drain``."""
        self._arm()
        assert self._hurry is not None
        return self._hurry

    def _arm(self) -> asyncio.Event:
        """The event that a stop signal, the supervisor's word or its end sets."""
        if self._leave is None:
            self._leave, self._hurry = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in STOP_SIGNALS:
                loop.add_signal_handler(number, self._stop)
            if self._pipe is not None:
                loop.add_reader(self._pipe.fileno(), self._hear)
            else:
                loop.add_signal_handler(RESTART_SIGNAL, _no_restart)
        return self._leave

    def _stop(self) -> None:
        assert self._leave is not None and self._hurry is not None
        self._hurry.set()
        self._leave.set()

    def _hear(self) -> None:
        assert self._pipe is not None and self._leave is not None
        try:
            while self._pipe.poll():
                word, _, slot = self._pipe.recv_bytes().decode().partition(" ")
                if word == "retire":
                    self._leave.set()
                elif word == "adopt":
                    self._adopt(int(slot))
                elif word == "release":
                    self._release(int(slot))
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._stop()

    def _adopt(self, slot: int) -> None:
        sock = self._sockets.get(slot)
        if sock is not None and self._listen is not None and slot not in self._adopted:
            log.info("worker %d: accepting for worker %d too", self.index, slot)
            self._adopted[slot] = asyncio.ensure_future(self._listen(sock.dup()))

    def _release(self, slot: int) -> None:
        listening = self._adopted.pop(slot, None)
        if listening is not None:
            listening.add_done_callback(lambda done: done.result()())


def _no_restart() -> None:
    log.warning(
        "SIGHUP restarts nothing here: one worker has no supervisor; with 2 or more they are replaced one by one"
    )


def worker_main(
    target: Callable[[Worker], None],
    index: int,
    count: int,
    host: str,
    port: int,
    pipe: Pipe,
    sockets: list[socket.socket],
) -> None:
    """What a worker's process runs. The supervisor started it with NOT_FOR_WORKERS blocked."""
    for number in NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_WORKERS)
    for sock in sockets:
        sock.set_inheritable(False)
    target(Worker(index, count, host, port, pipe, dict(enumerate(sockets))))


def open_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets bound to host:port (0: a free one) for us alone.

    SO_REUSEPORT would also join a port that another service of this user shares, so the port is
    first bound without it.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        sock = bind(host, port)
        if count == 1:
            return [sock]
        port = int(sock.getsockname()[1])
        sock.close()
        return [bind(host, port, reuse_port=True) for _ in range(count)]
    except OSError as error:
        raise bind_error(host, port, error) from error
