"""Canonical rows into the online store: latest per key, encoded, newest wins. No Python object per row.

A run writes its dates newest first, so the freshest features are served soonest and the rows of a key that a
newer date already wrote need not be sent at all. Within a date the last chunk of the source goes first: among
rows of equal order the first one written stays, and that has to be the one at the last position.

While the store takes one batch the next is encoded, and no more than two are on their way: a slow store slows the run
down, and memory stays where it is. While it takes one chunk, a thread reads the next, of the same date or another, and
finds its latest rows: the store, which is the slower of the two, always has something to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from fastserve.batch import KeySet, ReadBatch
from fastserve.offline.online_rows import Lifetimes, OnlineRows
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import claim, keeps_view, mark_view
from fastserve.online.live import RowSets, look, move
from fastserve.registry import RegisteredView
from materializer.stop import Stop

T = TypeVar("T")

Dates: TypeAlias = Iterable[Iterable[pa.RecordBatch]]

PUT_ROWS: Final = 4_096
PUTS: Final = 2
SEEN_KEYS: Final = 500_000


class OnlineSink:
    """The online store of one run, with the event loop it lives on. A context manager.

    Nothing is opened before the first use, so that a run of offline views needs no store.

    Args:
        url: of the store.
        registry_id: the registry whose view ids the keys will carry.
    """

    def __init__(self, url: str, registry_id: str) -> None:
        self._url = url
        self._registry_id = registry_id
        self._runner: asyncio.Runner | None = None
        self._store: OnlineStore | None = None

    def __enter__(self) -> OnlineSink:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._runner is None:
            return
        with self._runner as runner:
            if self._store is not None:
                runner.run(self._store.close())

    def claim(self) -> None:
        """Open the store and make sure that it is ours; does nothing the second time.

        Raises:
            ConfigError: the URL is wrong, or the store belongs to another registry.
            StoreError: it cannot be reached.
        """
        if self._store is None:
            self._store = self._run(_open_claimed(self._url, self._registry_id))

    def keeps(self, view_id: int) -> bool:
        """Whether the store still has what earlier runs wrote for a view."""
        return self._run(keeps_view(self._opened(), view_id))

    def mark(self, view_id: int) -> None:
        """Note that the store keeps a view's rows from now on."""
        self._run(mark_view(self._opened(), view_id))

    def look(self, registered: RegisteredView) -> RowSets:
        """The row sets of a view, as the store has them now."""
        view_id = registered.view_id
        return self._run(look(self._opened(), {view_id: registered.online_id}))[view_id]

    def move(self, before: RowSets, after: RowSets) -> RowSets:
        """Move the row sets of a view; see fastserve.online.live.move."""
        return self._run(move(self._opened(), before, after))

    def do(self, work: Callable[[OnlineStore], Coroutine[Any, Any, T]]) -> T:
        """Do something with the store."""
        return self._run(work(self._opened()))

    def sweep(self) -> None:
        """Drop rows that outlived their lifetime."""
        self._run(self._opened().sweep())

    def write(self, writer: ViewWriter, dates: Dates) -> int:
        """Write dates of a view; see ViewWriter.write."""
        return self._run(writer.write(self._opened(), dates))

    def _opened(self) -> OnlineStore:
        self.claim()
        assert self._store is not None
        return self._store

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=new_event_loop)
        return self._runner.run(work)


@dataclass(frozen=True, slots=True)
class _Found:
    """The rows of a chunk that are worth writing. `is_new_date`: the first of a date, after another one."""

    rows: pa.RecordBatch
    lifetimes: Lifetimes
    is_new_date: bool


class ViewWriter:
    """Writes the rows of one view, date by date, newest date first.

    Args:
        registered: the view; rows are written with its current layout.
        now_us: the run's present, which lifetimes count from.
        stop: asked before every batch.
    """

    def __init__(self, registered: RegisteredView, now_us: int, stop: Stop) -> None:
        self._rows = OnlineRows(registered)
        self._now_us = now_us
        self._stop = stop
        self._seen = KeySet(SEEN_KEYS)

    async def write(self, store: OnlineStore, dates: Dates) -> int:
        """Write some dates.

        Args:
            dates: the canonical rows of each, newest date first; of a date the last chunk of the source first, each in
                source order.

        Returns:
            How many keys got a newer row.

        Raises:
            Stopped: between two batches.
            StoreError: the store failed; some of the rows may be written.
        """
        puts, loop = Puts(store), asyncio.get_running_loop()
        found = self._found(dates)
        ahead: asyncio.Future[_Found | None] | None = None
        try:
            now = next(found, None)
            while now is not None:
                self._stop.check()
                if now.rows.num_rows > PUT_ROWS:
                    ahead = loop.run_in_executor(None, next, found, None)
                await self._write(puts, now)
                now = await ahead if ahead is not None else next(found, None)
                ahead = None
            await puts.finish()
        finally:
            await puts.settle()
            if ahead is not None:  # what it reads may be closed once this is left
                await asyncio.gather(ahead, return_exceptions=True)
        self._seen.next_round()
        return puts.written

    def _found(self, dates: Dates) -> Iterator[_Found]:
        """The chunks of all dates, one after the other: while the last of a date is taken, the next date is read."""
        for number, chunks in enumerate(dates):
            is_new = number > 0
            for chunk in chunks:
                rows, lifetimes = self._rows.survivors(chunk, self._now_us)
                yield _Found(rows, lifetimes, is_new)
                is_new = False

    async def _write(self, puts: Puts, found: _Found) -> None:
        """Send the rows of a chunk, but those of keys that a newer date has.

        Batches on their way may land in either order. What is on its way is waited for, as late as can be, where a key
        of it may come again in a row of equal order, which within a chunk it does not, nor on another date; or where
        two rows of a key would both count, which they do not while all keys are remembered.
        """
        if found.is_new_date:
            self._seen.next_round()
        apart = found.is_new_date and len(self._seen) < SEEN_KEYS
        for start in range(0, found.rows.num_rows, PUT_ROWS):
            self._stop.check()
            lifetimes = None if found.lifetimes is None else found.lifetimes[start:][:PUT_ROWS]
            keys, lifetimes = self._encoded(found.rows.slice(start, PUT_ROWS), lifetimes)
            if not start and not apart:
                await puts.finish()
            if len(keys):
                await puts.start(keys, lifetimes)

    def _encoded(self, rows: pa.RecordBatch, lifetimes: Lifetimes) -> tuple[ReadBatch, Lifetimes]:
        """The rows but those of keys that a newer date has."""
        keys = self._rows.keys(rows)
        superseded = self._seen.mark(keys)
        if superseded.any():
            kept = np.flatnonzero(~superseded)
            rows = rows.take(pa.array(kept))
            lifetimes = None if lifetimes is None else lifetimes[kept]
            keys = self._rows.keys(rows)
        if len(keys):
            self._rows.encode(keys, rows)
        return keys, lifetimes


class Puts:
    """Batches on their way into a store: started in order, waited for when there are too many."""

    def __init__(self, store: OnlineStore) -> None:
        self.written = 0
        self._store = store
        self._tasks: deque[asyncio.Task[int]] = deque()

    async def start(self, keys: ReadBatch, lifetimes: Lifetimes) -> None:
        while len(self._tasks) >= PUTS:
            self.written += await self._tasks.popleft()
        self._tasks.append(asyncio.create_task(self._store.put_batch(keys, lifetimes)))
        await asyncio.sleep(0)  # so that its bytes go out before the next batch is encoded

    async def finish(self) -> None:
        while self._tasks:
            self.written += await self._tasks.popleft()

    async def settle(self) -> None:
        """After a failure: leave nothing that runs on behind."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _open_claimed(url: str, registry_id: str) -> OnlineStore:
    store = open_store(url)
    try:
        await claim(store, registry_id)
    except BaseException:
        await store.close()
        raise
    return store


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where there is one."""
    try:
        import uvloop  # noqa: PLC0415  (not on every platform)
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
