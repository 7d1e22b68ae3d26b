"""Which events of a shard count: one after the other, as the log has them, so that no cut into batches shows.

watermark    the newest event time before this event
late         its time is before the watermark less the source's lateness, or settled (settled.py): left out, counted
duplicate    an event of its id counted already: left out, counted
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastserve.hashes.mixing import Words
from fastserve.streaming.entities import Entities
from fastserve.streaming.events import Ints, times_of
from fastserve.streaming.feeds import Feed
from fastserve.streaming.seen import SeenIds, id_words


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of events.

    Attributes:
        kept: the rows that count, rising.
        late, duplicates: how many were left out for that.
        watermark_us: after all of them.
        new_ids: bucket -> words of those that count.
    """

    kept: Ints
    late: int
    duplicates: int
    watermark_us: int | None
    new_ids: dict[int, Words]


def sift(
    feed: Feed,
    batch: pa.RecordBatch,
    entities: Entities,
    watermark_us: int | None,
    seen: SeenIds,
    settled_us: int | None = None,
) -> Sifted:
    """Judge events; `seen` stays as it is."""
    times = times_of(batch)
    if not len(times):
        return Sifted(np.empty(0, np.int64), 0, 0, watermark_us, {})
    first = int(times[0]) if watermark_us is None else watermark_us
    # [n + 1]: before each event, and after all
    marks = np.maximum.accumulate(np.concatenate([[first], times]))
    in_time = times >= marks[:-1] - feed.source.lateness_us
    if settled_us is not None:
        in_time &= times > settled_us
    kept, new_ids = np.flatnonzero(in_time), dict[int, Words]()
    late = len(times) - len(kept)
    if feed.source.event_id:
        ids = batch[feed.source.event_id]
        words = id_words(entities.hashes(), ids)[kept]
        given = ids.is_valid().to_numpy(zero_copy_only=False)[kept]
        buckets = times[kept] // seen.width
        new = seen.first_of_each(words, buckets, seen.firsts(marks[kept]), given)
        kept = kept[new]
        new_ids = _by_bucket(words[new & given], buckets[new & given])
    duplicates = len(times) - late - len(kept)
    return Sifted(kept, late, duplicates, int(marks[-1]), new_ids)


def _by_bucket(words: Words, buckets: Ints) -> dict[int, Words]:
    return {bucket: words[buckets == bucket] for bucket in np.unique(buckets).tolist()}
