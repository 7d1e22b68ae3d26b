"""Events into the logs of their feeds: checked as a whole first, so that nothing of a call with a wrong row is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fastserve.offline.frames import arrow_table
from fastserve.streaming.base import FeedStore
from fastserve.streaming.entries import ENTRY_ROWS, encode_entry
from fastserve.streaming.events import given_events, of_feed
from fastserve.streaming.feeds import Feed
from fastserve.streaming.shards import shards_of
from fastserve.timeutil import now_us

Addressed = tuple[Feed, int, Mapping[bytes, bytes]]

_PIPELINE: Final = 200


class Producer:
    """Sends events of one source. It belongs to one thread.

    Args:
        store: where the logs are; the caller closes it.
        feeds: the source's.
        shards: how many shards a feed gets that has none yet.
        now: the clock, microseconds UTC; an event from beyond it is refused.
    """

    def __init__(
        self, store: FeedStore, feeds: Sequence[Feed], *, shards: int, now: Callable[[], int] = now_us
    ) -> None:
        self._store, self._now = store, now
        self._feeds = [(feed, store.shard_count(feed, shards)) for feed in feeds]

    def send(self, data: Any) -> int:
        """Add events to the logs; how many they are. Events of one entity keep the order in which they are given.

        Args:
            data: a pandas or polars frame, Arrow, or a mapping of column to values; columns as of
                events.given_events.

        Raises:
            InvalidDataError: a wrong row; nothing was sent.
            StoreError: part of it may have been sent. Send it again: where events have ids, they count once.
        """
        batch = given_events([feed for feed, _ in self._feeds], arrow_table(data), self._now())
        entries = (entry for feed, n in self._feeds for entry in encode(feed, n, batch))
        while some := list(islice(entries, _PIPELINE)):
            self._store.append(some)
        return int(batch.num_rows)


def encode(feed: Feed, n: int, batch: pa.RecordBatch) -> Iterator[Addressed]:
    """Events as entries of the feed's n shards."""
    batch = of_feed(feed, batch)
    shards = shards_of(feed, batch, n)
    for shard in np.unique(shards).tolist():
        rows = np.flatnonzero(shards == shard)
        for start in range(0, len(rows), ENTRY_ROWS):
            part = batch.take(pa.array(rows[start : start + ENTRY_ROWS]))
            yield feed, shard, encode_entry(part)
