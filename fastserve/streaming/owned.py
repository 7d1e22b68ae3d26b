"""A shard in our hands: claimed, read on from its offset, given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from fastserve.online.live import live_key, parsed
from fastserve.streaming.applying import finish, prepare
from fastserve.streaming.base import Changes, FeedStore, MovedError
from fastserve.streaming.entries import ENTRY_ROWS, Entry
from fastserve.streaming.feeds import Feed
from fastserve.streaming.seen import SeenIds
from fastserve.streaming.settled import first_state
from fastserve.streaming.state import ShardState
from fastserve.streaming.tiles import ViewTiles

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 4_000
"""About how many events a transaction has: Redis serves nobody while it writes their rows."""
_BATCH_BYTES: Final = 512 << 10
_MOST_ENTRIES: Final = 1_000


class OwnedShard:
    """One shard of a feed. Use `claim`.

    Args:
        state: as the store has it now.
        seen: its ids.
    """

    def __init__(
        self,
        store: FeedStore,
        feed: Feed,
        shard: int,
        state: ShardState,
        seen: SeenIds,
        now: Callable[[], int],
    ) -> None:
        self.feed, self.shard, self.state = feed, shard, state
        self._store, self._seen, self._now = store, seen, now
        self._held = state.encode()
        self._guards: Mapping[bytes, bytes | None] = {}
        self._views: Sequence[ViewTiles] = ()
        self._entry_events = float(ENTRY_ROWS)
        self._look()

    def step(self) -> int:
        """Apply the next entries, if there are any: how many.

        Raises:
            LostShardError: it is not ours any more; let go of it.
            StoreError: the store does not answer; whether it took what it was given, its state tells.
        """
        count = min(max(int(BATCH_EVENTS / self._entry_events), 1), _MOST_ENTRIES)
        entries = _first(self._store.entries(self.feed, self.shard, self.state.offset, count))
        if not entries:
            return 0
        try:
            self._apply(entries)
        except MovedError:
            self._look()
            self._apply(entries)
        return len(entries)

    def release(self) -> None:
        """Give it back. Raises StoreError."""
        if not self._store.swap(self.feed, self.shard, self._held, self.state.released().encode()):
            log.info("%s, shard %d: another worker has it already", self.feed.name, self.shard)

    def trim(self, older_than_us: int, *, archived: bool) -> None:
        """Let the log go of older entries that were applied and, where that is done, archived. Raises StoreError."""
        self._store.trim(self.feed, self.shard, self.state.offset, older_than_us, archived=archived)

    def _apply(self, entries: Sequence[Entry]) -> None:
        made = prepare(self.feed, self._views, self.state, self._seen, entries)
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
        self._entry_events += 0.5 * (made.n_events / len(entries) - self._entry_events)

    def _look(self) -> None:
        """Which rows are served: what is written goes there."""
        keys = [live_key(rv.view_id) for rv in self.feed.views]
        held = self._store.values(keys)
        self._guards = dict(zip(keys, held, strict=True))
        views = []
        for rv, row in zip(self.feed.views, held, strict=True):
            sets = None if row is None else parsed(rv.view_id, row)
            if sets is None or sets.ids:
                views.append(ViewTiles(rv if sets is None else rv.at(sets.live)))
        self._views = views


def _first(entries: list[Entry]) -> list[Entry]:
    """Those that one transaction takes: what comes after small entries may be large ones."""
    size = 0
    for i, entry in enumerate(entries):
        size += sum(map(len, entry.fields.values()))
        if size > _BATCH_BYTES:
            return entries[: i + 1]
    return entries


def claim(
    store: FeedStore,
    feed: Feed,
    shard: int,
    worker: str,
    alive: Collection[str],
    now: Callable[[], int],
) -> OwnedShard | None:
    """Take a shard whose owner is dead or gave it back; None while it has one, or another was quicker.

    Raises:
        StoreError: the store does not answer, or the state cannot be read.
    """
    (held,) = store.states([(feed, shard)])
    state = first_state(store, feed, shard, held)
    if state.owner and state.owner != worker and state.owner in alive:
        return None
    ours = state.claimed(worker)
    if not store.swap(feed, shard, held, ours.encode()):
        return None
    seen = SeenIds(feed.source.lateness_us, store.ids(feed, shard, ours.buckets))
    return OwnedShard(store, feed, shard, ours, seen, now)
