"""How far a shard is, for people and for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.state import ShardState, decode_state
from fastserve.timeutil import MICROS, format_timestamp


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """See the module's docstring.

    Attributes:
        lag_entries: entries of the log that are not applied yet; None where the store cannot tell.
        lag_us: how long the oldest of them has been waiting.
    """

    feed: str
    shard: int
    state: ShardState
    lag_entries: int | None
    lag_us: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        state = self.state
        mark = state.watermark_us
        counters: Mapping[str, int] = state.counters
        return {
            "feed": self.feed,
            "shard": self.shard,
            "owner": state.owner or None,
            "epoch": state.epoch,
            "offset": state.offset,
            "watermark": None if mark is None else format_timestamp(mark),
            "lag_entries": self.lag_entries,
            "lag_seconds": round(self.lag_us / MICROS, 3),
            **counters,
        }


def feed_status(store: FeedStore, feed: Feed, shards: Sequence[int], now_us: int) -> list[ShardStatus]:
    """Of some shards of a feed, as the store has them now.

    Raises:
        StoreError: the store does not answer, or a state cannot be read.
    """
    held = store.states([(feed, shard) for shard in shards])
    found = []
    for shard, data in zip(shards, held, strict=True):
        state = decode_state(data, f"{feed.name}, shard {shard}")
        added = store.added(feed, shard)
        entries = None if added is None else max(added - state.counters.get("entries", 0), 0)
        oldest = store.entries(feed, shard, state.offset, 1)
        waiting = max(now_us - oldest[0].stamped_us, 0) if oldest else 0
        found.append(ShardStatus(feed.name, shard, state, entries, waiting))
    return found
