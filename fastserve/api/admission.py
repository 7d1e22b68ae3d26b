"""More is asked of a server than it can do: it answers what it admitted, and refuses the rest at once.

    request ──► idle: answered where it was parsed
            ──► busy: queue ──► slices of SLICE_US, the loop's I/O between ──► answer, or wait for the store
            ──► queue full: the gate is shut, and the front end refuses with 429 and Retry-After

A server of one thread is never busy while it parses, so a count of requests would say nothing: what is bounded is the
time that what is queued will take, estimated from what the same kind of request took lately. Between two slices the
loop reads sockets, so a refusal waits for a slice and not for the queue.

A burst may fill the queue (max_queue_ms), and so may a few callers that all wait for their answers. A queue of many
that stands only makes every answer late, and dearer: to be queued and called again costs a hit a seventh more. So where
it overflows, or has been a crowd for PATIENCE_S, the worker is overloaded, and the queue is no way in any more: in each
turn of the loop requests are answered where they are parsed while there is time for it, and the gate is shut for the
rest of the turn. Queued is only what had been read by then, or the gate does not know, up to STANDING_US. That ends
when nothing was refused for CALM_S.

Reads that wait for the store count too then, by what is left to do when it has answered: up to STANDING_US, and more of
them by its shortest round trip, for a store far away keeps many waiting without anything being late. A worker with time
to spare is not overloaded: while the store is slow, reads that wait are bounded by their number of keys alone, and what
the cache can answer is not refused for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeAlias, TypeVar

from fastserve.api.errors import error_response
from fastserve.api.hits import FIRST_GUESS_US, GAIN, LOOK_US, SLICE_US, Kind, Load
from fastserve.errors import FastserveError, OverloadedError
from fastserve.http.gate import Gate
from fastserve.http.message import Response

TURN_US: Final = 4_500.0  # slice and I/O under overload; a refusal waits for two at most
LEAST_SLICE_US, LONGEST_SLICE_US = 1_000.0, 4_000.0
STANDING_US: Final = 10_000.0
CALM_US: Final = 1_000.0  # of pending work that is no queue
CALM_S: Final = 0.1
CROWD: Final = 128  # requests: more than a few callers have in flight
CROWD_SHARE: Final = 0.1  # of max_queue_ms, that a crowd has to come to
PATIENCE_S: Final = 0.1
LOOK_S: Final = 0.05  # between two looks at how busy this thread is
BUSY: Final = 0.7
REST: Final = 0.2  # of an idler look in the mean: who is stopped for a moment, by a quota say, is still busy
TRIP_CREEP: Final = (
    1e-5  # how much of a longer round trip moves the shortest known one: a store may move away
)
MAX_KINDS: Final = 4_096

Answer: TypeAlias = Response | asyncio.Future[Response]
Work: TypeAlias = Callable[[], Answer]
Refuse: TypeAlias = Callable[[FastserveError], Response]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True)
class _Queued:
    work: Work
    kind: Kind
    keys: int
    guess_us: float
    answer: asyncio.Future[Response]
    expires: float
    refuse: Refuse


class Admission:
    """See the module's docstring. One for each worker, on its event loop.

    Args:
        max_queue_ms: estimated work that a burst may leave queued.
        max_waiting_keys: keys that admitted reads may be waiting for in the store.
        gate: of the front end; shut while the queue is full.

    Attributes:
        load: how busy this worker is, for hits.
    """

    def __init__(
        self, max_queue_ms: float = 200.0, max_waiting_keys: int = 200_000, gate: Gate | None = None
    ) -> None:
        self._limit_us = max_queue_ms * 1_000
        self._max_waiting = max_waiting_keys
        self._gate = Gate() if gate is None else gate
        self._queue: deque[_Queued] = deque()
        self._queued_us = 0.0
        self._late_us = 0.0  # of reads that wait for the store: work to come when it has answered
        self._standing = self._overflowed = self._full = False
        self._turned_at = self._turned_us = 0.0  # when the last turn began to read sockets, and busy_us then
        self._refusals, self._refused_at = 0, 0.0  # how many there were, and when the newest was seen
        self._look_later: asyncio.TimerHandle | None = None  # while overloaded: requests may come no more
        self._alone_at = perf_counter()  # when there was last no crowd
        self._looked_at, self._ran_s = perf_counter(), _ran_s()
        self._busy = 0.0  # share of the time, lately
        self._trip_us = 0.0  # the store's shortest round trip
        self.load = Load(self._schedule, self._judge)
        self._inside = False
        self._waiting = self._waiting_keys = 0
        self._kinds: dict[Hashable, Kind] = {}
        self._refused = self._expired = self._deferred = 0

    def kind(self, shape: Hashable, keys: int) -> Kind:
        """Requests of a shape, told apart by powers of two: 110 keys cost about as much as 100."""
        name = (shape, keys.bit_length())
        known = self._kinds.get(name)
        if known is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            known = self._kinds[name] = Kind()
        return known

    def may_begin(self, keys: int) -> bool:
        """Whether a read of so many keys may begin in this very call; if not, `run` queues it.

        Raises:
            OverloadedError: too many keys are being waited for already.
        """
        if self._waiting:
            if self._waiting_keys + keys > self._max_waiting:
                raise self._overloaded(f"reads of {self._waiting_keys:,} keys wait for the online store")
            if self._gate.shut:
                return False
        return self.load.busy_us < self.load.slice_us and not self._queue

    def run(
        self,
        kind: Kind,
        keys: int,
        work: Work,
        deadline_us: int | None = None,
        refuse: Refuse = error_response,
    ) -> Answer:
        """Do the work now, or soon.

        Args:
            keys: how many keys it reads.
            work: makes the answer. Called here, or later on the loop.
            deadline_us: work that is still queued then is refused.
            refuse: how an error that arises later becomes an answer.

        Raises:
            OverloadedError: too much is queued already. Nothing was done.
        """
        if self.may_begin(keys):
            return self.measured(kind, keys, work)
        if self._full:
            raise self._overloaded(f"{self._queued_us / 1_000:.0f} ms of work are queued")
        guess = kind.work_us + kind.late_us
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        expires = loop.time() + deadline_us / 1e6 if deadline_us else float("inf")
        self._queue.append(_Queued(work, kind, keys, guess, answer, expires, refuse))
        self._queued_us += guess
        self._judge()
        self._deferred += 1
        if not self.load.scheduled:
            self._schedule()
        return answer

    def measured(self, kind: Kind, keys: int, work: Work, begun: float = 0.0) -> Answer:
        """Do the work, which `may_begin`.

        Args:
            begun: when it began, by perf_counter; 0 for now.
        """
        begun = begun or perf_counter()
        self._inside = True
        try:
            answer = work()
        finally:
            self._inside = False
            self.worked(kind, begun)
        if isinstance(answer, Response):
            kind.late_us -= GAIN * kind.late_us
        else:
            self._wait(kind.late_us, keys, answer, begun)
        return answer

    def worked(self, kind: Kind, begun: float) -> None:
        """Work that `may_begin` was done, since `begun` by perf_counter."""
        took = (perf_counter() - begun) * 1e6
        mean = kind.work_us
        most = 4.0 * mean + FIRST_GUESS_US
        kind.work_us = mean + GAIN * ((took if took < most else most) - mean)  # `moved`, without its calls
        self._worked(took)

    def metered(self, kind: Kind, finish: Callable[[In], Out]) -> Callable[[In], Out]:
        """`finish`, which a read calls when it has its rows, counted as work where that is later."""

        def run(rows: In) -> Out:
            if self._inside:
                return finish(rows)
            begun = perf_counter()
            try:
                return finish(rows)
            finally:
                took = (perf_counter() - begun) * 1e6
                kind.late_us = moved(kind.late_us, took)
                self._worked(took)

        return run

    def counters(self) -> Mapping[str, float]:
        """For /metrics."""
        return {
            "queued": len(self._queue),
            "queued_ms": self._queued_us / 1_000,
            "standing": self._standing,
            "waiting_keys": self._waiting_keys,
            "refused": self._refused + self._gate.refused,
            "expired": self._expired,
            "deferred": self._deferred,
        }

    def _overloaded(self, why: str) -> OverloadedError:
        self._refused += 1
        return OverloadedError(
            f"the server is at its limit: {why}", hint="send it again after a moment, or to another server"
        )

    def _worked(self, took_us: float) -> None:
        load = self.load
        load.busy_us += took_us
        if load.busy_us >= load.look_us and not load.scheduled:
            self._schedule()
        if load.strict and load.busy_us >= load.slice_us:
            self._judge()

    def _wait(self, late_us: float, keys: int, answer: asyncio.Future[Response], begun: float) -> None:
        self._waiting += 1
        self._waiting_keys += keys
        self._late_us += late_us
        self._judge()

        def answered(_: object) -> None:
            self._waiting -= 1
            self._waiting_keys -= keys
            took = (perf_counter() - begun) * 1e6
            longer = took - self._trip_us
            self._trip_us += longer * TRIP_CREEP if 0 < longer and self._trip_us else longer
            self._late_us = self._late_us - late_us if self._waiting else 0.0
            self._judge()

        answer.add_done_callback(answered)

    def _judge(self) -> None:
        """Shut the gate or open it, and say so to hits."""
        load, pending = self.load, self._queued_us + self._late_us
        full = self._queued_us >= self._limit_us
        self._overflowed = self._overflowed or full
        self._full = full or (self._standing and pending >= STANDING_US + self._trip_us)
        self._gate.shut = self._full or (load.strict and load.busy_us >= load.slice_us)
        load.open = not (self._gate.shut or self._waiting_keys > self._max_waiting // 2)
        load.queued = bool(self._queue)

    def _review(self) -> None:
        """Whether this worker is overloaded."""
        pending, now = self._queued_us + self._late_us, perf_counter()
        refusals = self._refused + self._gate.refused
        if refusals != self._refusals:
            self._refusals, self._refused_at = refusals, now
        if pending < CALM_US and not (self._standing and now - self._refused_at < CALM_S):
            self._stand(False)
            self._alone_at = now
            return
        if now - self._looked_at > LOOK_S:
            ran = _ran_s()
            share = (ran - self._ran_s) / (now - self._looked_at)
            self._busy = max(share, self._busy + REST * (share - self._busy))
            self._ran_s, self._looked_at = ran, now
        if len(self._queue) + self._waiting < CROWD or pending < CROWD_SHARE * self._limit_us:
            self._alone_at = now
        if self._busy < BUSY:
            self._stand(False)
        elif self._overflowed or pending >= self._limit_us or now - self._alone_at > PATIENCE_S:
            self._stand(True)
        else:
            self._judge()
        self._overflowed = False

    def _stand(self, standing: bool) -> None:
        self._standing = self.load.strict = standing
        self.load.look_us = 0.0 if standing else LOOK_US
        if not standing:
            self.load.slice_us = SLICE_US
        self._judge()

    def _schedule(self) -> None:
        self.load.scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """The next turn of the loop: sockets have been read since the last one."""
        load = self.load
        if load.strict:
            others_us = (perf_counter() - self._turned_at) * 1e6 - (load.busy_us - self._turned_us)
            load.slice_us = min(max(TURN_US - others_us, LEAST_SLICE_US), LONGEST_SLICE_US)
        load.scheduled = False
        load.busy_us = 0.0
        while self._queue and load.busy_us < load.slice_us:
            queued = self._queue.popleft()
            self._queued_us = self._queued_us - queued.guess_us if self._queue else 0.0
            if not queued.answer.done():
                self._begin(queued)
        self._review()
        self._turned_at, self._turned_us = perf_counter(), load.busy_us
        if self._queue and not load.scheduled:
            self._schedule()
        if self._standing and self._look_later is None:
            self._look_later = asyncio.get_running_loop().call_later(CALM_S, self._look_again)

    def _look_again(self) -> None:
        self._look_later = None
        if not self.load.scheduled:
            self._schedule()

    def _begin(self, queued: _Queued) -> None:
        answer = queued.answer
        try:
            if asyncio.get_running_loop().time() > queued.expires:
                self._expired += 1
                raise OverloadedError("the deadline passed while the request was queued")
            made = self.measured(queued.kind, queued.keys, queued.work)
        except FastserveError as error:
            answer.set_result(queued.refuse(error))
        except Exception as error:
            answer.set_exception(error)
        else:
            if isinstance(made, Response):
                answer.set_result(made)
            else:
                _hand_on(made, answer)


def _ran_s() -> float:
    """Seconds this thread ran, or was kept from running by others on its core; ever."""
    try:
        with open("/proc/thread-self/schedstat") as stat:
            ran, waited, _ = stat.read().split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):  # no Linux, or one without it
        return time.thread_time()


def moved(mean_us: float, took_us: float) -> float:
    """A mean after one more measurement; one far off, like a plan's first, which compiles it, counts less."""
    return mean_us + GAIN * (min(took_us, 4 * mean_us + FIRST_GUESS_US) - mean_us)


def _hand_on(source: asyncio.Future[Response], answer: asyncio.Future[Response]) -> None:
    """The answer is what the source will be; who cancels the answer cancels the source."""

    def settle(done: asyncio.Future[Response]) -> None:
        if answer.done() or done.cancelled():
            return
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)

    source.add_done_callback(settle)
    answer.add_done_callback(lambda done: done.cancelled() and source.cancel())
