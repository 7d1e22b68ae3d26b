"""Up to when a feed's events are settled: of what happened by then, workers will apply nothing any more.

A worker leaves out what is earlier than its shard's watermark less the lateness. So of a shard

    settled = min(watermark, what history has) - lateness - 1 us

    what history has   with an archive, the newest event of the shard in it: logs are archived in their order, so what
                       is not there yet was applied as no earlier than that less the lateness. Without one, the newest
                       event of the batch source, which is taken to be as late as a stream may be

A run may put history in the place of all that is settled: it takes nothing away that only a log has, and no event that
a worker has still before it counts twice.

Shards whose events are far between would keep their rows from new history, those without any event for ever. Where
such a *quiet* shard has nothing to be read, and history has all that it applied, the run moves on what is settled
of it, by the shard's state: to the feed's newest watermark less the lateness; or to the newest event of history, where
the feed has had none or has fallen behind the batch source by more than the lateness. Then a worker leaves out what is
not later.

All of it is read before the history is: what was settled then stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.offline.schema import EVENT_TS
from fastserve.streaming.base import FeedStore
from fastserve.streaming.events import Ints
from fastserve.streaming.feeds import Feed
from fastserve.streaming.places import parts_of
from fastserve.streaming.shards import shards_of
from fastserve.streaming.state import START, ShardState, decode_state

NEVER: Final = -(2**63)
"""Nothing is settled."""


class Newest:
    """The newest events of a history, up to an end. Give it every batch of them.

    Args:
        n_shards: of the feed; 0 while it has none.
        end_us: later events do not count.

    Attributes:
        of_source, of_all: of the batch source's, of any event; NEVER without one.
        archived: int64[n_shards], of those that the archive has.
    """

    def __init__(self, feed: Feed, n_shards: int, end_us: int) -> None:
        self.of_source = self.of_all = NEVER
        self.archived = np.full(n_shards, NEVER)
        self._feed, self._end_us = feed, end_us

    def add(self, batch: pa.RecordBatch, archived: bool) -> None:
        """Canonical rows, with no join key null."""
        times = batch[EVENT_TS].cast(pa.int64()).to_numpy()
        counted = times <= self._end_us
        if not counted.any():
            return
        newest = int(times[counted].max())
        self.of_all = max(self.of_all, newest)
        if not archived:
            self.of_source = max(self.of_source, newest)
        elif len(self.archived):
            shards = shards_of(self._feed, batch, len(self.archived))
            np.maximum.at(self.archived, shards[counted], times[counted])


@dataclass(frozen=True, slots=True)
class Standing:
    """How a feed stood.

    Attributes:
        held: of each shard its state, as the store has it; none of a feed that nobody has begun.
        archived: of each shard up to which entry it is in the archive.
        begin: what is settled of a feed that nobody has begun, as the store has it.
    """

    held: Sequence[bytes | None]
    archived: Sequence[str]
    begin: bytes | None


def standing(store: FeedStore, feed: Feed) -> Standing:
    """How a feed stands.

    Raises:
        StoreError: the store does not answer.
    """
    begin, count = store.values([begin_key(feed), feed.key("shards")])
    shards = range(int(count or 0))
    held = store.states([(feed, shard) for shard in shards])
    places = store.values([feed.key("archived", shard) for shard in shards])
    return Standing(held, [START if place is None else place.decode() for place in places], begin)


def begin_key(feed: Feed) -> bytes:
    """Where a run notes, before the feed's first event, what is settled of it."""
    return feed.key("begin")


def first_state(store: FeedStore, feed: Feed, shard: int, held: bytes | None) -> ShardState:
    """The state that a store holds; of a shard that nobody has read yet the first one.

    Raises:
        StoreError: the store does not answer, or it cannot be read.
    """
    state = decode_state(held, f"{feed.name}, shard {shard}")
    if held is None:
        (begin,) = store.values([begin_key(feed)])
        state = replace(state, settled_us=None if begin is None else int(begin))
    return state


def begin(store: FeedStore, feed: Feed, before: Standing, newest_us: int) -> bool:
    """Note what is settled of a feed that nobody has begun; False if somebody has, or noted something else.

    Raises:
        StoreError: the store does not answer.
    """
    settled = max(newest_us, NEVER if before.begin is None else int(before.begin))
    guards = {feed.key("shards"): None, begin_key(feed): before.begin}
    return store.exchange(guards, {begin_key(feed): str(settled).encode()})


def settle(
    store: FeedStore, feed: Feed, before: Standing, newest: Newest, *, archive: bool, end_us: int
) -> Ints:
    """What is settled of each shard of a feed that was begun, int64[n], NEVER where nothing is; at most end_us.

    Args:
        before: how it stood before the history was read.
        newest: of the history.
        archive: whether events are archived.

    Raises:
        StoreError: the store does not answer, or a state cannot be read.
    """
    lateness = feed.source.lateness_us
    states = [first_state(store, feed, shard, held) for shard, held in enumerate(before.held)]
    there = [int(mark) for mark in newest.archived] if archive else [newest.of_source] * len(states)
    goal = min(_goal(states, newest, lateness, archive), end_us)
    begun = any(state.watermark_us is not None for state in states)
    settled = np.full(len(states), NEVER)
    for shard, state in enumerate(states):
        own = NEVER if state.settled_us is None else state.settled_us
        if state.watermark_us is not None and there[shard] > NEVER:
            own = max(own, min(state.watermark_us, there[shard]) - lateness - 1)
        if goal - lateness * begun > own and _move_on(store, feed, shard, state, before, archive, goal):
            own = goal
        settled[shard] = min(own, end_us)
    return settled


def _goal(states: Sequence[ShardState], newest: Newest, lateness_us: int, archive: bool) -> int:
    """How far quiet shards are moved on."""
    mark = max((state.watermark_us for state in states if state.watermark_us is not None), default=NEVER)
    if mark == NEVER:
        return newest.of_all
    if mark < newest.of_source - lateness_us:
        return newest.of_source
    known = mark if archive else min(mark, newest.of_source)
    return max(known - lateness_us - 1, NEVER)


def _move_on(
    store: FeedStore, feed: Feed, shard: int, state: ShardState, before: Standing, archive: bool, goal: int
) -> bool:
    """Whether a shard was quiet, and is settled up to `goal` from now on."""
    unarchived = parts_of(before.archived[shard]) < parts_of(state.offset)
    if archive and state.watermark_us is not None and unarchived:
        return False
    if store.entries(feed, shard, state.offset, 1):
        return False
    key = feed.key("state", shard)
    return store.exchange({key: before.held[shard]}, {key: replace(state, settled_us=goal).encode()})
