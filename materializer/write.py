"""Canonical rows into the online store: latest per key, encoded, newest wins.

A run writes its dates newest first, so the freshest features are served soonest and the rows of a key that a
newer date already wrote need not be sent at all. Within a date the last chunk of the source goes first: among
rows of equal order the first one written stays, and that has to be the one at the last position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

import pyarrow as pa

from fastserve.offline.online_rows import OnlineRows
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import claim, keeps_view, mark_view
from fastserve.registry import RegisteredView
from materializer.stop import Stop

T = TypeVar("T")

PUT_ROWS: Final = 4_096
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

    def sweep(self) -> None:
        """Drop rows that outlived their lifetime."""
        self._run(self._opened().sweep())

    def write(self, writer: ViewWriter, chunks: Iterable[pa.RecordBatch]) -> int:
        """Write one date of a view; see ViewWriter.write."""
        return self._run(writer.write(self._opened(), chunks))

    def _opened(self) -> OnlineStore:
        self.claim()
        assert self._store is not None
        return self._store

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=_new_event_loop)
        return self._runner.run(work)


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
        self._seen: set[bytes] = set()

    async def write(self, store: OnlineStore, chunks: Iterable[pa.RecordBatch]) -> int:
        """Write one date.

        Args:
            chunks: its canonical rows; the last chunk of the source first, each in source order.

        Returns:
            How many keys got a newer row.

        Raises:
            Stopped: between two batches.
            StoreError: the store failed; part of the date may be written.
        """
        written = 0
        fresh: list[bytes] = []
        for chunk in chunks:
            self._stop.check()
            keys, batch, lifetimes = self._survivors(chunk)
            for start in range(0, len(keys), PUT_ROWS):
                self._stop.check()
                part = slice(start, start + PUT_ROWS)
                rows = self._rows.encode(keys[part], batch.slice(start, PUT_ROWS))
                written += await store.put_many(keys[part], rows, lifetimes and lifetimes[part])
            if len(self._seen) + len(fresh) < SEEN_KEYS:
                fresh += keys
        self._seen.update(fresh)
        return written

    def _survivors(self, chunk: pa.RecordBatch) -> tuple[list[bytes], pa.RecordBatch, list[int] | None]:
        """Of a chunk the rows to write, with their keys and lifetimes: latest, alive, not yet superseded."""
        keys, batch, lifetimes = self._rows.survivors(chunk, self._now_us)
        if self._seen:
            kept = [i for i, key in enumerate(keys) if key not in self._seen]
            if len(kept) < len(keys):
                keys = [keys[i] for i in kept]
                batch = batch.take(pa.array(kept, pa.int64()))
                lifetimes = None if lifetimes is None else [lifetimes[i] for i in kept]
        return keys, batch, lifetimes


async def _open_claimed(url: str, registry_id: str) -> OnlineStore:
    store = open_store(url)
    try:
        await claim(store, registry_id)
    except BaseException:
        await store.close()
        raise
    return store


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where there is one."""
    try:
        import uvloop  # noqa: PLC0415  (not on every platform)
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
