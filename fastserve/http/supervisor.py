"""The supervisor of the workers of one port: starts, watches, replaces and stops them.

A slot is the place of one worker: its listening socket, which the supervisor holds for as long as it runs, and the
process that accepts on it. A socket that closes resets the connections in its queue, and a change of the number of
listeners moves half-open ones to a listener that does not know them; here neither ever happens.

    crash      another worker adopts the slot's socket until the slot has a worker again, started after a delay
    SIGHUP     slot by slot: a new process is started on the slot's socket; once it is ready the old one is told to
               retire, and only when that is gone the next slot's turn comes. A new process that fails, or is not
               ready in time, ends the restart: the old ones go on serving. Another SIGHUP meanwhile: once more,
               from the start
    SIGTERM    all drain, whatever was going on
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing as mp
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final, TypeAlias

from fastserve.http.worker import (
    NOT_FOR_WORKERS,
    RESTART_SIGNAL,
    STOP_SIGNALS,
    Announce,
    Worker,
    worker_main,
)

log = logging.getLogger("fastserve.http.workers")

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
STABLE_S: Final = 10.0  # a worker that lived this long starts again without delay
SAME_STOP_S: Final = 1.0  # a signal this soon after the first is the same stop

Target: TypeAlias = Callable[[Worker], None]


@dataclass(slots=True, eq=False)
class Child:
    """One process of a slot."""

    process: SpawnProcess
    pipe: Pipe | None  # see worker.py; its end tells the worker that we are gone
    started_at: float
    kill_at: float  # math.inf: not
    kill_reason: str
    ready: bool = False
    killed: bool = False
    why: str = ""  # what it said of its failure

    def tell(self, word: str) -> None:
        """A word of worker.py's; one that is ending does not hear it, and need not."""
        if self.pipe is not None:
            with contextlib.suppress(OSError):
                self.pipe.send_bytes(word.encode())


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one worker."""

    index: int
    sock: socket.socket
    current: Child | None = None  # serves, or is to
    successor: Child | None = None  # replaces it once it is ready
    leaving: Child | None = None  # replaced, finishing what it has
    adopter: Child | None = None  # another slot's, accepting while nobody does here
    start_at: float = 0.0  # when to start again
    failures: int = 0  # in a row, for the delay
    start_failures: int = 0  # in a row, before it was ready

    @property
    def children(self) -> list[Child]:
        """All its processes."""
        return [child for child in (self.current, self.successor, self.leaving) if child is not None]

    def role(self, child: Child) -> str:
        """Which attribute a process of this slot is."""
        return next(name for name in ("current", "successor", "leaving") if getattr(self, name) is child)

    @property
    def serving(self) -> Child | None:
        """The one that accepts, if any does."""
        return self.current if self.current is not None and self.current.ready else None


class Supervisor:
    """See the module's docstring. Arguments as run_workers; it closes the sockets."""

    def __init__(
        self,
        target: Target,
        host: str,
        sockets: list[socket.socket],
        *,
        stop_timeout_s: float,
        start_timeout_s: float,
        max_start_failures: int,
        announce: Announce,
    ) -> None:
        self.target = target
        self.host = host
        self.port = int(sockets[0].getsockname()[1])
        self.stop_timeout_s = stop_timeout_s
        self.start_timeout_s = start_timeout_s
        self.max_start_failures = max_start_failures
        self.announce = announce
        self.slots = [Slot(index, sock) for index, sock in enumerate(sockets)]
        self.status = 0
        self._announced = False
        self._stopping = False
        self._stop_asked_at = 0.0  # signal handlers only set flags: the loop may be in the middle of anything
        self._kill_asked = False
        self._restart_asked = False
        self._rolling: deque[Slot] | None = None  # slots whose turn is still to come, the present one first
        self._rolling_since = 0.0
        self._spawn = mp.get_context("spawn")
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> int:
        """Until all workers have stopped; the exit status."""
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        handlers = {number: signal.signal(number, self._on_stop_signal) for number in STOP_SIGNALS}
        handlers[RESTART_SIGNAL] = signal.signal(RESTART_SIGNAL, self._on_restart_signal)
        wakeup = signal.set_wakeup_fd(self._wake_write.fileno())
        try:
            while not (self._stopping and not any(slot.children for slot in self.slots)):
                self._step()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for slot, child in list(self._all()):
                child.process.kill()
                self._release(slot, child)
            for end in (self._wake_read, self._wake_write, *(slot.sock for slot in self.slots)):
                end.close()
        return self.status

    def _all(self) -> Iterator[tuple[Slot, Child]]:
        for slot in self.slots:
            for child in slot.children:
                yield slot, child

    # ---- signals ----

    def _on_stop_signal(self, number: int, frame: object) -> None:
        """First signal: drain. Another one later: kill. Launchers often pass one stop on twice, at once."""
        now = time.monotonic()
        if not self._stop_asked_at:
            self._stop_asked_at = now
        elif now - self._stop_asked_at > SAME_STOP_S:
            self._kill_asked = True

    def _on_restart_signal(self, number: int, frame: object) -> None:
        self._restart_asked = True

    def _stop(self) -> None:
        self._stopping = True
        for _, child in self._all():
            self._leave(child)
            child.process.terminate()
        for slot in self.slots:
            slot.sock.close()  # the workers close theirs: from then on connections are refused

    def _leave(self, child: Child) -> None:
        child.kill_at = time.monotonic() + self.stop_timeout_s
        child.kill_reason = f"did not stop in {self.stop_timeout_s:g} s"

    # ---- the loop ----

    def _step(self) -> None:
        """Do what is due, then wait for a signal, a message, an end, or the next thing due."""
        now = time.monotonic()
        if self._stop_asked_at and not self._stopping:
            self._stop()
        for slot in self.slots:
            empty = slot.current is None and slot.successor is None
            if empty and not self._stopping and now >= slot.start_at:
                slot.current = self._start(slot)
        self._roll(now)
        self._arrange()
        self._kill_overdue(now)
        sources: list[Pipe | socket.socket | int] = [self._wake_read]
        for _, child in self._all():
            sources.append(child.process.sentinel)
            if child.pipe is not None:
                sources.append(child.pipe)
        wait(sources, self._next_due(now))
        self._drain_wakeups()
        for slot, child in list(self._all()):
            self._look_at(slot, child)

    def _kill_overdue(self, now: float) -> None:
        for slot, child in self._all():
            late, reason = now >= child.kill_at, child.kill_reason
            if self._kill_asked and not child.killed:
                late, reason = True, "was still stopping at the second signal"
            if late:
                log.error("worker %d %s: killed", slot.index, reason)
                child.why = child.why or f"it {reason}, and was killed"
                child.kill_at, child.killed = math.inf, True
                child.process.kill()

    def _next_due(self, now: float) -> float | None:
        if self._restart_asked and self._rolling is None and self._announced and not self._stopping:
            return 0.0
        due = [child.kill_at for _, child in self._all()]
        if not self._stopping:
            due += [slot.start_at for slot in self.slots if slot.current is None and slot.successor is None]
        first = min(due, default=math.inf)
        return None if first == math.inf else max(0.0, first - now)

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _start(self, slot: Slot) -> Child:
        ours, theirs = self._spawn.Pipe()
        sockets = [each.sock for each in self.slots]
        process = self._spawn.Process(
            target=worker_main,
            args=(self.target, slot.index, len(sockets), self.host, self.port, theirs, sockets),
            name=f"fastserve-worker-{slot.index}",
        )
        now = time.monotonic()
        reason = f"was not ready in {self.start_timeout_s:g} s"
        child = Child(process, ours, now, now + self.start_timeout_s, reason)
        # It inherits what is blocked, and unblocks it once it ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return child

    def _look_at(self, slot: Slot, child: Child) -> None:
        try:
            while child.pipe is not None and child.pipe.poll():
                word, _, text = child.pipe.recv_bytes().decode().partition(" ")
                if word == "ready":
                    self._on_ready(slot, child)
                else:
                    child.why = "; ".join(line.strip() for line in text.splitlines())
        except (EOFError, OSError):
            if child.pipe is not None:
                child.pipe.close()
                child.pipe = None
        if child.process.exitcode is not None:
            self._on_exit(slot, child, child.process.exitcode)

    def _on_ready(self, slot: Slot, child: Child) -> None:
        child.ready = True
        slot.start_failures = 0
        if self._stopping:
            return
        child.kill_at = math.inf
        if child is slot.successor:
            old, slot.current, slot.successor = slot.current, child, None
            if old is not None:
                slot.leaving = old
                self._leave(old)
                old.tell("retire")
        if not self._announced and all(each.serving for each in self.slots):
            self._announced = True
            print(self.announce(len(self.slots), self.host, self.port), flush=True)

    # ---- ends ----

    def _on_exit(self, slot: Slot, child: Child, status: int) -> None:
        role = slot.role(child)
        self._release(slot, child)
        if self._stopping:
            if child.killed or status not in (0, -signal.SIGTERM):
                self.status = 1
                if not child.killed:
                    log.error("worker %d ended with status %d while stopping", slot.index, status)
        elif role == "leaving":
            if status:
                log.warning("worker %d, replaced, ended with status %d", slot.index, status)
        elif role == "successor":
            self._give_up_restart(slot, child, status)
        else:
            self._on_crash(slot, child, status)

    def _on_crash(self, slot: Slot, child: Child, status: int) -> None:
        now = time.monotonic()
        slot.failures = 1 if now - child.started_at > STABLE_S else slot.failures + 1
        slot.start_failures = 0 if child.ready else slot.start_failures + 1
        others = self._announced and any(each.serving for each in self.slots)
        if slot.start_failures >= self.max_start_failures and not others:
            log.error(
                "worker %d failed %d times before it was ready (last status %d): giving up",
                slot.index,
                slot.start_failures,
                status,
            )
            self.status = 1
            self._stop()
            return
        delay = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(slot.failures - 1, 10))
        slot.start_at = now + delay
        log.warning("worker %d ended with status %d: again in %g s", slot.index, status, delay)
        if self._rolling and self._rolling[0] is slot and not child.ready:
            self._give_up_restart(slot, child, status)

    def _release(self, slot: Slot, child: Child) -> None:
        setattr(slot, slot.role(child), None)
        child.process.join()
        child.process.close()
        if child.pipe is not None:
            child.pipe.close()
            child.pipe = None

    # ---- the rolling restart ----

    def _roll(self, now: float) -> None:
        """One step on in the restart, if one is asked for or under way."""
        if self._stopping:
            return
        if self._restart_asked and self._rolling is None and self._announced:
            self._restart_asked = False
            self._rolling, self._rolling_since = deque(self.slots), now
            log.info("restarting %d workers, one by one", len(self.slots))
            for slot in self.slots:
                slot.start_at = min(slot.start_at, now)  # it may be the cure for those that crash
        while self._rolling:
            slot = self._rolling[0]
            child = slot.serving
            if child is None or slot.successor is not None or slot.leaving is not None:
                return
            if child.started_at < self._rolling_since:
                slot.successor = self._start(slot)
                return
            self._rolling.popleft()
        if self._rolling is not None:
            self._rolling = None
            log.info("all %d workers are restarted", len(self.slots))

    def _give_up_restart(self, slot: Slot, child: Child, status: int) -> None:
        if self._rolling is None:
            return
        old = ", ".join(str(each.index) for each in self._rolling)
        self._rolling = None
        log.error(
            "the restart ends here, the new worker %d does not serve: %s. Not restarted, serving as before: %s",
            slot.index,
            child.why or f"it ended with status {status}",
            old,
        )

    # ---- slots without a worker ----

    def _arrange(self) -> None:
        """While a slot has no worker that accepts, another's does; or its connections would wait."""
        if self._stopping or not self._announced:
            return
        serving = [slot.serving for slot in self.slots]
        for slot in self.slots:
            wanted = None
            if slot.serving is None:
                after = serving[slot.index + 1 :] + serving[: slot.index]
                wanted = next((child for child in after if child is not None), None)
                if slot.adopter is not None and slot.adopter in serving:
                    wanted = slot.adopter
            if wanted is not slot.adopter:
                if slot.adopter is not None:
                    slot.adopter.tell(f"release {slot.index}")
                if wanted is not None:
                    wanted.tell(f"adopt {slot.index}")
                slot.adopter = wanted
