"""START HERE. One batch read, top to bottom; the functions stand in the order they run.

A read answers at once (a FeatureBatch) when the store does, as the embedded ones do: no task, no future. A store
behind a socket answers by a future; then the read does, with callbacks only.

Data: `keys` and `rows` are the views' keys one after another, n for each ViewRead of the plan:
[read 0: key of entity 0 … n-1, read 1: …]; one store round trip fetches them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fastserve.codec.decoded import DecodedRows
from fastserve.errors import StoreError
from fastserve.online import OnlineStore
from fastserve.serving.entities import check_columns, key_columns
from fastserve.serving.plan import ReadPlan

Rows: TypeAlias = Sequence[bytes | None]
PROBE_KEY: Final = b"!probe"


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """The answer to one read.

    Attributes:
        plan: what was asked.
        n: number of entities, i.e. rows.
        reads: decoded rows for each of plan.reads.
        now_us: the instant it holds for.
        unavailable: why the store did not answer ('' when it did); then every status is UNAVAILABLE.
    """

    plan: ReadPlan
    n: int
    reads: tuple[DecodedRows, ...]
    now_us: int
    unavailable: str = ""


class ReadPath:
    """Reads features from one online store.

    Args:
        store: where the rows are.
        now: the clock, microseconds UTC; a frozen one replays the past.
        deadline_us: how long a read waits for the store before it answers UNAVAILABLE, at most.

    Attributes:
        blocked: why the store must not be read ('' when it may): it is not known to be this registry's. Every
            answer is then UNAVAILABLE, for this reason.
    """

    def __init__(self, store: OnlineStore, now: Callable[[], int], *, deadline_us: int = 1_000_000) -> None:
        self._store = store
        self._now = now
        self._deadline_s = deadline_us / 1e6
        self.blocked = ""

    def read(
        self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]], *, deadline_us: int | None = None
    ) -> FeatureBatch | asyncio.Future[FeatureBatch]:
        """Values and statuses of the plan's features for these entities.

        Args:
            entities: request column -> one value per entity; the plan's columns, all of one length.
            deadline_us: a shorter wait for this read alone; a longer one changes nothing.

        Raises:
            InvalidEntityError: columns are missing, unknown or ragged, or a value is no key of its type.
        """
        n = check_columns(plan, entities)
        keys = self._encode(plan, entities, n)
        if self.blocked:
            return self._unavailable(plan, n, self.blocked)
        try:
            rows = self._store.get_many(keys)
        except StoreError as error:
            return self._unavailable(plan, n, error.message)
        if isinstance(rows, asyncio.Future):
            wait_s = self._deadline_s if deadline_us is None else min(self._deadline_s, deadline_us / 1e6)
            return self._when_answered(rows, plan, keys, n, wait_s)
        return self._decode(plan, keys, rows, n)

    def probe(self) -> asyncio.Future[list[bytes | None]] | list[bytes | None]:
        """Ask the store for one key: does it answer? Raises, or fails the future with, StoreError if not."""
        if self.blocked:
            raise StoreError(self.blocked)
        return self._store.get_many([PROBE_KEY])

    def _encode(self, plan: ReadPlan, entities: Mapping[str, Sequence[Any]], n: int) -> list[bytes]:
        keys: list[bytes] = []
        for read in plan.reads:
            keys += read.keys.encode(key_columns(read, entities), n, names=read.key_columns)
        return keys

    def _when_answered(
        self,
        rows: asyncio.Future[list[bytes | None]],
        plan: ReadPlan,
        keys: list[bytes],
        n: int,
        wait_s: float,
    ) -> asyncio.Future[FeatureBatch]:
        """Decode when the store answers; at the deadline, or if it fails, say UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[FeatureBatch] = loop.create_future()

        def settle(done: asyncio.Future[list[bytes | None]]) -> None:
            timer.cancel()
            if answer.done() or done.cancelled():
                return
            error = done.exception()
            if isinstance(error, StoreError):
                answer.set_result(self._unavailable(plan, n, error.message))
            elif error is not None:
                answer.set_exception(error)
            else:
                try:
                    answer.set_result(self._decode(plan, keys, done.result(), n))
                except Exception as broken:
                    answer.set_exception(broken)

        def give_up() -> None:
            if not answer.done():
                answer.set_result(self._unavailable(plan, n, "the online store did not answer in time"))
            rows.cancel()

        def stop(done: asyncio.Future[FeatureBatch]) -> None:
            if done.cancelled():
                timer.cancel()
                rows.cancel()

        timer = loop.call_later(wait_s, give_up)
        rows.add_done_callback(settle)
        answer.add_done_callback(stop)
        return answer

    def _decode(self, plan: ReadPlan, keys: list[bytes], rows: Rows, n: int) -> FeatureBatch:
        now = self._now()
        decoded = tuple(
            read.rows.decode(
                keys[i * n : (i + 1) * n], rows[i * n : (i + 1) * n], now_us=now, ttl_us=read.ttl_us
            )
            for i, read in enumerate(plan.reads)
        )
        return FeatureBatch(plan, n, decoded, now)

    def _unavailable(self, plan: ReadPlan, n: int, why: str) -> FeatureBatch:
        reads = tuple(read.rows.unavailable(n) for read in plan.reads)
        return FeatureBatch(plan, n, reads, self._now(), why)
