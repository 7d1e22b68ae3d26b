"""A shard in our hands: claimed, read on from its offset, given back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from fastserve.cache import RowCache
from fastserve.online.live import live_key, parsed
from fastserve.streaming.applying import finish, prepare
from fastserve.streaming.base import Changes, FeedStore, LostShardError, MovedError
from fastserve.streaming.entries import ENTRY_ROWS, Entry
from fastserve.streaming.feeds import Feed
from fastserve.streaming.places import parts_of
from fastserve.streaming.seen import SeenIds
from fastserve.streaming.settled import first_state
from fastserve.streaming.state import ShardState
from fastserve.streaming.tiles import ViewTiles

log = logging.getLogger(__name__)

MOST_ROWS: Final = 4_000
MOST_BYTES: Final = 2 << 20
"""About how many rows, and bytes of them, a transaction writes: Redis serves nobody meanwhile, some 4 ms."""
_BATCH_BYTES: Final = 1 << 20
"""Of the entries of a transaction."""
_READ_BYTES: Final = 2 << 20
"""About how many bytes of entries are read ahead."""
_MOST_ENTRIES: Final = 1_000
CACHE_BYTES: Final = 64 << 20
"""Of the rows that a shard keeps."""


class OwnedShard:
    """One shard of a feed. Use `claim`.

    Rows that it wrote are kept, for nobody else writes them but a run that puts them right, which `corrected` tells: so
    most of what a transaction needs is not read.

    Args:
        state: as the store has it now.
        seen: its ids.
        cache_bytes: of rows that are kept.
    """

    def __init__(
        self,
        store: FeedStore,
        feed: Feed,
        shard: int,
        state: ShardState,
        seen: SeenIds,
        now: Callable[[], int],
        cache_bytes: int,
    ) -> None:
        self.feed, self.shard, self.state = feed, shard, state
        self._store, self._seen, self._now = store, seen, now
        self._held = state.encode()
        self._rows = RowCache(cache_bytes)
        self._live: Mapping[bytes, bytes | None] = {}  # which rows are served, as the store says
        self._guards: Mapping[bytes, bytes | None] = {}
        self._views: Sequence[ViewTiles] = ()
        self._ahead: deque[Entry] = deque()  # read, and not applied yet
        self._full = False  # as many were read last as were asked for
        self._entry_share = ENTRY_ROWS / MOST_ROWS  # of a transaction that an entry fills, lately
        self._entry_bytes = 50.0 * ENTRY_ROWS
        self._look()

    def step(self) -> int:
        """Apply the next entries, if there are any: how many.

        Raises:
            LostShardError: it is not ours any more; let go of it.
            StoreError: the store does not answer; whether it took what it was given, its state tells.
        """
        if not self._ahead:
            self._read()
        return self._apply_next()

    def take(self, entries: Sequence[Entry]) -> int:
        """Apply those of these entries, next to one another in the log, that are not applied yet: how many.

        Raises:
            LostShardError, StoreError: as `step`; those before are applied.
        """
        offset = parts_of(self.state.offset)
        self._ahead = deque(entry for entry in entries if parts_of(entry.id) > offset)
        taken = 0
        while self._ahead:
            taken += self._apply_next()
        return taken

    @property
    def behind(self) -> bool:
        """Whether another step has something to do, as far as is known without asking the store."""
        return bool(self._ahead) or self._full

    def is_as(self, held: bytes | None) -> bool:
        """Whether a store that holds this state has nothing that we do not know."""
        return held == self._held

    def release(self) -> None:
        """Give it back. Raises StoreError."""
        if not self._store.swap(self.feed, self.shard, self._held, self.state.released().encode()):
            log.info("%s, shard %d: another worker has it already", self.feed.name, self.shard)

    def trim(self, older_than_us: int, *, archived: bool) -> None:
        """Let the log go of older entries that were applied and, where that is done, archived. Raises StoreError."""
        self._store.trim(self.feed, self.shard, self.state.offset, older_than_us, archived=archived)

    def _apply_next(self) -> int:
        """A transaction of what was read; how many entries."""
        entries = self._next()
        if not entries:
            return 0
        while True:
            try:
                self._apply(entries)
                return len(entries)
            except MovedError:
                self._look()

    def _apply(self, entries: Sequence[Entry]) -> None:
        made = prepare(self.feed, self._views, self.state, self._seen, entries)
        self._rows.get_many(made.keys, 0, len(made.keys), 0)
        after = self.state

        def work() -> Changes:
            nonlocal after
            changes, after = finish(made, self.state, self._seen, self._now())
            return changes

        changes = self._store.apply(self.feed, self.shard, self._held, self._guards, made.keys, work)
        self.state, self._held = after, changes.state
        for bucket, words in changes.ids.items():
            self._seen.add(bucket, words)
        if after.watermark_us is not None:
            self._seen.let_go(self._seen.first(after.watermark_us))
        for batch in changes.rows:
            self._rows.put_many(batch, 0, len(batch))
        rows, size = sum(map(len, changes.rows)), sum(batch.size for batch in changes.rows)
        share = max(rows / MOST_ROWS, size / MOST_BYTES) / len(entries)
        self._entry_share += 0.5 * (share - self._entry_share)

    def _read(self) -> None:
        """More entries, as many as there are up to some size."""
        count = min(max(int(_READ_BYTES / self._entry_bytes), 1), _MOST_ENTRIES)
        found = self._store.entries(self.feed, self.shard, self.state.offset, count)
        if found:
            self._entry_bytes = max(sum(map(_size, found)) / len(found), 1.0)
        self._full = len(found) == count
        self._ahead.extend(found)

    def _next(self) -> list[Entry]:
        """Those that one transaction takes: what comes after small entries may be large ones."""
        count = min(max(int(1 / max(self._entry_share, 1e-6)), 1), _MOST_ENTRIES)
        found: list[Entry] = []
        size = 0
        while self._ahead and len(found) < count and size < _BATCH_BYTES:
            found.append(self._ahead.popleft())
            size += _size(found[-1])
        return found

    def _look(self) -> None:
        """Which rows are served: what is written goes there. Those that were kept may be wrong."""
        self._rows.clear()
        keys = [live_key(rv.view_id) for rv in self.feed.views]
        *held, corrected = self._store.values([*keys, self.feed.key("corrected", self.shard)])
        live = dict(zip(keys, held, strict=True))
        if live != self._live:
            self._live, self._views = live, list(self._served(held))
        self._guards = {**live, self.feed.key("corrected", self.shard): corrected}

    def _served(self, held: Sequence[bytes | None]) -> Iterator[ViewTiles]:
        for rv, row in zip(self.feed.views, held, strict=True):
            sets = None if row is None else parsed(rv.view_id, row)
            if sets is None or sets.ids:
                yield ViewTiles(rv if sets is None else rv.at(sets.live))


def _size(entry: Entry) -> int:
    return sum(map(len, entry.fields.values()))


def claim(
    store: FeedStore,
    feed: Feed,
    shard: int,
    worker: str,
    alive: Collection[str],
    now: Callable[[], int],
    cache_bytes: int = CACHE_BYTES,
) -> OwnedShard | None:
    """Take a shard whose owner is dead or gave it back; None while it has one, or another was quicker.

    Raises:
        StoreError: the store does not answer, or the state cannot be read.
    """
    ours = claimed(store, feed, shard, worker, alive)
    return None if ours is None else _opened(store, feed, shard, ours, now, cache_bytes)


def claimed(
    store: FeedStore, feed: Feed, shard: int, worker: str, alive: Collection[str]
) -> ShardState | None:
    """As `claim`, for one whose processes open it with `adopt`."""
    (held,) = store.states([(feed, shard)])
    state = first_state(store, feed, shard, held)
    if state.owner and state.owner != worker and state.owner in alive:
        return None
    ours = state.claimed(worker)
    return ours if store.swap(feed, shard, held, ours.encode()) else None


def adopt(
    store: FeedStore,
    feed: Feed,
    shard: int,
    owner: str,
    epoch: int,
    now: Callable[[], int],
    cache_bytes: int = CACHE_BYTES,
) -> OwnedShard:
    """Open a shard that an owner claimed, in another process of its.

    Several may have opened one: of two that apply at once one fails, having written nothing, and adopts it anew.

    Raises:
        LostShardError: another owns it, or owned it since.
        StoreError: as `claim`.
    """
    (held,) = store.states([(feed, shard)])
    state = first_state(store, feed, shard, held)
    if (state.owner, state.epoch) != (owner, epoch):
        raise LostShardError("another worker owns the shard", where=f"{feed.name}, shard {shard}")
    return _opened(store, feed, shard, state, now, cache_bytes)


def _opened(
    store: FeedStore, feed: Feed, shard: int, state: ShardState, now: Callable[[], int], cache_bytes: int
) -> OwnedShard:
    seen = SeenIds(feed.source.lateness_us, store.ids(feed, shard, state.buckets))
    return OwnedShard(store, feed, shard, state, seen, now, cache_bytes)
