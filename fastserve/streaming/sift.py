"""Which events of a shard count: one after the other, as the log has them, so that no cut into batches shows.

watermark    the newest event time before this event
late         its time is before the watermark less the source's lateness: left out, counted
duplicate    an event of its id counted already: left out, counted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastserve.codec.keys import KeyEncoder
from fastserve.streaming.entries import Decoded
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
    new_ids: dict[int, list[int]]


def sift(feed: Feed, decoded: Decoded, watermark_us: int | None, seen: SeenIds) -> Sifted:
    """Judge events; `seen` stays as it is."""
    times = times_of(decoded.batch)
    if not len(times):
        return Sifted(np.empty(0, np.int64), 0, 0, watermark_us, {})
    first = int(times[0]) if watermark_us is None else watermark_us
    marks = np.maximum.accumulate(
        np.concatenate([[first], times])
    )  # [n + 1]: before each event, and after all
    in_time = times >= marks[:-1] - feed.source.lateness_us
    kept, new_ids = np.flatnonzero(in_time), dict[int, list[int]]()
    late = len(times) - len(kept)
    if feed.source.event_id:
        batch = decoded.batch
        keys = KeyEncoder(0, tuple(feed.join_keys.values()))
        entities = keys.encode([batch[name] for name in feed.join_keys], batch.num_rows)
        words = id_words(entities, batch[feed.source.event_id])
        kept, new_ids = _first_of_each(kept, times, marks, words, seen)
    duplicates = len(times) - late - len(kept)
    return Sifted(kept, late, duplicates, int(marks[-1]), new_ids)


def _first_of_each(
    rows: Ints, times: Ints, marks: Ints, words: Sequence[int | None], seen: SeenIds
) -> tuple[Ints, dict[int, list[int]]]:
    """Of these rows those whose id is new, and their ids by bucket."""
    buckets = times // seen.width
    known = [word for word in words if word is not None]
    if len(rows) == len(words) == len(set(known)) and seen.has_none_of(known):
        return rows, {
            bucket: [known[i] for i in np.flatnonzero(buckets == bucket).tolist()]
            for bucket in np.unique(buckets).tolist()
        }
    ours: dict[int, int] = {}
    kept: list[int] = []
    new_ids: dict[int, list[int]] = {}
    firsts = seen.firsts(marks)
    for i, bucket, first in zip(rows.tolist(), buckets[rows].tolist(), firsts[rows].tolist(), strict=True):
        word = words[i]
        if word is None:
            kept.append(i)
            continue
        if ours.get(word, first - 1) >= first or seen.bucket(word, first - 1) >= first:
            continue
        ours[word] = bucket
        kept.append(i)
        new_ids.setdefault(bucket, []).append(word)
    return np.array(kept, np.int64), new_ids
