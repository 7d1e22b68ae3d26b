"""`find_rows` on the native kernel: keys to codes (_ext/asof_keys.pyx), codes and times to rows.

Rows in order of time are gone through once, beside the labels (sweep_native.py). Of all others each finds its labels
(_ext/asof.pyx). For that labels are cut into parts, an entity being in one. Each thread reads a piece of the rows,
turns keys into codes and deals the rows out by part; when enough are dealt out, threads take parts, which look at their
rows; and so on until there are none. Memory is the labels' and that of the rows dealt out, however many rows there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, cast

import numpy as np

from fastserve._native.asof import LabelTimes, Part, Rows
from materializer.pit import asof_py
from materializer.pit.blocks_native import Blocks
from materializer.pit.chunks import NONE, Ints, Labels, Piece, Seen, cores, in_threads, unseen
from materializer.pit.keys_native import Keys
from materializer.pit.sweep_native import sweep

GROUP_ROWS: Final = 1 << 21  # that are dealt out before parts take theirs: 48 MB
_PART: Final = 1 << 14  # labels: with their best rows half a megabyte
_MOST_PARTS: Final = 256


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
    """See the twin. A cutoff for each label other than its own time is left to the twin."""
    known = isinstance(cutoff, np.ndarray)
    if known and not np.array_equal(labels.times, cutoff):  # type: ignore[arg-type]
        return asof_py.find_rows(
            labels, pieces, ttl_us=ttl_us, cutoff=cutoff, group_rows=group_rows, seen=seen
        )
    limit = None if known else cast("int | None", cutoff)
    threads = threads or cores()
    if labels.coded is None:
        labels.coded = Keys(labels)
    keys: Keys = labels.coded
    times = np.ascontiguousarray(labels.times)
    readers = _readers(pieces, keys, threads)
    places = np.full(len(times), NONE, np.int64)
    swept = sweep(keys, times, readers, cutoff=limit, known=known, group_rows=group_rows, seen=seen)
    if swept is not None and swept.complete:
        swept.winners(places, ttl_us)
        return places
    bests = None if swept is None else swept.bests(len(times))
    del swept  # its memory, before as much is taken again
    order = LabelTimes(keys.codes, keys.n_codes, times, ttl_us=ttl_us, cutoff=limit, known=known)
    join = _Join(order, threads)
    join.each(Part.sort)
    if bests is not None:
        join.each(partial(Part.begin, bests=bests))
        del bests
    join.read(readers, group_rows, seen)
    join.each(lambda part: part.winners(places))
    return places


def _readers(pieces: Sequence[Piece], keys: Keys, threads: int) -> list[Blocks]:
    """Up to so many, each of pieces that follow one another."""
    count = max(min(threads, len(pieces)), 1)
    bounds = [i * len(pieces) // count for i in range(count + 1)]
    numbered = list(enumerate(pieces))
    return [Blocks(deque(numbered[a:b]), keys) for a, b in pairwise(bounds)]


class _Join:
    """Labels in parts, and blocks of rows dealt out to them."""

    def __init__(self, labels: LabelTimes, threads: int) -> None:
        self._threads = threads
        self._labels = labels
        self._parts = labels.parts(_count(labels.n, threads))

    def each(self, work: Callable[[Part], None]) -> None:
        """`work` on every part."""
        in_threads(work, self._parts, self._threads)

    def read(self, blocks: Sequence[Blocks], group_rows: int, seen: Seen) -> None:
        """Offer all rows to the labels, some group_rows at a time."""
        shared = deque(piece for each in blocks for piece in each.pieces)
        for each in blocks:
            each.pieces = shared
        readers = [_Reader(each, self._labels) for each in blocks]

        def deal(reader: _Reader) -> None:
            reader.deal(max(group_rows // len(readers), 1))

        def scan(part: Part) -> None:
            for reader in readers:
                for rows in reader.dealt:
                    part.scan(rows)

        while not all(reader.done for reader in readers):
            in_threads(deal, readers, len(readers))
            self.each(scan)
            seen(sum(reader.n_rows for reader in readers))


class _Reader:
    """Blocks of rows read by one thread at a time, and dealt out by part.

    Attributes:
        dealt: the blocks dealt out last.
        n_rows: how many rows they have.
        done: there are no more blocks.
    """

    def __init__(self, blocks: Blocks, labels: LabelTimes) -> None:
        self.dealt: list[Rows] = []
        self.n_rows, self.done = 0, False
        self._blocks, self._labels = blocks, labels
        self._room: list[Rows] = []  # used again and again

    def deal(self, n_rows: int) -> None:
        """Deal out so many rows, or a block's more, in place of those before."""
        self.dealt, self.n_rows = [], 0
        while self.n_rows < n_rows:
            block = self._blocks.take()
            if block is None:
                self.done = True
                return
            if len(self.dealt) == len(self._room):
                self._room.append(Rows(self._labels))
            rows = self._room[len(self.dealt)]
            rows.fill(block.codes, block.event_ts, block.created_ts, block.first)
            self.dealt.append(rows)
            self.n_rows += len(block.event_ts)


def _count(n_labels: int, threads: int) -> int:
    """How many parts: each thread some, none too large for a core's cache."""
    fit = min(-(-n_labels // _PART), _MOST_PARTS)
    return -(-max(fit, threads) // threads) * threads
