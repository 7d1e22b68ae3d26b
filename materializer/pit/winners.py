"""The rows that labels have, read out of their pieces: of features nothing else is kept.

places    0:70  2:5  -1  0:3  0:70      piece 0: rows 3 70      ->  found[0] has 2 rows
becomes   0:1   2:0  -1  0:0  0:1       piece 2: row 5          ->  found[2] has 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materializer.pit.chunks import Ints, Seen, cores, in_threads, place, unseen
from materializer.pit.join import of_age

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

_MOST_MARKS: Final = 1 << 25  # rows of a piece, up to which each has a mark


class Values(Protocol):
    """Features of a piece; fastserve.offline.pieces.Piece has them."""

    @property
    def n_rows(self) -> int:
        """How many rows; 0 where that is not known."""

    def take(self, columns: Sequence[str], rows: Ints) -> pa.RecordBatch:
        """Features and layout of rows at ascending places."""


Full = Callable[[dict[int, pa.RecordBatch], Ints], None]
"""Takes what has been found and the labels that have it, ascending, off our hands."""


def read_winners(
    places: Ints,
    pieces: Sequence[Values],
    rv: RegisteredView,
    features: Sequence[str],
    *,
    threads: int | None = None,
    most_bytes: int | None = None,
    full: Full | None = None,
    seen: Seen = unseen,
) -> dict[int, pa.RecordBatch]:
    """Read the rows at places, each once, and let the places say where they are in what was found.

    Args:
        places: piece and row of each label, [n]; changed to piece and row in what was found of it.
        pieces: where rows are read from, several at the same time.
        rv, features: what is read.
        threads: at most so many; None: as many as there are cores.
        most_bytes: when so much has been found, `full` takes it.
        seen: told of rows of pieces that are done.

    Returns:
        Piece -> features of its rows, of those that `full` has not taken.
    """
    of_piece = _Labels(places, len(pieces))
    threads = threads or cores()
    found: dict[int, pa.RecordBatch] = {}

    def read(mine: Iterator[int]) -> None:
        for number in mine:
            labels = of_piece.labels(number)
            rows, at = _distinct(places[labels] & 0xFFFFFFFF)
            batch = of_age(pieces[number].take(features, rows), rv, features)
            places[labels] = at + place(number)
            found[number] = batch

    wanted = of_piece.pieces()
    # One piece per thread at a time where there is a limit: what is found is weighed in between.
    step = len(wanted) if most_bytes is None else threads
    for first in range(0, len(wanted), max(step, 1)):
        some = wanted[first : first + step]
        in_threads(read, some, threads)
        seen(sum(pieces[number].n_rows for number in some))
        if most_bytes is not None and full and sum(b.nbytes for b in found.values()) >= most_bytes:
            full(found, of_piece.of_several(found))
            found = {}
    return found


class _Labels:
    """Labels by piece, ascending."""

    def __init__(self, places: Ints, n_pieces: int) -> None:
        number = (places >> 32).astype(np.int16 if n_pieces < 2**15 else np.int32)
        self._order = np.argsort(number, kind="stable").astype(np.int32)  # of 16 bits: by counting
        counts = np.bincount(number + 1, minlength=n_pieces + 1)
        self._ends = np.cumsum(counts)

    def pieces(self) -> list[int]:
        """Those that some label has a row of, ascending."""
        return np.flatnonzero(np.diff(self._ends)).tolist()

    def labels(self, piece: int) -> npt.NDArray[np.int32]:
        return self._order[self._ends[piece] : self._ends[piece + 1]]

    def of_several(self, pieces: Sequence[int] | dict[int, pa.RecordBatch]) -> Ints:
        return np.sort(np.concatenate([self.labels(piece) for piece in pieces])).astype(np.int64)


def _distinct(rows: Ints) -> tuple[Ints, Ints]:
    """Each row once, ascending; and where in that each one is."""
    top = int(rows.max())
    if top >= _MOST_MARKS or top > 64 * len(rows):
        distinct, at = np.unique(rows, return_inverse=True)
        return distinct, at.astype(np.int64)
    marks = np.zeros(top + 1, np.bool_)
    marks[rows] = True
    return np.flatnonzero(marks), (np.cumsum(marks, dtype=np.int32)[rows] - 1).astype(np.int64)
