"""START HERE. One batch read, top to bottom; the functions stand in the order they run.

    keys   [read 0: key of entity 0 … n-1, read 1: …]    one ReadBatch; n keys for each ViewRead of the plan
    rows   from the cache where they are fresh enough, the rest by one round trip to the store

A read answers at once when the cache or an embedded store has all rows: no task, no future. Else it answers by a
future, which the store's last reply, its failure or the deadline resolves; rows still unknown then are answered as
UNAVAILABLE, rows that came are answered. `finish` makes the answer of the rows where they lie, before they go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from fastserve.batch import ReadBatch
from fastserve.codec.decoded import DecodedRows
from fastserve.errors import StoreError
from fastserve.online import OnlineStore
from fastserve.serving.breaker import Breaker
from fastserve.serving.entities import check_columns, key_columns
from fastserve.serving.plan import ReadPlan
from fastserve.serving.row_cache import NEVER, ViewCache

T = TypeVar("T")

PROBE_KEY: Final = b"!probe"
LATE: Final = "the online store did not answer in time"
UNSURE: Final = "which rows are served was last known too long ago"


@dataclass(slots=True, eq=False)  # not frozen: that takes a microsecond to make
class Found:
    """The rows of one read, before anything is made of them.

    Attributes:
        plan: what was asked.
        n: number of entities.
        rows: n keys and rows for each of plan.reads, one read after the other.
        now_us: the instant the answer holds for.
        unavailable: why rows are UNKNOWN ('' when none is).
        stale: how many rows are older than their view allows, answered because the store is down.
    """

    plan: ReadPlan
    n: int
    rows: ReadBatch
    now_us: int
    unavailable: str = ""
    stale: int = 0


Finish: TypeAlias = Callable[[Found], T]


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """The answer to one read as columns.

    Attributes:
        plan: what was asked.
        n: number of entities, i.e. rows.
        reads: decoded rows for each of plan.reads.
        now_us: the instant it holds for.
        unavailable: why rows are UNAVAILABLE ('' when none is).
        stale: how many rows come from the cache, older than their view allows, because the store is down.
    """

    plan: ReadPlan
    n: int
    reads: tuple[DecodedRows, ...]
    now_us: int
    unavailable: str = ""
    stale: int = 0


def decode_columns(found: Found) -> FeatureBatch:
    """The Finish that decodes every read into columns.

    Raises:
        CodecError: a row is corrupt.
    """
    n = found.n
    reads = tuple(
        read.rows.decode_batch(found.rows, i * n, (i + 1) * n, now_us=found.now_us, ttl_us=read.ttl_us)
        for i, read in enumerate(found.plan.reads)
    )
    return FeatureBatch(found.plan, n, reads, found.now_us, found.unavailable, found.stale)


class ReadPath:
    """Reads features from one online store.

    Args:
        store: where the rows are.
        now: the clock, microseconds UTC; a frozen one replays the past.
        cache: rows read lately; None for a store that is as near as a cache.
        deadline_us: how long a read waits for the store before it answers UNAVAILABLE, at most.

    Attributes:
        now, cache: as given.
        blocked: why the store must not be read ('' when it may): it is not known to be this registry's. Every
            answer is then UNAVAILABLE, for this reason.
        sure_until_us: by the monotonic clock: the store is not read later, for the row sets that plans are made of
            may be gone by then, and their rows not be found. Whoever follows the row sets (catalog.py) moves it on.
    """

    def __init__(
        self,
        store: OnlineStore,
        now: Callable[[], int],
        *,
        cache: ViewCache | None = None,
        deadline_us: int = 1_000_000,
    ) -> None:
        self._store = store
        self.now = now
        self.cache = cache
        self._deadline_us = deadline_us
        self.breaker = Breaker()
        self._reads = self._late = 0
        self.blocked = ""
        self.sure_until_us = NEVER

    def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Sequence[Any]],
        finish: Finish[T],
        *,
        deadline_us: int | None = None,
    ) -> T | asyncio.Future[T]:
        """What `finish` makes of the rows of these entities.

        Args:
            entities: request column -> one value per entity; the plan's columns, all of one length.
            finish: for example decode_columns; it gets rows that are gone once it has returned.
            deadline_us: a shorter wait for this read alone; a longer one changes nothing. Default: the service's.

        Raises:
            InvalidEntityError: columns are missing, unknown or ragged, or a value is no key of its type.
            CodecError: a row is corrupt.
        """
        n = check_columns(plan, entities)
        batch = self.encode(plan, entities, n)
        finish = plan.finishing(finish, entities)
        found = self.at_once(plan, batch, n)
        return self.fetch(plan, batch, n, finish, deadline_us) if found is None else finish(found)

    def encode(self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]], n: int) -> ReadBatch:
        """The keys of n entities, for each read of the plan.

        Raises:
            InvalidEntityError: a value is no key of its type.
        """
        batch = ReadBatch()
        for read in plan.reads:
            read.keys.encode_into(batch, key_columns(read, entities), n, names=read.key_columns)
        return batch

    def at_once(self, plan: ReadPlan, batch: ReadBatch, n: int, *, looked: bool = False) -> Found | None:
        """What can be answered without the store: it is all cached, or the store must not be asked. None: `fetch`.

        Args:
            looked: the cache was asked just now; what it had is in the batch.
        """
        if looked:
            return None if batch.missing else Found(plan, n, batch, self.now())
        if self.blocked:
            return Found(plan, n, batch, self.now(), self.blocked)
        cache = self.cache
        if cache is None or cache.look_up(plan, batch, n, time.monotonic_ns() // 1_000):
            if plan.reads:
                return None
        return Found(plan, n, batch, self.now())

    def fetch(
        self, plan: ReadPlan, batch: ReadBatch, n: int, finish: Finish[T], deadline_us: int | None = None
    ) -> T | asyncio.Future[T]:
        """The answer once the store has given what `at_once` did not find. Arguments and errors as `read`."""
        moment = time.monotonic_ns() // 1_000
        pending = _Pending(self, plan, batch, n, finish)
        refusal = self.breaker.refusal(moment) if moment < self.sure_until_us else UNSURE
        if refusal:
            return pending.without_store(refusal)
        batch.own()
        self._reads += 1
        try:
            if self._store.fetch(batch, pending.settle, moment):
                return pending.answer()
        except StoreError as error:
            self.breaker.failed(error, moment)
            return pending.without_store(error.message)
        most = self._deadline_us
        return pending.wait(min(most, deadline_us or most, plan.deadline_us or most))

    def probe(self) -> asyncio.Future[list[bytes | None]] | list[bytes | None]:
        """Ask the store for one key: does it answer? Raises, or fails the future with, StoreError if not."""
        if self.blocked:
            raise StoreError(self.blocked)
        return self._store.get_many([PROBE_KEY])

    def counters(self) -> Mapping[str, float]:
        """For /metrics."""
        return {
            "reads": self._reads,
            "failures": self.breaker.failures,
            "late": self._late,
            "breaker_open": self.breaker.is_open,
            "breaker_opened": self.breaker.opened,
        }


class _Pending(Generic[T]):
    """A read between the question to the store and its answer."""

    __slots__ = ("_future", "_path", "_timer", "_wait_us", "batch", "finish", "n", "plan")

    def __init__(self, path: ReadPath, plan: ReadPlan, batch: ReadBatch, n: int, finish: Finish[T]) -> None:
        self._path = path
        self.plan = plan
        self.batch = batch
        self.n = n
        self.finish = finish

    def wait(self, wait_us: int) -> asyncio.Future[T]:
        """The future answer: whichever comes first of settle and give_up makes it."""
        loop = asyncio.get_running_loop()
        self._wait_us = wait_us
        self._timer = loop.call_later(wait_us / 1e6, self.give_up)
        self._future: asyncio.Future[T] = loop.create_future()
        self._future.add_done_callback(self.stop)
        return self._future

    def settle(self, error: StoreError | None) -> None:
        """The store has answered: all rows are in, or `error` says why not."""
        if self._future.done():
            return
        moment = time.monotonic_ns() // 1_000
        try:
            if error is None:
                self._path.breaker.succeeded()
                self._future.set_result(self.answer())
            else:
                self._path.breaker.failed(error, moment)
                self._future.set_result(self.without_store(error.message))
        except Exception as broken:
            self._future.set_exception(broken)

    def give_up(self) -> None:
        """The deadline: what is there is answered."""
        if self._future.done():
            return
        self.batch.abandon()
        self._path._late += 1
        if self._wait_us >= self._path._deadline_us:  # a caller in a hurry says nothing about the store
            self._path.breaker.failed(None, time.monotonic_ns() // 1_000)
        try:
            self._future.set_result(self.without_store(LATE))
        except Exception as broken:
            self._future.set_exception(broken)

    def stop(self, future: asyncio.Future[T]) -> None:
        """It is answered, or nobody waits any more."""
        self._timer.cancel()
        if future.cancelled():
            self.batch.abandon()

    def answer(self) -> T:
        """Of all rows; what could be decoded goes into the cache."""
        path = self._path
        made = self.finish(Found(self.plan, self.n, self.batch, path.now()))
        if path.cache is not None:
            path.cache.keep(self.batch)
        return made

    def without_store(self, why: str) -> T:
        """Of the rows that came, and of stale ones from the cache; the rest is UNAVAILABLE."""
        path = self._path
        stale = 0
        if path.cache is not None:
            stale = path.cache.look_up_stale(self.batch, time.monotonic_ns() // 1_000)
        why = why if self.batch.missing else ""
        return self.finish(Found(self.plan, self.n, self.batch, path.now(), why, stale))
