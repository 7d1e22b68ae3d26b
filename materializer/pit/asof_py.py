"""`find_rows` in numpy: for each label, the row that was in force at its time. The readable twin of asof_native.py.

Among the rows of the label's entity with ``event_ts <= t``, ``event_ts > t - ttl`` and ``created_ts <= cutoff``,
the largest (event_ts, created_ts, position). Pure numpy, no loop over labels or rows.

Rows are put in that order within each entity, entities one after another; one int64 per row holds entity and
event time, so that a single binary search per label finds the last row not after it:

    place    0:t1 0:t3 0:t3 1:t2 1:t5     (entity:time)
    created  c    c    c+1  c    c        (decides within equal places)
    label (0, t4) -> the last place <= 0:t4 -> row 2

The winner has the largest event time, so if the winner is too old for the ttl, every other row is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materializer.pit.chunks import NONE, Ints, Labels, Piece, RowChunk, Seen, place, unseen
from materializer.pit.factorize import canonical_key, shared_codes

_MIN, _MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max
GROUP_ROWS: Final = 1 << 22


def find_rows(
    labels: Labels,
    pieces: Sequence[Piece],
    *,
    ttl_us: int | None = None,
    cutoff: int | Ints | None = None,
    threads: int | None = None,
    group_rows: int = GROUP_ROWS,
    seen: Seen = unseen,
) -> Ints:
    """The place of each label's row, or -1: int64[n]. See the dispatcher for places, `asof_indices` for the rule.

    Args:
        labels: what is asked for.
        pieces: rows in source order, read once.
        ttl_us, cutoff: see `asof_indices`.
        threads: at most so many; None: as many as there are cores. The answer does not depend on it.
        group_rows: how many rows may be held at a time, and those of a chunk. Nor on this.
        seen: told how many rows have been read.
    """
    best = _Best(len(labels.times))
    for places, chunks in _groups(pieces, group_rows):
        row_keys = [
            pa.concat_arrays([canonical_key(chunk.keys[i], key_type) for chunk in chunks])
            for i, key_type in enumerate(labels.key_types)
        ]
        spine_codes, row_codes = shared_codes(labels.keys, row_keys, len(labels.times), len(places))
        event, created = (
            np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("event_ts", "created_ts")
        )
        found = asof_indices(
            spine_codes, labels.times, row_codes, event, created, ttl_us=ttl_us, cutoff=cutoff
        )
        best.offer(np.flatnonzero(found >= 0), found[found >= 0], event, created, places)
        seen(len(places))
    return best.place


class _Best:
    """Each label's best row so far: of all rows that may be taken, the best of the bests of some is the best."""

    def __init__(self, n: int) -> None:
        self.event, self.created = np.full(n, _MIN), np.full(n, _MIN)
        self.place = np.full(n, NONE, np.int64)

    def offer(self, labels: Ints, rows: Ints, event: Ints, created: Ints, places: Ints) -> None:
        """Rows that some labels have among others than before."""
        mine = (event[rows], created[rows], places[rows])
        held = (self.event[labels], self.created[labels], self.place[labels])
        better = mine[2] > held[2]
        for new, old in ((mine[1], held[1]), (mine[0], held[0])):
            better = (new > old) | ((new == old) & better)
        labels = labels[better]
        for column, new in zip((self.event, self.created, self.place), mine, strict=True):
            column[labels] = new[better]


def _groups(pieces: Sequence[Piece], group_rows: int) -> Iterator[tuple[Ints, list[RowChunk]]]:
    """Chunks, some together; and the places of their rows."""
    places: list[Ints] = []
    chunks: list[RowChunk] = []
    held = 0
    for number, piece in enumerate(pieces):
        first = place(number)
        for chunk in piece:
            places.append(np.arange(first, first + len(chunk.event_ts)))
            chunks.append(chunk)
            first += len(chunk.event_ts)
            held += len(chunk.event_ts)
            if held >= group_rows:
                yield np.concatenate(places), chunks
                places, chunks, held = [], [], 0
    if chunks:
        yield np.concatenate(places), chunks


def asof_indices(
    spine_codes: Ints,
    spine_ts: Ints,
    feat_codes: Ints,
    feat_ts: Ints,
    feat_created: Ints,
    *,
    ttl_us: int | None = None,
    cutoff: int | Ints | None = None,
) -> Ints:
    """Per label the index of its row, or -1: int64[n].

    Exact over the whole range of int64; nothing overflows.

    Args:
        spine_codes, spine_ts: entity code and time of each label, [n]; a code below 0 matches nothing.
        feat_codes, feat_ts, feat_created: entity code, event time and created time of each row, [m], in source
            order; a row with a code below 0 is never found.
        ttl_us: how long after its event time a row holds; None for ever; 0 or less: never.
        cutoff: only rows created by then: one time for all labels, or one per label, [n].
    """
    nothing = np.full(len(spine_codes), -1, np.int64)
    kept = feat_codes >= 0
    if cutoff is not None and not isinstance(cutoff, np.ndarray):
        kept &= feat_created <= cutoff
        cutoff = None
    rows = np.flatnonzero(kept)
    if not len(rows) or (ttl_us is not None and ttl_us <= 0):
        return nothing
    spine_codes, codes = _dense(spine_codes, feat_codes[rows])
    times, moments, width = _clock(int(codes.max()) + 1, feat_ts[rows], spine_ts)
    places = codes * width + times
    order = _order(places, feat_created[rows])
    places, rows = places[order], rows[order]
    at = _last_not_after(places, spine_codes * width + moments)
    if cutoff is not None:
        at = _last_known(feat_created[rows], at, np.asarray(cutoff, np.int64))
    good = (at >= 0) & (spine_codes >= 0) & (places[at] // width == spine_codes)
    found = rows[at]
    if ttl_us is not None and ttl_us < 2**64:
        good &= _age(spine_ts, feat_ts[found]) < np.uint64(ttl_us)
    return np.where(good, found, nothing)


def _age(now: Ints, then: Ints) -> npt.NDArray[np.uint64]:
    """now - then, where now >= then: fits uint64 even where it does not fit int64."""
    return now.astype(np.int64).view(np.uint64) - then.astype(np.int64).view(np.uint64)


def _dense(spine: Ints, features: Ints) -> tuple[Ints, Ints]:
    """The same codes, renumbered if they are so large that code times rank would not fit int64."""
    if int(features.max()) < 2**31:
        return np.where(spine < 2**31, spine, -1), features
    known, codes = np.unique(features, return_inverse=True)
    at = np.minimum(np.searchsorted(known, spine), len(known) - 1)
    return np.where(known[at] == spine, at, -1), codes


def _clock(n_codes: int, feat_ts: Ints, spine_ts: Ints) -> tuple[Ints, Ints, int]:
    """Times as small numbers in the same order: (rows' 1.., labels' 0 for "before all rows".., one more than all).

    The time since the first row where code times that fits int64, as it nearly always does; else ranks.
    """
    low, high = int(feat_ts.min()), int(feat_ts.max())
    width = high - low + 2
    if n_codes * width < 2**62:
        since = np.clip(spine_ts, low, high) - low + 1
        return feat_ts - low + 1, np.where(spine_ts < low, 0, since), width
    times, ranks = np.unique(feat_ts, return_inverse=True)
    return ranks + 1, np.searchsorted(times, spine_ts, "right"), len(times) + 1


def _last_not_after(places: Ints, asked: Ints) -> Ints:
    """Per label the last position with places[i] <= asked, or -1. Searched in order, which caches like."""
    order = np.argsort(asked)
    at = np.empty(len(asked), np.int64)
    at[order] = np.searchsorted(places, asked[order], "right") - 1
    return at


def _order(places: Ints, created: Ints) -> Ints:
    """Indices by (place, created, position). Mostly created times agree with the order already: one sort."""
    order = np.argsort(places, kind="stable")
    sorted_places, sorted_created = places[order], created[order]
    ties = sorted_places[1:] == sorted_places[:-1]
    if (ties & (sorted_created[1:] < sorted_created[:-1])).any():
        return np.lexsort((created, places))
    return order


def _last_known(created: Ints, at: Ints, cutoff: Ints) -> Ints:
    """Per label the largest i <= at with created[i] <= cutoff, or -1: int64[n].

    A tree of minima over `created`, level k holding one minimum per 2^k rows. A label climbs from its row: the
    rows before a bound are blocks of growing size, nearest first; in the first block with an early enough
    minimum it goes down again, to the right where it can. All labels take each step together.
    """
    found = at.copy()
    late = np.flatnonzero((at >= 0) & (created[at] > cutoff))  # the others have their row already
    if not len(late):
        return found
    limit = cutoff[late]
    levels = _minima(created)
    block, level = _climb(levels, at[late], limit)
    for k in range(len(levels) - 1, 0, -1):
        right = 2 * block + 1
        down = level >= k
        fits = levels[k - 1][np.where(down, right, 0)] <= limit
        block = np.where(down, np.where(fits, right, right - 1), block)
    found[late] = np.where(level >= 0, block, -1)
    return found


def _minima(values: Ints) -> list[Ints]:
    """Minima of 1, 2, 4, … neighbours; each level but the last is padded to an even length."""
    levels = [values]
    while len(levels[-1]) > 1:
        last = levels[-1]
        if len(last) % 2:
            last = levels[-1] = np.append(last, _MAX)
        levels.append(np.minimum(last[0::2], last[1::2]))
    return levels


def _climb(levels: list[Ints], bound: Ints, limit: Ints) -> tuple[Ints, Any]:
    """(block, level) of the last block that lies before `bound` and has a minimum <= limit; level -1: none."""
    block = np.zeros(len(bound), np.int64)
    level = np.full(len(bound), -1, np.int64)
    left = bound.copy()  # blocks of the current level before the bound that are not looked at yet
    for k, minima in enumerate(levels):
        odd = (left & 1 == 1) & (level < 0)
        hit = odd & (minima[np.where(odd, left - 1, 0)] <= limit)
        block[hit] = left[hit] - 1
        level[hit] = k
        left >>= 1
        if not ((left > 0) & (level < 0)).any():
            break
    return block, level
