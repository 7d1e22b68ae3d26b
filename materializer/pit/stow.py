"""Values that were found, out of memory until the labels' order wants them.

Each time much has been found, it becomes the values of the labels that have it, range by range of the labels:

    found, labels 0 3 7 9   ->  range 0 … 4: labels 0 3   range 5 … 9: labels 7 9      one message each
    found, labels 1 8       ->  range 0 … 4: label 1      range 5 … 9: label 8

so that a range is put together from a few messages, whatever pieces its rows came from. All lie in one unlinked
temporary file (TMPDIR), which nothing can leave behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from fastserve.errors import OfflineStoreError
from materializer.pit.chunks import NONE, Ints, place
from materializer.pit.join import answer

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

RANGE_ROWS: Final = 1 << 17
"""Labels that are answered together."""

_LABEL: Final = ""  # the name of no feature


class Spool:
    """Record batches in a temporary file, which goes when this does."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, batch: pa.RecordBatch) -> tuple[int, int]:
        """Where the batch is now: offset and bytes.

        Raises:
            OfflineStoreError: the disk is full.
        """
        data = batch.serialize()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="fastserve-training-")
            os.pwrite(self._file.fileno(), data, self._size)
        except OSError as error:
            raise OfflineStoreError(
                f"what a training set needs beyond its memory cannot be written: {error.strerror}",
                where=tempfile.gettempdir(),
                hint="let TMPDIR name a directory with room, or give more memory",
            ) from None
        at = self._size, data.size
        self._size += data.size
        return at

    def read(self, at: tuple[int, int], schema: pa.Schema) -> pa.RecordBatch:
        """The batch that was written there."""
        assert self._file is not None
        data = os.pread(self._file.fileno(), at[1], at[0])
        return pa.ipc.read_record_batch(pa.py_buffer(data), schema)

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._size

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


class Answers:
    """The values of one view for n labels, in memory or stowed away.

    Args:
        rv, features: what they are of.
        n: labels.
        spool: where they go once there are too many.
    """

    def __init__(self, rv: RegisteredView, features: Sequence[str], n: int, spool: Spool) -> None:
        self.rv, self.features, self.n = rv, list(features), n
        self._spool = spool
        self._stowed: list[list[tuple[int, int]]] = [[] for _ in range(n // RANGE_ROWS + 1)]
        self._schema: pa.Schema | None = None
        self._held: list[tuple[int, Ints, list[pa.RecordBatch | None]]] = []

    def hold(self, first: int, places: Ints, found: dict[int, pa.RecordBatch], n_pieces: int) -> None:
        """Keep what was found for labels first … in memory; of other labels what was stowed counts."""
        self._held.append((first, places, [found.get(number) for number in range(n_pieces)]))

    def stow(self, first: int, places: Ints, found: dict[int, pa.RecordBatch], labels: Ints) -> None:
        """Put away what was found for some of the labels first …

        Args:
            places: of all of them.
            found: what the places of `labels` are in.
            labels: ascending, counted from `first`.
        """
        numbers = {number: i for i, number in enumerate(found)}
        renumbered = np.zeros(max(found) + 1, np.int64)
        renumbered[list(numbers)] = list(numbers.values())
        start = 0
        while start < len(labels):
            number = (first + int(labels[start])) // RANGE_ROWS
            stop = int(np.searchsorted(labels, (number + 1) * RANGE_ROWS - first))
            mine = labels[start:stop]
            at = places[mine]
            at = renumbered[at >> 32] << 32 | at & 0xFFFFFFFF
            values = answer(at, list(found.values()), self.rv, self.features)
            columns = {_LABEL: pa.array((mine + (first - number * RANGE_ROWS)).astype(np.int32)), **values}
            (batch,) = pa.table(columns).combine_chunks().to_batches()
            self._schema = batch.schema
            self._stowed[number].append(self._spool.write(batch))
            start = stop

    def of_range(self, start: int, stop: int, threads: int | None = None) -> dict[str, pa.ChunkedArray]:
        """The values of labels start … stop - 1, which lie in one range."""
        places = np.full(stop - start, NONE, np.int64)
        found: list[pa.RecordBatch | None] = []
        for first, held, batches in self._held:
            low, high = max(start, first), min(stop, first + len(held))
            if low < high:
                mine = held[low - first : high - first]
                places[low - start : high - start] = np.where(mine < 0, NONE, mine + place(len(found)))
                found += batches
        base = start // RANGE_ROWS * RANGE_ROWS
        for at in self._stowed[start // RANGE_ROWS]:
            assert self._schema is not None
            batch = self._spool.read(at, self._schema)
            labels = batch[_LABEL].to_numpy() + (base - start)
            mine = (labels >= 0) & (labels < stop - start)
            places[labels[mine]] = place(len(found)) + np.flatnonzero(mine)
            found.append(batch)
        return answer(places, found, self.rv, self.features, threads=threads)
