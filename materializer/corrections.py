"""Rows of one view put right beside the workers of its feed, which go on meanwhile.

before     how the feed stands                                              fastserve/streaming/settled.py
read       history, up to the run's end
settled    up to when, in each shard, workers apply nothing any more
rows       history's tiles up to then, before those that the stream goes on with     fastserve/aggregations/splice.py
write      each row if it still is what was looked at; else look again      FeedStore.correct

An entity without any event in history is let alone: what history lacks altogether may just not be there yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.aggregations.splice import ReadBatch, TileSplicer
from fastserve.codec.keys import KeyEncoder
from fastserve.config import Config
from fastserve.errors import ConfigError
from fastserve.registry import RegisteredView, Snapshot
from fastserve.streaming.base import Correction, FeedStore
from fastserve.streaming.events import Ints
from fastserve.streaming.feeds import Feed, feeds_of
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.settled import NEVER, Newest, begin, settle, standing
from fastserve.streaming.shards import shards_of
from fastserve.streaming.stores import open_feeds, open_own
from materializer.stop import Stop
from materializer.tiles import TileRows
from materializer.windows.events import Events
from materializer.write import PUT_ROWS

log = logging.getLogger(__name__)

_NEWEST: Final = slice(8, 16)
_SIGN: Final = 1 << 63


def opened_feeds(config: Config) -> FeedStore | None:
    """The feeds of a repo; None where its online store has none.

    Raises:
        ConfigError: a setting that will not do, or a library is missing.
        StoreError: the server does not answer.
    """
    try:
        own = open_own(config.online_store)
    except ConfigError:
        return None
    if not StreamSettings.of(config.streaming).kafka:
        return own
    own.close()
    return open_feeds(config)


class Corrections:
    """What one run writes of a view.

    Args:
        store: of the feeds.
        rv: the view.
        end_us: of the run: it writes nothing of later events.
        now_us: the stamp of rows.
        stop: asked between two batches.

    Attributes:
        newest: of the history; give it all of that.
    """

    def __init__(
        self,
        store: FeedStore,
        snapshot: Snapshot,
        rv: RegisteredView,
        settings: StreamSettings,
        *,
        end_us: int,
        now_us: int,
        stop: Stop,
    ) -> None:
        self._store, self._rv = store, rv
        self._feed = _feed_of(snapshot, rv)
        self._archive = settings.archive_us is not None
        self._end_us, self._now_us, self._stop = end_us, now_us, stop
        self._before = standing(store, self._feed)
        self._settled: Ints = np.empty(0, np.int64)
        self.newest = Newest(self._feed, len(self._before.held), end_us)

    @property
    def needed(self) -> bool:
        """Whether there are workers, or were; without any, rows are the run's alone."""
        return bool(self._before.held)

    def settle(self) -> bool:
        """Once the history is read, before the first row is written; False: somebody has begun the feed, begin again.

        Raises:
            StoreError: the store does not answer.
        """
        if not self.needed:
            newest = self.newest.of_all
            return newest == NEVER or begin(self._store, self._feed, self._before, newest)
        self._settled = settle(
            self._store, self._feed, self._before, self.newest, archive=self._archive, end_us=self._end_us
        )
        open_ = int(np.sum(self._settled == NEVER))
        if open_:
            log.warning(
                "view %s: rows in %d of %d shards of %s stay as they are: their events are not archived, or not read",
                self._rv.view.name,
                open_,
                len(self._settled),
                self._feed.name,
            )
        return True

    def begun_since(self) -> bool:
        """Whether somebody has begun the feed since this began."""
        return not self.needed and bool(standing(self._store, self._feed).held)

    def write(self, made: TileRows, part: Sequence[pa.RecordBatch], ids: Sequence[int]) -> int:
        """Put the rows of a part right in the row sets of these ids; how many of the first were other ones.

        Raises:
            Stopped: between two batches.
            StoreError: the store failed; part of it may be written.
        """
        keys, events = made.entities(part)
        named = pa.RecordBatch.from_arrays(list(keys), names=list(self._rv.join_keys))
        shards = shards_of(self._feed, named, len(self._settled))
        until = self._settled[shards]
        known = until > NEVER
        keys, events = [column.filter(pa.array(known)) for column in keys], _up_to(events, until)
        shards, until = shards[known], until[known]
        splicer = TileSplicer(made.program, self._rv.layout.layout_id)
        written = 0
        for number, online_id in enumerate(ids):
            encoder = KeyEncoder(online_id, tuple(self._rv.join_keys.values()))
            for start in range(0, len(shards), PUT_ROWS):
                self._stop.check()
                stop = start + PUT_ROWS
                history = made.built(encoder, keys, events, start)
                done = self._put(splicer, history, shards[start:stop], until[start:stop], made.kept_us)
                written += 0 if number else done
        return written

    def _put(self, splicer: TileSplicer, history: ReadBatch, shards: Ints, until: Ints, kept_us: int) -> int:
        """The rows of some entities, until each is what it is to be; how many were written."""
        keys, rows = history.keys(), history.rows()
        todo, written = np.arange(len(keys)), 0
        while len(todo):
            names = [keys[i] for i in todo]
            held = self._store.values(names)
            out, ours, theirs = ReadBatch(names), ReadBatch(names), ReadBatch(names)
            ours.fill([rows[i] for i in todo], 0)
            theirs.fill(held, 0)
            splicer.splice_into(out, ours, theirs, settled_us=until[todo], created_us=self._now_us)
            made = out.rows()
            again: list[int] = []
            for shard in np.unique(shards[todo]).tolist():
                wanted = [j for j in np.flatnonzero(shards[todo] == shard) if made[j] is not None]
                found = [Correction(names[j], held[j], row, _newest(row) + kept_us)
                         for j in wanted if (row := made[j]) is not None]  # fmt: skip
                done = self._store.correct(self._feed, shard, found) if found else []
                written += sum(done)
                again += [int(todo[j]) for j, one in zip(wanted, done, strict=True) if not one]
            todo = np.array(sorted(again), np.int64)
        return written


def _feed_of(snapshot: Snapshot, rv: RegisteredView) -> Feed:
    for feed in feeds_of(snapshot):
        if any(view.view_id == rv.view_id for view in feed.views):
            return feed
    raise AssertionError(f"view {rv.view.name!r} is of no feed")


def _newest(row: bytes) -> int:
    return int.from_bytes(row[_NEWEST], "big") - _SIGN


def _up_to(events: Events, until: Ints) -> Events:
    """The events that are settled, of the entities of which anything is: `until` says up to when, NEVER for nothing."""
    whose = np.repeat(np.arange(len(until)), np.diff(events.starts))
    kept = events.times <= until[whose]
    ends = np.cumsum(np.bincount(whose[kept], minlength=len(until)))[until > NEVER]
    columns = [column.filter(pa.array(kept)) for column in events.columns]
    return Events(np.append(0, ends), np.arange(int(kept.sum())), events.times[kept], columns)
