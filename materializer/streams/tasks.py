"""What an executor does with entries of a feed: it opens the shards that the driver claimed, and applies them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from fastserve.config import Config
from fastserve.errors import StoreError
from fastserve.streaming.base import FeedStore, LostShardError
from fastserve.streaming.entries import Entry
from fastserve.streaming.feeds import Feed
from fastserve.streaming.owned import OwnedShard, adopt
from fastserve.streaming.places import parts_of
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.stores import open_feeds, open_own
from fastserve.timeutil import now_us
from materializer.engine import inside

ENTRIES: Final = "shard int, id string, stamped_us bigint, names array<binary>, bodies array<binary>"
"""An entry as a row: its fields' names and what they hold."""
Row = tuple[int, str, int, Sequence[bytes], Sequence[bytes]]
"""Such a row; on its way through Spark bytes may become bytearrays."""
Answer = tuple[int, int, str | None, bytes | None]
_ENTRIES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """What tasks are told.

    Attributes:
        feed: as it is defined now.
        owner: the runner's name.
        epochs: shard -> the epoch in which it has it.
        reached: shard -> the offset that its state had when a batch was done, or it was claimed.
        version: another one for another feed, owner or epochs.
    """

    config: Config
    feed: Feed
    owner: str
    epochs: Mapping[int, int]
    reached: Mapping[int, str]
    version: str


def applied(ticket: Ticket, rows: Iterable[Row]) -> Iterator[Answer]:
    """Apply entries: for each shard, how many and how far it is, or the error that ended it, pickled.

    Entries of a shard come in their order. One that fails is left alone: what comes behind must not go before it.
    """
    shards = kept(ticket.config).shards
    for shard, some in groupby(rows, key=itemgetter(0)):
        count, error = 0, None
        try:
            while entries := [entry_of(row) for row in islice(some, _ENTRIES)]:
                count += shards.take(ticket, shard, entries)
        except Exception as caught:
            error = _pickled(caught)
        yield shard, count, shards.offset(shard), error


class Kept(ExitStack):
    """What a process keeps from task to task, of whichever kind they are."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    @cached_property
    def logs(self) -> FeedStore:
        """Where logs are; only who reads them needs what that takes."""
        return self._closed(open_feeds(self._config))

    @cached_property
    def shards(self) -> Shards:
        """Over the store of states and rows."""
        settings = StreamSettings.of(self._config.streaming)
        return Shards(self._closed(open_own(self._config.online_store)), settings.cache_bytes)

    def _closed(self, store: FeedStore) -> FeedStore:
        self.callback(store.close)
        return store


def kept(config: Config) -> Kept:
    """What this process keeps."""
    return inside.keep(("streams", config), lambda: Kept(config))


class Shards:
    """The shards that a process has open: it does the same ones again and again, if it does not, it opens them anew.

    Args:
        store: of states and rows.
        cache_bytes: of rows that are kept of each.
    """

    def __init__(self, store: FeedStore, cache_bytes: int) -> None:
        self._store, self._cache_bytes = store, cache_bytes
        self._open: dict[int, OwnedShard] = {}
        self._version = ""

    def take(self, ticket: Ticket, shard: int, entries: list[Entry]) -> int:
        """Apply what is not applied yet; how many.

        Raises:
            LostShardError: another has the shard now.
            StoreError: it does not answer, or has lost what it had: entries between would be missing.
        """
        if ticket.version != self._version:
            self._open, self._version = {}, ticket.version
        owned = self._open.get(shard)
        if owned is None or not owned.is_as(self._store.states([(ticket.feed, shard)])[0]):
            owned = self._adopted(ticket, shard)
        try:
            return owned.take(entries)
        except LostShardError:  # a task that was given up is still at it, or it is lost indeed
            return self._adopted(ticket, shard).take(entries)

    def offset(self, shard: int) -> str | None:
        """How far a shard is."""
        return self._open[shard].state.offset if shard in self._open else None

    def _adopted(self, ticket: Ticket, shard: int) -> OwnedShard:
        self._open.pop(shard, None)
        owned = adopt(
            self._store, ticket.feed, shard, ticket.owner, ticket.epochs[shard], now_us, self._cache_bytes
        )
        if parts_of(owned.state.offset) < parts_of(ticket.reached[shard]):
            raise StoreError(
                f"the store is at {owned.state.offset}, and was at {ticket.reached[shard]}: it lost what it had",
                where=f"{ticket.feed.name}, shard {shard}",
            )
        self._open[shard] = owned
        return owned


def entry_of(row: Row) -> Entry:
    """The entry that a row is."""
    _, name, stamped_us, names, bodies = row
    return Entry(name, stamped_us, dict(zip(map(bytes, names), map(bytes, bodies), strict=True)))


def _pickled(error: Exception) -> bytes:
    try:
        made = pickle.dumps(error)
        pickle.loads(made)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return made
