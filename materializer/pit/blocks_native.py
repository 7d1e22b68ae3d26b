"""Rows of pieces a block at a time, their keys as codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from materializer.pit.chunks import Ints, Piece, RowChunk, place
from materializer.pit.keys_native import Codes, Keys

_BLOCK: Final = 1 << 18  # rows

Numbered = tuple[int, Piece]


class Block(NamedTuple):
    """Rows that follow one another in a piece. Their codes are theirs until the next block is taken.

    Attributes:
        first: place of the first.
        codes: int32[m].
        event_ts, created_ts: int64[m].
    """

    first: int
    codes: Codes
    event_ts: Ints
    created_ts: Ints

    def after(self, n: int) -> Block:
        """Without the first n rows."""
        return Block(self.first + n, self.codes[n:], self.event_ts[n:], self.created_ts[n:])


class Blocks:
    """The blocks of some pieces, for one thread at a time.

    Attributes:
        pieces: those that are not begun. Several may have the same: each takes the next.
    """

    def __init__(self, pieces: deque[Numbered], keys: Keys) -> None:
        self.pieces = pieces
        self._keys = keys
        self._begun: Iterator[tuple[int, RowChunk]] = iter(())
        self._back: Block | None = None
        self._room = np.empty(
            0, np.int32
        )  # for codes, again and again: fresh memory costs more than what is done to it

    def take(self) -> Block | None:
        """The next one, or None: there are no more."""
        if self._back is not None:
            block, self._back = self._back, None
            return block
        while (found := next(self._begun, None)) is None:
            try:
                self._begun = _rows(*self.pieces.popleft())
            except IndexError:
                return None
        first, rows = found
        if len(self._room) < len(rows.event_ts):
            self._room = np.empty(len(rows.event_ts), np.int32)
        return Block(first, self._keys.find(rows, self._room), rows.event_ts, rows.created_ts)

    def put_back(self, block: Block) -> None:
        """Let the block be the next one."""
        self._back = block


def _rows(number: int, piece: Piece) -> Iterator[tuple[int, RowChunk]]:
    """The chunks of a piece, long ones in parts; each with the place of its first row."""
    before = 0
    for chunk in piece:
        for start in range(0, len(chunk.event_ts), _BLOCK):
            rows = slice(start, start + _BLOCK)
            event, created = (
                np.ascontiguousarray(times[rows]) for times in (chunk.event_ts, chunk.created_ts)
            )
            yield (
                place(number, before + start),
                RowChunk([column[rows] for column in chunk.keys], event, created),
            )
        before += len(chunk.event_ts)
