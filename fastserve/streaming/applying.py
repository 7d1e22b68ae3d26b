"""What entries make of a shard, without I/O.

prepare   entries -> events that count, and the keys they touch
finish    the rows that these keys hold -> everything one transaction writes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from fastserve.batch import ReadBatch
from fastserve.streaming.base import Changes
from fastserve.streaming.entities import entities_of
from fastserve.streaming.entries import DeadLetter, Decoded, Entry, decode_entries, letter_of
from fastserve.streaming.feeds import Feed
from fastserve.streaming.seen import SeenIds
from fastserve.streaming.sift import Sifted, sift
from fastserve.streaming.state import ShardState, added
from fastserve.streaming.tiles import Touched, ViewTiles


@dataclass(frozen=True, slots=True)
class Prepared:
    """Entries on their way into a shard.

    Attributes:
        batch: the events that count.
        touched: of each view.
        keys: of all views, one after the other; the store fills in their rows.
    """

    feed: Feed
    entries: Sequence[Entry]
    decoded: Decoded
    sifted: Sifted
    batch: pa.RecordBatch
    views: Sequence[ViewTiles]
    touched: list[Touched]
    keys: ReadBatch

    @property
    def n_events(self) -> int:
        """Of all kinds."""
        return len(self.decoded.entry) + len(self.decoded.dead)


def prepare(
    feed: Feed, views: Sequence[ViewTiles], state: ShardState, seen: SeenIds, entries: Sequence[Entry]
) -> Prepared:
    """Decode and judge entries, which are those behind the state's offset."""
    decoded = decode_entries(feed, entries)
    batch = decoded.batch
    entities = entities_of(feed, batch)
    sifted = sift(feed, batch, entities, state.watermark_us, seen, state.settled_us)
    if len(sifted.kept) < batch.num_rows:
        batch, entities = batch.take(pa.array(sifted.kept)), entities.of_events(sifted.kept)
    touched, keys = [view.touched(batch, entities) for view in views], ReadBatch()
    for one in touched:
        keys.take(one.keys, 0, len(one.keys))
    return Prepared(feed, entries, decoded, sifted, batch, views, touched, keys)


def finish(made: Prepared, state: ShardState, seen: SeenIds, now_us: int) -> tuple[Changes, ShardState]:
    """What to write, on top of the rows that are filled in at `made.keys`, and the state that is part of it.

    No event that counts is later than the watermark.
    """
    rows: list[ReadBatch] = []
    dead = list(made.decoded.dead)
    end_us = made.sifted.watermark_us
    at = 0
    for view, touched in zip(made.views, made.touched, strict=True):
        m = touched.entities.m
        bad = {wrong.i: wrong.reason for wrong in touched.wrong}
        if m:
            assert end_us is not None
            held = ReadBatch()
            held.take(made.keys, at, at + m)
            built = view.build(touched, held, end_us=end_us, created_us=now_us)
            rows += built.rows
            bad |= built.unreadable
        at += m
        dead += [letter_of(made.decoded, int(made.sifted.kept[i]), made.entries, bad[i]) for i in bad]
    after = _after(made, state, seen, dead, sum(map(len, rows)))
    gone = [bucket for bucket in state.buckets if bucket not in after.buckets]
    ids = {bucket: words for bucket, words in made.sifted.new_ids.items() if bucket in after.buckets}
    return Changes(after.encode(), rows, ids, gone, dead), after


def _after(
    made: Prepared, state: ShardState, seen: SeenIds, dead: Sequence[DeadLetter], rows: int
) -> ShardState:
    sifted = made.sifted
    buckets = {*state.buckets, *sifted.new_ids}
    if sifted.watermark_us is not None:
        first = seen.first(sifted.watermark_us)
        buckets = {bucket for bucket in buckets if bucket >= first}
    more = {
        "entries": len(made.entries),
        "events": made.n_events,
        "applied": len(sifted.kept),
        "late": sifted.late,
        "duplicates": sifted.duplicates,
        "dead": len(dead),
        "rows": rows,
    }
    return replace(
        state,
        offset=made.entries[-1].id,
        watermark_us=sifted.watermark_us,
        buckets=tuple(sorted(buckets)),
        counters={**state.counters, **added(state.counters, more)},
    )
