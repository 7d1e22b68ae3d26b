"""More is asked of a server than it can do: it answers what it admitted, and refuses the rest at once.

    request ──► idle: answered where it was parsed
            ──► busy: queue, while its estimated work is below the limit ──► slices of SLICE_US, the loop's I/O between
            ──► queue full: OverloadedError, 429 with Retry-After

A server of one thread is never busy while it parses, so a count of requests would say nothing: what is bounded is
the time that what is queued will take, estimated from what the same kind of request took lately. Between two slices
the loop reads sockets, so a refusal waits for a slice and not for the queue. Reads that wait for the store are bounded
too, by their number of keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeAlias, TypeVar

from fastserve.api.errors import error_response
from fastserve.errors import FastserveError, OverloadedError
from fastserve.http.message import Response

SLICE_US: Final = 2_000
FIRST_GUESS_US: Final = 50.0
GAIN: Final = 0.1  # of the newest measurement in a mean: a burst of odd requests moves it little
MAX_KINDS: Final = 4_096

Answer: TypeAlias = Response | asyncio.Future[Response]
Work: TypeAlias = Callable[[], Answer]
Refuse: TypeAlias = Callable[[FastserveError], Response]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True)
class Kind:
    """Requests of one shape and about one size.

    Attributes:
        work_us: what one takes up to its answer, or until it waits for the store; a running mean.
        late_us: what it takes once the store has answered; 0 for one that does not wait.
    """

    work_us: float = FIRST_GUESS_US
    late_us: float = 0.0


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
        max_queue_ms: estimated work that may be queued.
        max_waiting_keys: keys that admitted reads may be waiting for in the store.
    """

    def __init__(self, max_queue_ms: float = 200.0, max_waiting_keys: int = 200_000) -> None:
        self._limit_us = max_queue_ms * 1_000
        self._max_waiting = max_waiting_keys
        self._queue: deque[_Queued] = deque()
        self._queued_us = 0.0
        self._busy_us = 0.0  # worked in this turn of the loop
        self._scheduled = False
        self._inside = False
        self._waiting_keys = 0
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
        if self._waiting_keys and self._waiting_keys + keys > self._max_waiting:
            raise self._overloaded(f"reads of {self._waiting_keys:,} keys wait for the online store")
        return self._busy_us < SLICE_US and not self._queue

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
        guess = kind.work_us + kind.late_us
        if self._queued_us + guess > self._limit_us:
            raise self._overloaded(f"{self._queued_us / 1_000:.0f} ms of work are queued")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        expires = loop.time() + deadline_us / 1e6 if deadline_us else float("inf")
        self._queue.append(_Queued(work, kind, keys, guess, answer, expires, refuse))
        self._queued_us += guess
        self._deferred += 1
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
            self._wait(keys, answer)
        return answer

    def worked(self, kind: Kind, begun: float) -> None:
        """Work that `may_begin` was done, since `begun` by perf_counter."""
        took = (perf_counter() - begun) * 1e6
        mean = kind.work_us
        most = 4.0 * mean + FIRST_GUESS_US
        kind.work_us = mean + GAIN * ((took if took < most else most) - mean)  # `moved`, without its calls
        self._busy_us += took
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

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
            "waiting_keys": self._waiting_keys,
            "refused": self._refused,
            "expired": self._expired,
            "deferred": self._deferred,
        }

    def _overloaded(self, why: str) -> OverloadedError:
        self._refused += 1
        return OverloadedError(
            f"the server is at its limit: {why}", hint="send it again after a moment, or to another server"
        )

    def _worked(self, took_us: float) -> None:
        self._busy_us += took_us
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _wait(self, keys: int, answer: asyncio.Future[Response]) -> None:
        self._waiting_keys += keys

        def answered(_: object) -> None:
            self._waiting_keys -= keys

        answer.add_done_callback(answered)

    def _turn(self) -> None:
        """The next turn of the loop: sockets have been read since the last one."""
        self._scheduled = False
        self._busy_us = 0.0
        while self._queue and self._busy_us < SLICE_US:
            queued = self._queue.popleft()
            self._queued_us = self._queued_us - queued.guess_us if self._queue else 0.0
            if not queued.answer.done():
                self._begin(queued)
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

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
