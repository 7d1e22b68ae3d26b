"""The short way of `find_rows`, where rows come in order of their event times (_ext/asof_sweep.pyx).

Each thread goes through the rows of some pieces that follow one another, and the labels of their time:

    pieces    0 1 2 | 3 4 5        in each, and from one to the next, times ascend
    labels    before 3's first row | from then on

Rows that do not go on in order are left where they are read from, with all that come after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from fastserve._native.asof_sweep import Sweep
from materializer.pit.blocks_native import Block, Blocks
from materializer.pit.chunks import Ints, Seen, in_threads
from materializer.pit.keys_native import Keys

Bests = npt.NDArray[np.uint64]

_FEW: Final = 1024  # codes that are never too many


@dataclass(frozen=True, slots=True)
class Swept:
    """What labels have of the rows that come in order.

    Attributes:
        sweeps: of stretches of time, one after the other; a label is in one or none.
        complete: these are all rows; if not, the others can still be read.
    """

    sweeps: Sequence[Sweep]
    complete: bool

    def winners(self, out: Ints, ttl_us: int | None) -> None:
        """Write the places of the rows of the labels that are in a sweep."""
        in_threads(partial(Sweep.winners, out=out, ttl_us=ttl_us), self.sweeps, len(self.sweeps))

    def bests(self, n: int) -> Bests:
        """The best row of each of n labels, for Part.begin."""
        made = np.zeros((n, 3), np.uint64)
        in_threads(partial(Sweep.hand_over, bests=made), self.sweeps, len(self.sweeps))
        return made


@dataclass(slots=True)
class _Run:
    """The rows of one thread, and what has been made of them.

    Attributes:
        make: the sweep, which sorts its labels.
        n_rows: taken last.
        done: all rows were taken, or one was not.
        complete: all were taken.
    """

    blocks: Blocks
    make: Callable[[], Sweep]
    sweep: Sweep | None = None
    n_rows: int = 0
    done: bool = False
    complete: bool = False

    def take(self, n_rows: int) -> None:
        """So many rows, or a block's more."""
        if self.sweep is None:
            self.sweep = self.make()
        self.n_rows = 0
        while self.n_rows < n_rows and not self.done:
            block = self.blocks.take()
            if block is None:
                self.done = self.complete = True
                break
            taken = self.sweep.rows(block.codes, block.event_ts, block.created_ts, block.first)
            self.n_rows += taken
            if taken < len(block.codes):
                self.blocks.put_back(block.after(taken))
                self.done = True
        if self.done:
            self.sweep.finish()


def sweep(
    keys: Keys,
    times: Ints,
    readers: Sequence[Blocks],
    *,
    cutoff: int | None,
    known: bool,
    group_rows: int,
    seen: Seen,
) -> Swept | None:
    """What labels have of the rows that come in order; None: they do not even begin so.

    Args:
        keys, times: of n labels.
        readers: of pieces that follow one another, each in a thread of its own.
        cutoff: only rows created by then; None: all.
        known: only rows created by the label's time.
        group_rows, seen: see `find_rows`.
    """
    firsts = _firsts(readers)
    readers = [reader for reader, first in zip(readers, firsts, strict=True) if first is not None]
    starts = _starts([first for first in firsts if first is not None], known)
    # Each thread has a row for each code; these should take less than the labels do.
    if starts is None or len(starts) * keys.n_codes > len(times) // 2 + _FEW:
        return None
    made = partial(Sweep, keys.codes, keys.n_codes, times, cutoff=cutoff, known=known)
    stops = [*starts[1:], None]
    runs = [_Run(*of) for of in zip(readers, map(partial, repeat(made), starts, stops), strict=True)]
    _take_all(runs, group_rows, seen)
    sweeps = [run.sweep for run in runs if run.sweep is not None]
    for i, one in enumerate(sweeps):
        one.inherit(sweeps[:i])
    return Swept(sweeps, all(run.complete for run in runs))


def _firsts(readers: Sequence[Blocks]) -> list[Block | None]:
    """The first block of each; it will be read again."""

    def look(reader: Blocks) -> Block | None:
        if (block := reader.take()) is not None:
            reader.put_back(block)
        return block

    return in_threads(look, readers, len(readers))


def _starts(firsts: Sequence[Block], known: bool) -> list[int] | None:
    """The first event time of each; None if these are in no order."""
    for block in firsts:
        event = block.event_ts
        if (event[1:] < event[:-1]).any() or (known and (block.created_ts > event).any()):
            return None
    starts = [int(block.event_ts[0]) for block in firsts]
    in_order = all(block.event_ts[-1] < start for block, start in zip(firsts[:-1], starts[1:], strict=True))
    return starts if in_order and starts else None


def _take_all(runs: Sequence[_Run], group_rows: int, seen: Seen) -> None:
    """Each run to its end."""

    def take(run: _Run) -> None:
        run.take(max(group_rows // len(runs), 1))

    while left := [run for run in runs if not run.done]:
        in_threads(take, left, len(runs))
        seen(sum(run.n_rows for run in left))
