"""How the work is cut: which pieces a task deals out, into how many shards, and where in time a hot shard is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from fastserve.offline.pieces import Piece
from materializer.budget import A_LABEL, Need, resident
from materializer.shards.blocks import Block
from materializer.shards.deal import BUFFER_BYTES, MOST_SHARDS

DEAL_ROWS: Final = 250_000  # of a task, at least: fewer are not worth one
MOST_DEAL_ROWS: Final = 4_000_000
SHARD_ROWS: Final = 100_000  # likewise
MOST_SHARD_ROWS: Final = 8_000_000
HOT: Final = 4  # times the rows of a shard on average are so many that it is cut
_SHARD_BYTES: Final = 1 << 30
_MOST_LABELS: Final = 1 << 21
_A_ROW: Final = 40  # bytes without its keys and features: two times, layout, and what finding takes
_A_LABEL: Final = A_LABEL + 64  # and what reading it from its file takes
_SAMPLES: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one task may hold.

    Attributes:
        rows: of a shard or a slice of it; more where more have the same time.
        labels: looked at in one go.
        buffer_bytes: of rows being dealt out.
    """

    rows: int
    labels: int
    buffer_bytes: int

    @classmethod
    def of(cls, memory: int | None, need: Need) -> Limits:
        """The limits of tasks that may hold as much as this process.

        Args:
            memory: bytes, what a process holds already included; None for a gigabyte of rows. A `Budget` was made of
                it: it is enough for one.
        """
        a_row = _A_ROW + need.key_bytes + need.row_bytes
        if memory is None:
            return cls(min(MOST_SHARD_ROWS, int(_SHARD_BYTES / a_row)), _MOST_LABELS, BUFFER_BYTES)
        room = max(memory - resident(), 0)
        rows = max(int(room / 3 / a_row), 1)
        labels = max(int(room / 4 / (_A_LABEL + 3 * need.key_bytes)), 1)
        return cls(min(MOST_SHARD_ROWS, rows), min(_MOST_LABELS, labels), min(BUFFER_BYTES, room // 8))


def groups(pieces: Sequence[Piece], slots: int) -> list[list[Piece]]:
    """Neighbouring pieces that a task deals out together: four tasks or more for each slot, if they are worth it.

    Those that only this process can read stand apart. Of a piece whose rows nobody knows it is taken that it has many.
    """
    known = sum(piece.n_rows for piece in pieces)
    most = min(max(known // (4 * slots), DEAL_ROWS), MOST_DEAL_ROWS)
    made: list[list[Piece]] = []
    rows = 0
    for piece in pieces:
        n_rows = piece.n_rows or most
        if not made or rows + n_rows > most or piece.portable != made[-1][0].portable:
            made.append([])
            rows = 0
        made[-1].append(piece)
        rows += n_rows
    return made


def shard_count(views: Sequence[Sequence[Piece]], slots: int, limits: Limits) -> int:
    """How many shards: two or more for each slot, if they are worth it, and none above its limit, if keys are even.

    Args:
        views: the pieces of each view.
    """
    most = 1
    for pieces in views:
        rows = sum(piece.n_rows for piece in pieces)
        worth = 2 * slots if not all(piece.n_rows for piece in pieces) else -(-rows // SHARD_ROWS)
        most = max(most, min(worth, 2 * slots), -(-rows // limits.rows))
    return min(most, MOST_SHARDS)


Slice = tuple[int | None, int | None]
"""Event times ``[start, end)`` of a slice, microseconds UTC; None for no bound."""


def slices(blocks: Sequence[Block], mean: float, limits: Limits) -> Iterator[Slice]:
    """The slices that a shard is cut into by event time: one, unless it is hot or beyond its limit.

    Of rows that have the same time none is cut off: they decide among themselves.

    Args:
        blocks: of the shard's rows.
        mean: rows of a shard on average.
    """
    rows = sum(block.n_rows for block in blocks)
    wanted = limits.rows
    if rows > HOT * max(mean, SHARD_ROWS):
        wanted = min(wanted, int(max(mean, SHARD_ROWS)))
    bounds: list[int | None] = [None]
    if rows > wanted:
        bounds += sorted(set(_quantiles(blocks, -(-rows // wanted))))
    yield from pairwise([*bounds, None])


def _quantiles(blocks: Sequence[Block], count: int) -> list[int]:
    """count - 1 times that cut rows into about equal parts, taken that within a block times are even."""
    share = np.arange(_SAMPLES) / (_SAMPLES - 1)
    first, last, rows = (
        np.array([getattr(block, name) for block in blocks], np.float64)
        for name in ("first_us", "last_us", "n_rows")
    )
    times = (first[:, None] + (last - first)[:, None] * share).ravel()
    order = np.argsort(times, kind="stable")
    upto = np.cumsum(np.repeat(rows / _SAMPLES, _SAMPLES)[order])
    at = np.searchsorted(upto, upto[-1] * np.arange(1, count) / count)
    return [int(time) for time in times[order][np.minimum(at, len(times) - 1)]]
