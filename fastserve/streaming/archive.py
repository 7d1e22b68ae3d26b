"""Streamed events into the offline store, from the same logs: a follower of its own, at its own pace.

The worker that owns a feed's first shard follows all logs of the feed, in a thread. All right events are kept, late
ones and copies too: history takes every event, and training looks for copies itself. Offsets are the table's
(offline/streamed.py); the store has a copy of them, which tells how much of a log may go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.errors import FastserveError
from fastserve.offline.streamed import StreamedEvents, events_uri
from fastserve.streaming.base import FeedStore
from fastserve.streaming.entries import Entry, decode_entries
from fastserve.streaming.events import known
from fastserve.streaming.feeds import Feed
from fastserve.streaming.places import number_of, place_of
from fastserve.streaming.state import START

log = logging.getLogger(__name__)

_ENTRIES: Final = 500
_BYTES: Final = 8 << 20
"""Of the entries of one log in one commit."""


class Archive:
    """See the module's docstring.

    Args:
        open_store: makes the thread's store.
        root: of the offline tables.
        ours: the feeds to follow now.
        every_s: seconds between two commits.
    """

    def __init__(
        self, open_store: Callable[[], FeedStore], root: str, ours: Callable[[], list[Feed]], every_s: float
    ) -> None:
        self._open_store, self._root, self._ours, self._every_s = open_store, root, ours, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastserve-archive", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End when the commit under way is done."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._round()
            except FastserveError as error:
                log.warning("events are not archived: %s; trying again", error)

    def _round(self) -> None:
        feeds = self._ours()
        if not feeds:
            return
        store = self._open_store()
        try:
            for feed in feeds:
                while not self._ended.is_set() and follow(store, self._root, feed):
                    pass
        finally:
            store.close()


def follow(store: FeedStore, root: str, feed: Feed) -> int:
    """Append what came since, a bounded piece of it; how many entries.

    Raises:
        StoreError, OfflineStoreError: nothing was appended; or it was, and is not appended again.
    """
    table = StreamedEvents(
        events_uri(root, feed.project, feed.source.name, list(feed.join_keys)), feed.schema
    )
    logs = [f"fastserve-stream:{feed.name}:{shard}" for shard in range(store.shard_count(feed, 1))]
    entries: list[Entry] = []
    moved: dict[str, int] = {}
    for shard, (name, number) in enumerate(zip(logs, table.offsets(logs), strict=True)):
        found = _entries(store, feed, shard, START if number is None else place_of(number))
        if found:
            moved[name] = number_of(found[-1].id)
            entries += found
    if not moved or not table.append(_events(feed, entries), moved):
        return 0
    store.note_archived(feed, {logs.index(name): place_of(number) for name, number in moved.items()})
    return len(entries)


def _entries(store: FeedStore, feed: Feed, shard: int, after: str) -> list[Entry]:
    found: list[Entry] = []
    size = 0
    while size < _BYTES:
        more = store.entries(feed, shard, after, _ENTRIES)
        if not more:
            break
        found += more
        size += sum(len(value) for entry in more for value in entry.fields.values())
        after = more[-1].id
    return found


def _events(feed: Feed, entries: list[Entry]) -> pa.RecordBatch:
    """The right events; one that does not say so was known when the log took it."""
    decoded = decode_entries(feed, entries)
    return known(decoded.batch, np.array([entry.stamped_us for entry in entries], np.int64)[decoded.entry])
