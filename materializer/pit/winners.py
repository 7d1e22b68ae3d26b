"""The rows that labels have, read out of their pieces: of features nothing else is kept.

places    0:70  2:5  -1  0:3  0:70      piece 0: rows 3 70      ->  found[0] has 2 rows
becomes   0:1   2:0  -1  0:0  0:1       piece 2: row 5          ->  found[2] has 1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
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
        most_bytes: when so much has been found, `full` takes it; others read on meanwhile.
        seen: told of rows of pieces that are done; by one thread at a time, whichever it is.

    Returns:
        Piece -> features of its rows, of those that `full` has not taken.
    """
    of_piece = _Labels(places, len(pieces))
    found = _Found(of_piece, most_bytes, full, seen)

    def read(number: int) -> None:
        labels = of_piece.labels(number)
        rows, at = _distinct(places[labels] & 0xFFFFFFFF)
        batch = of_age(pieces[number].take(features, rows), rv, features)
        places[labels] = at + place(number)
        found.add(number, batch, pieces[number].n_rows)

    in_threads(read, of_piece.pieces(), threads or cores())
    return found.batches


class _Found:
    """Features that were found, taken off our hands whenever there are many: by the thread whose rows those were,
    while others read on.

    Attributes:
        batches: piece -> features of its rows, of those that have not been taken.
    """

    def __init__(self, of_piece: _Labels, most_bytes: int | None, full: Full | None, seen: Seen) -> None:
        self.batches: dict[int, pa.RecordBatch] = {}
        self._of_piece, self._most_bytes, self._full, self._seen = of_piece, most_bytes, full, seen
        self._n_bytes = 0
        self._adding, self._taking = Lock(), Lock()

    def add(self, number: int, batch: pa.RecordBatch, n_rows: int) -> None:
        """Keep what was found of a piece of so many rows. Waits while as much again is being taken."""
        with self._adding:
            self._seen(n_rows)
            self.batches[number] = batch
            self._n_bytes += batch.nbytes
            if self._most_bytes is None or self._full is None or self._n_bytes < self._most_bytes:
                return
            self._taking.acquire()
            taken, self.batches, self._n_bytes = self.batches, {}, 0
        try:
            self._full(taken, self._of_piece.of_several(taken))
        finally:
            self._taking.release()


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
