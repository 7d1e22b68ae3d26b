"""The pushes of one view on their way into the stores, many at a time.

    push ──► waiting ──► group: one Delta commit in a thread, then one write to the online store ──► acknowledged
                 ▲           │
                 └── pushes that come meanwhile are the next group

A commit costs tens of milliseconds whatever its size, so what queued up while one ran goes into the next. Offline
comes first: what a reader can see online, history has; a push that failed in between is sent again, and nothing of
it counts twice. Pushes for the online store alone do not queue.

Online a view may have two row sets for a while: rows go into both, and after every write the lane looks whether the
sets moved meanwhile (fastserve/online/live.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from fastserve.batch import ReadBatch
from fastserve.errors import (
    AlreadyRunningError,
    FastserveError,
    MaterializeError,
    OfflineStoreError,
    OverloadedError,
    UnknownObjectError,
)
from fastserve.offline.latest import timestamps
from fastserve.offline.online_rows import Lifetimes, OnlineRows
from fastserve.offline.schema import EVENT_TS
from fastserve.online import OnlineStore
from fastserve.online.live import RowSets, look
from fastserve.registry import RegisteredView, Registry
from fastserve.timeutil import DAY_US

if TYPE_CHECKING:
    from fastserve.offline.delta import OfflineTable

log = logging.getLogger(__name__)

PUT_ROWS: Final = 4_096
INLINE_ROWS: Final = 256  # more are encoded in a thread
GROUP_ROWS: Final = 200_000
ROUNDS: Final = 4
COMPACT_EVERY: Final = 16


@dataclass(frozen=True, slots=True)
class Counts:
    """What a push changed: rows new in the history, entities with a newer row online."""

    offline_new: int = 0
    online_new: int = 0


@dataclass(slots=True)
class _Waiting:
    batch: pa.RecordBatch
    online: bool
    done: asyncio.Future[Counts]


@dataclass(frozen=True, slots=True)
class Stores:
    """What all lanes write to.

    Attributes:
        offline_root: directory or URL of the offline tables.
        registry: asked whether a table that is not there should be.
        online: None where nothing is pushed online.
        threads: where commits run.
        now: the clock, microseconds UTC.
    """

    offline_root: str
    registry: Registry
    online: OnlineStore | None
    threads: Executor
    now: Callable[[], int]


class Lane:
    """See the module's docstring. Lives on one event loop.

    Args:
        rv: the view, at the registry revision that its pushes were checked against.
        stores: where rows go.
        project: the view's project.
        limit: pushes that may wait.
    """

    def __init__(self, rv: RegisteredView, stores: Stores, project: str, limit: int) -> None:
        self.rv = rv
        self._stores = stores
        self._project = project
        self._limit = limit
        self._sets: RowSets | None = None  # as of the last look
        self._rows: dict[int, OnlineRows] = {}  # by online id
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._commits = random.randrange(COMPACT_EVERY)  # so that short-lived processes get their turns too

    def check_room(self) -> None:
        """Raise OverloadedError when as many pushes wait as may."""
        if len(self._waiting) >= self._limit:
            raise OverloadedError(
                f"{len(self._waiting)} pushes of view {self.rv.view.name!r} wait for the offline store already",
                hint="send fewer pushes with more rows each, and this one again after a moment",
            )

    def write(self, batch: pa.RecordBatch, *, offline: bool, online: bool) -> Awaitable[Counts]:
        """Write rows; done when all stores asked for have them. It queues at once, so that check_room holds.

        Raises:
            StoreError: the online store failed; the rows may be offline, and part of them online.
            OfflineStoreError, MaterializeError: the offline store failed; nothing is online.
        """
        if not offline:
            return self._put_only(batch)
        done: asyncio.Future[Counts] = asyncio.get_running_loop().create_future()
        if not batch.num_rows:
            done.set_result(Counts())
            return done
        self._waiting.append(_Waiting(batch, online, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return done

    async def _put_only(self, batch: pa.RecordBatch) -> Counts:
        return Counts(online_new=await self._put(batch))

    async def idle(self) -> None:
        """Return when nothing is being written."""
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                counts = await self._write_group(group)
            except Exception as error:
                for push in group:
                    push.done.set_exception(error)
            else:
                for push, count in zip(group, counts, strict=True):
                    push.done.set_result(count)
                await self._compact([push.batch for push in group])
        self._worker = None

    async def _compact(self, batches: list[pa.RecordBatch]) -> None:
        """Now and then, after the acknowledgements, join the small files that commits leave."""
        self._commits += 1
        if self._commits % COMPACT_EVERY:
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._stores.threads, self._join_files, _days(batches))
        except Exception as error:  # nothing is lost: the next one tries again
            log.warning("compacting the history of view %s failed: %s", self.rv.view.name, error)

    def _join_files(self, days: list[date]) -> None:
        """In a thread: see _compact. While another process rewrites the files, nothing."""
        from fastserve.offline.rewrite import rewriting  # noqa: PLC0415  (as in _table)

        with suppress(AlreadyRunningError), rewriting(self._stores.registry, self._table()) as rewrite:
            rewrite.compact(days)

    def _next_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        rows = group[0].batch.num_rows
        while self._waiting and rows + self._waiting[0].batch.num_rows <= GROUP_ROWS:
            group.append(self._waiting.popleft())
            rows += group[-1].batch.num_rows
        return group

    async def _write_group(self, group: Sequence[_Waiting]) -> list[Counts]:
        # Of equal rows the last one counts, in the table and online, and between pushes the first one stays:
        # so the latest push goes first.
        turned = group[::-1]
        offline_new, online = await self._append(
            [push.batch for push in turned], [push.batch for push in turned if push.online]
        )
        online_new = 0 if online is None else await self._put(online)
        # Which of the pushes an entity's newer row came from is not told apart: the last one has the count.
        last = max((i for i, push in enumerate(group) if push.online), default=None)
        return [Counts(new, online_new if i == last else 0) for i, new in enumerate(offline_new[::-1])]

    async def _append(
        self, batches: list[pa.RecordBatch], online: list[pa.RecordBatch]
    ) -> tuple[Sequence[int], pa.RecordBatch | None]:
        """Commit the batches; new rows of each, and the rows to write online as the table has them."""
        loop = asyncio.get_running_loop()
        for attempt in range(ROUNDS):
            try:
                return await loop.run_in_executor(self._stores.threads, self._commit, batches, online)
            except MaterializeError:  # other writers were faster, again and again
                if attempt == ROUNDS - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise AssertionError("unreachable")

    def _commit(
        self, batches: list[pa.RecordBatch], online: list[pa.RecordBatch]
    ) -> tuple[Sequence[int], pa.RecordBatch | None]:
        """In a thread: see _append."""
        table = self._table()
        try:
            self._check_not_lost(table)
            result = table.append_new(batches)
            if not online:
                return result.new_of, None
            rows = pa.Table.from_batches(online).combine_chunks().to_batches()[0]
            return result.new_of, rows if result.rows_new == result.rows_in else table.as_stored(rows)
        except FastserveError:
            raise
        except Exception as error:
            log.exception("pushing into %s failed", table.uri)
            raise OfflineStoreError(
                f"the offline store failed: {type(error).__name__}",
                where=f"FeatureView {self.rv.view.name!r}",
                hint="send it again; the server's log says more",
            ) from error

    def _table(self) -> OfflineTable:
        from fastserve.offline.delta import OfflineTable  # noqa: PLC0415  (a server that is never pushed to)

        return OfflineTable(self._stores.offline_root, self._project, self.rv)

    def _check_not_lost(self, table: OfflineTable) -> None:
        """A table made anew in the place of one that was lost would pass for the whole history."""
        if table.exists:
            return
        held = self._stores.registry.intervals(self.rv.view_id, "offline")
        if any(interval.rows for interval in held):
            raise OfflineStoreError(
                "the registry says that it is materialized offline, but its table is gone",
                where=f"FeatureView {self.rv.view.name!r}",
                hint="materialize the view again, or restore the table; then send this again",
            )

    async def _put(self, batch: pa.RecordBatch) -> int:
        """Write the latest row of each entity into every row set; the newest wins. How many are new in the served one.

        A set that was given up meanwhile may be removed already: what was written there is taken back.
        """
        store = self._stores.online
        assert store is not None
        written: dict[int, list[tuple[ReadBatch, Lifetimes]]] = {}
        new: dict[int, int] = {}
        sets = first = self._sets or await self._look(store)
        while missing := [online_id for online_id in sets.ids if online_id not in written]:
            for online_id in missing:
                parts = written[online_id] = await self._encoded(batch, online_id)
                new[online_id] = sum([await store.put_batch(keys, lifetimes) for keys, lifetimes in parts])
            sets = await self._look(store)
        if sets.number > first.number:  # and not because the store lost its key
            for online_id in written.keys() - set(sets.ids):
                for keys, _ in written[online_id]:
                    await store.delete_many(keys.keys())
        return new[sets.live]

    async def _look(self, store: OnlineStore) -> RowSets:
        view_id = self.rv.view_id
        found = (await look(store, {view_id: self.rv.online_id}))[view_id]
        if not found.ids:
            raise UnknownObjectError(f"feature view {self.rv.view.name!r} was retired, and its rows removed")
        self._sets = found
        self._rows = {online_id: self._rows_of(online_id) for online_id in found.ids}
        return found

    def _rows_of(self, online_id: int) -> OnlineRows:
        return self._rows.get(online_id) or OnlineRows(self.rv.at(online_id))

    async def _encoded(self, batch: pa.RecordBatch, online_id: int) -> list[tuple[ReadBatch, Lifetimes]]:
        rows = self._rows_of(online_id)
        if batch.num_rows <= INLINE_ROWS:
            return rows.encoded(batch, self._stores.now(), PUT_ROWS)
        loop = asyncio.get_running_loop()  # readers are on it
        return await loop.run_in_executor(
            self._stores.threads, rows.encoded, batch, self._stores.now(), PUT_ROWS
        )


def _days(batches: list[pa.RecordBatch]) -> list[date]:
    """The UTC dates that the rows' event times fall on."""
    times = np.concatenate([timestamps(batch, EVENT_TS) for batch in batches])
    found: list[date] = np.unique(times // DAY_US).astype("datetime64[D]").tolist()
    return found
