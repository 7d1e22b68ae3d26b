"""Worker processes that share one port, and the supervisor that keeps them running.

    def serve(worker: Worker) -> None:              # module-level, so that it can be pickled
        uvloop.run(serve_async(worker))

    async def serve_async(worker: Worker) -> None:
        server = Server(handler)
        await server.start(sock=worker.listen())
        worker.report_ready()
        await worker.stopped()                      # SIGTERM or SIGINT, forwarded
        await server.drain(10.0)

    sys.exit(run_workers(4, serve, host="127.0.0.1", port=6566))

Each worker is a spawned process (nothing is inherited by fork) listening with SO_REUSEPORT. The
supervisor holds the port bound, never listening, so port 0 is one port for all and stays ours.
A worker whose supervisor is gone stops by itself. With one worker there is no second process.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing as mp
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final, TypeAlias

from fastserve.errors import ConfigError
from fastserve.http.server import bind, bind_error

log = logging.getLogger("fastserve.http.workers")

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
STABLE_S: Final = 10.0  # a worker that lived this long starts again without delay
SAME_STOP_S: Final = 1.0  # a signal this soon after the first is the same stop
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """What a target is told about its place.

    Attributes:
        index: 0 .. count - 1.
        count: workers in all.
        host, port: where to listen; the port is a real one, never 0.
    """

    def __init__(self, index: int, count: int, host: str, port: int, pipe: Pipe | None) -> None:
        self.index = index
        self.count = count
        self.host = host
        self.port = port
        self._announce: Announce = ready_line
        self._pipe = pipe
        self._sock: socket.socket | None = None
        self._stop: asyncio.Event | None = None

    def listen(self) -> socket.socket:
        """A socket bound to host:port, for ``Server.start(sock=...)``.

        Raises:
            ConfigError: the port is taken.
        """
        sock, self._sock = self._sock, None
        if sock is not None:
            return sock
        try:
            return bind(self.host, self.port, reuse_port=True)
        except OSError as error:
            raise bind_error(self.host, self.port, error) from error

    def report_ready(self) -> None:
        """Tell the supervisor that this worker answers; the last one prints the ready line.

        Call it within the running event loop: from here on a stop signal is kept for `stopped`.
        """
        self._arm()
        if self._pipe is not None:
            self._pipe.send_bytes(b"ready")
        else:
            print(self._announce(self.count, self.host, self.port), flush=True)

    async def stopped(self) -> None:
        """Returns when the worker should drain: SIGTERM, SIGINT, or the supervisor is gone."""
        try:
            await self._arm().wait()
        finally:
            if self._pipe is not None:
                asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    def _arm(self) -> asyncio.Event:
        """The event that a stop signal, or the end of the supervisor's pipe, sets."""
        if self._stop is None:
            self._stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in STOP_SIGNALS:
                loop.add_signal_handler(number, self._stop.set)
            if self._pipe is not None:
                loop.add_reader(self._pipe.fileno(), self._stop.set)
        return self._stop


Target: TypeAlias = Callable[[Worker], None]
Announce: TypeAlias = Callable[[int, str, int], str]


def ready_line(count: int, host: str, port: int) -> str:
    """The one line that says the service is up."""
    workers = "1 worker" if count == 1 else f"{count} workers"
    return f"fastserve: {workers} ready on {host}:{port}"


def run_workers(
    count: int,
    target: Target,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    stop_timeout_s: float = 30.0,
    max_start_failures: int = 3,
    announce: Announce | None = None,
) -> int:
    """Run `target` in `count` processes until SIGTERM or SIGINT; call it in the main thread.

    Args:
        count: workers; 1 calls `target` in this process.
        target: a picklable callable; see the module's docstring.
        host, port: where the workers listen; port 0 takes a free one.
        stop_timeout_s: a worker still there this long after the stop signal is killed.
        max_start_failures: give up after a worker failed this often in a row before it was ready.
        announce: the line to print when all are ready, from (count, host, port); default `ready_line`.

    Returns:
        the exit status: 0 after a clean stop, 1 when a worker could not be started or had to be killed.

    Raises:
        ConfigError: the port is taken, or `count` is not positive.
    """
    if count < 1:
        raise ConfigError(f"{count} workers", where="workers", hint="give 1 or more")
    reserved = reserve(host, port, shared=count > 1)
    port = int(reserved.getsockname()[1])
    if count == 1:
        worker = Worker(0, 1, host, port, None)
        worker._sock = reserved
        worker._announce = announce or ready_line
        target(worker)
        return 0
    with reserved:
        supervisor = Supervisor(count, target, host, port, stop_timeout_s, max_start_failures)
        supervisor.announce = announce or ready_line
        return supervisor.run()


def reserve(host: str, port: int, *, shared: bool) -> socket.socket:
    """Bind host:port for us alone; `shared` lets our own workers bind it too.

    SO_REUSEPORT would also join a port that another service of this user shares, so the port is
    first bound without it.
    """
    try:
        sock = bind(host, port)
        if shared:
            port = sock.getsockname()[1]
            sock.close()
            sock = bind(host, port, reuse_port=True)
        return sock
    except OSError as error:
        raise bind_error(host, port, error) from error


@dataclass(slots=True)
class Slot:
    """The place of one worker and the process that fills it."""

    index: int
    process: SpawnProcess | None = None
    pipe: Pipe | None = None  # "ready" comes through it, its end tells the worker that we are gone
    ready: bool = False
    started_at: float = 0.0
    start_at: float = 0.0  # when to start again
    failures: int = 0  # in a row, for the delay
    start_failures: int = 0  # in a row, before it was ready


class Supervisor:
    """Starts, watches and stops the workers of one port."""

    def __init__(
        self,
        count: int,
        target: Target,
        host: str,
        port: int,
        stop_timeout_s: float,
        max_start_failures: int,
    ) -> None:
        self.target = target
        self.host = host
        self.port = port
        self.stop_timeout_s = stop_timeout_s
        self.max_start_failures = max_start_failures
        self.announce: Announce = ready_line
        self.slots = [Slot(index) for index in range(count)]
        self.status = 0
        self._announced = False
        self._stopping = False
        self._kill_at = 0.0
        self._kill_reason = f"did not stop in {stop_timeout_s:g} s"
        self._signalled_at = 0.0
        self._spawn = mp.get_context("spawn")
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> int:
        """Until all workers have stopped; the exit status."""
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        wakeup = signal.set_wakeup_fd(self._wake_write.fileno())
        try:
            while not (self._stopping and all(slot.process is None for slot in self.slots)):
                self._step()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for slot in self.slots:
                self._kill(slot)
            self._wake_read.close()
            self._wake_write.close()
        return self.status

    def _on_signal(self, number: int, frame: object) -> None:
        """First signal: drain. Another one later: kill. Launchers often pass one stop on twice, at once."""
        now = time.monotonic()
        if self._stopping:
            if now - self._signalled_at > SAME_STOP_S:
                self._kill_at = now
                self._kill_reason = "was still stopping at the second signal"
        else:
            self._signalled_at = now
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + self.stop_timeout_s
        for slot in self.slots:
            if slot.process is not None:
                slot.process.terminate()

    def _step(self) -> None:
        """Start what is due, then wait for a signal, a message, an end, or the next start."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.process is None and not self._stopping and now >= slot.start_at:
                self._start(slot)
            elif slot.process is not None and self._stopping and now >= self._kill_at:
                log.error("worker %d %s: killed", slot.index, self._kill_reason)
                self.status = 1
                self._kill(slot)
        sources: list[Pipe | socket.socket | int] = [self._wake_read]
        for slot in self.slots:
            if slot.process is not None:
                sources.append(slot.process.sentinel)
            if slot.pipe is not None:
                sources.append(slot.pipe)
        wait(sources, self._next_due(now))
        self._drain_wakeups()
        for slot in self.slots:
            self._look_at(slot)

    def _next_due(self, now: float) -> float | None:
        if self._stopping:
            return max(0.0, self._kill_at - now)
        due = [slot.start_at - now for slot in self.slots if slot.process is None]
        return max(0.0, min(due)) if due else None

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _start(self, slot: Slot) -> None:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_worker_main,
            args=(self.target, slot.index, len(self.slots), self.host, self.port, theirs),
            name=f"fastserve-worker-{slot.index}",
        )
        slot.ready, slot.pipe, slot.process = False, ours, process
        slot.started_at = time.monotonic()
        process.start()
        theirs.close()
        if self._stopping:  # the signal came while the process was being made
            process.terminate()

    def _look_at(self, slot: Slot) -> None:
        if slot.pipe is not None and slot.pipe.poll():
            try:
                slot.pipe.recv_bytes()
                self._on_ready(slot)
            except (EOFError, OSError):
                slot.pipe.close()
                slot.pipe = None
        if slot.process is not None and slot.process.exitcode is not None:
            self._on_exit(slot, slot.process.exitcode)

    def _on_ready(self, slot: Slot) -> None:
        slot.ready = True
        slot.start_failures = 0
        if not self._announced and all(each.ready for each in self.slots):
            self._announced = True
            print(self.announce(len(self.slots), self.host, self.port), flush=True)

    def _on_exit(self, slot: Slot, exitcode: int) -> None:
        was_ready = slot.ready
        self._release(slot)
        if self._stopping:
            if exitcode not in (0, -signal.SIGTERM):
                log.error("worker %d ended with status %d while stopping", slot.index, exitcode)
                self.status = 1
            return
        now = time.monotonic()
        slot.failures = 1 if now - slot.started_at > STABLE_S else slot.failures + 1
        slot.start_failures = 0 if was_ready else slot.start_failures + 1
        if slot.start_failures >= self.max_start_failures:
            log.error(
                "worker %d failed %d times before it was ready (last status %d): giving up",
                slot.index,
                slot.start_failures,
                exitcode,
            )
            self.status = 1
            self._stop()
            return
        delay = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (slot.failures - 1))
        slot.start_at = now + delay
        log.warning("worker %d ended with status %d: again in %g s", slot.index, exitcode, delay)

    def _kill(self, slot: Slot) -> None:
        if slot.process is not None:
            slot.process.kill()
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        if slot.process is not None:
            slot.process.join()
            slot.process.close()
        if slot.pipe is not None:
            slot.pipe.close()
        slot.process = slot.pipe = None
        slot.ready = False


def _worker_main(target: Target, index: int, count: int, host: str, port: int, pipe: Pipe) -> None:
    # Ctrl-C reaches the whole process group; the supervisor's SIGTERM is what counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(Worker(index, count, host, port, pipe))
