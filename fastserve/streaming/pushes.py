"""Events that are pushed: from a script, and to a server, which must not wait for a log with its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from fastserve.config import Config
from fastserve.errors import OverloadedError, StoreError, StoreUnavailableError, TooLargeError
from fastserve.offline.frames import arrow_table
from fastserve.registry import Snapshot
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed, feeds_of
from fastserve.streaming.producer import Producer
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.stores import open_feeds
from fastserve.timeutil import now_us

MAX_ROWS: Final = 10_000
MAX_WAITING: Final = 256
MAX_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Events:
    """Events and the feeds of their source; `data` is what frames.arrow_table takes."""

    feeds: Sequence[Feed]
    data: Any


def push_events(config: Config, snapshot: Snapshot, source: str, data: Any) -> tuple[int, list[Feed]]:
    """Send events once; how many, and the feeds they went to.

    Raises:
        InvalidDataError, RequestError, UnknownObjectError: nothing was sent.
        ConfigError: the online store has no streams.
        StoreError: part may have been sent; see Producer.send.
    """
    settings, feeds = StreamSettings.of(config.streaming), feeds_of(snapshot, source)
    store = open_feeds(config)
    try:
        return Producer(store, feeds, shards=settings.shards).send(data), feeds
    finally:
        store.close()


class EventPusher:
    """Takes events on one event loop, and sends them in a thread: one after the other, for that is what a log is.

    Args:
        config: of the repo.
        now: the clock, microseconds UTC.
    """

    def __init__(self, config: Config, now: Callable[[], int] = now_us) -> None:
        self._config, self._settings, self._now = config, StreamSettings.of(config.streaming), now
        self._thread = ThreadPoolExecutor(1, "fastserve-events")
        self._store: FeedStore | None = None
        self._running: dict[asyncio.Future[bool], int] = {}
        self._closed = False

    async def submit(self, make: Callable[[], Events | None], size: int) -> bool:
        """Send what `make` returns, which is called in the thread; False when that is None.

        Events that are taken are sent when the caller is cancelled, too.

        Args:
            size: about how many bytes they will hold.

        Raises:
            InvalidDataError, TooLargeError, RequestError: nothing was sent.
            OverloadedError: too much waits already; nothing was sent.
            StoreError: part may have been sent.
        """
        if self._closed:
            raise StoreUnavailableError("events are no longer taken: the server is stopping")
        waiting = len(self._running), sum(self._running.values())
        if self._running and (waiting[0] >= MAX_WAITING or waiting[1] + size > MAX_BYTES):
            raise OverloadedError(f"{waiting[0]} pushes of events are being sent already")
        task = asyncio.get_running_loop().run_in_executor(self._thread, self._send, make)
        self._running[task] = size
        task.add_done_callback(self._running.pop)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Take no more; return when what was taken is sent."""
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget)
        self._thread.shutdown()

    def _send(self, make: Callable[[], Events | None]) -> bool:
        events = make()
        if events is None:
            return False
        table = arrow_table(events.data)
        if table.num_rows > MAX_ROWS:
            raise TooLargeError(
                f"{table.num_rows:,} events in one push; the limit is {MAX_ROWS:,}",
                hint="send several pushes",
            )
        try:
            if self._store is None:
                self._store = open_feeds(self._config)
            shards = self._settings.shards
            Producer(self._store, events.feeds, shards=shards, now=self._now).send(table)
        except StoreError:
            self._forget()
            raise
        return True

    def _forget(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
