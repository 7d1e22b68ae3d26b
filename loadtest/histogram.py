"""Latencies to three digits in little memory, whatever their range: the buckets of HdrHistogram, filled by numpy.

Below 2048 every microsecond is a bucket of its own; above it every power of two is cut into 1024 equal ones. So a value
is known to 1 part in 1024, and one that lasted an hour needs no more room than one that lasted a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

_HALF_BITS: Final = 10
_HALF: Final = 1 << _HALF_BITS
MAX_US: Final = (1 << 40) - 1  # twelve days


def _index(us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[n] bucket of each value."""
    shift = np.frexp(us.astype(np.float64))[1].astype(np.int64) - (_HALF_BITS + 1)
    shift = np.maximum(shift, 0)
    return shift * _HALF + (us >> shift)


def _highest(index: int) -> int:
    """The largest value that belongs into a bucket."""
    shift = max(index // _HALF - 1, 0)
    return ((index - shift * _HALF + 1) << shift) - 1


class Histogram:
    """Counts of durations in whole microseconds, from 0 to MAX_US; longer ones count as MAX_US."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)
        self.max_us = 0

    @property
    def n(self) -> int:
        """How many values it holds."""
        return int(self._counts.sum())

    def add(self, us: npt.ArrayLike) -> None:
        """Count n durations in microseconds; negative ones as 0."""
        values = np.clip(np.atleast_1d(np.asarray(us, np.int64)), 0, MAX_US)
        if not len(values):
            return
        found = np.bincount(_index(values))
        self._grow(len(found))
        self._counts[: len(found)] += found
        self.max_us = max(self.max_us, int(values.max()))

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self._grow(len(other._counts))
        self._counts[: len(other._counts)] += other._counts
        self.max_us = max(self.max_us, other.max_us)

    def percentile_ms(self, q: float) -> float:
        """Milliseconds that q % of the values do not exceed, rounded up to its bucket's end; 0.0 for none."""
        n = self.n
        if not n:
            return 0.0
        rank = max(1, int(np.ceil(q / 100 * n - 1e-9)))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_highest(bucket), self.max_us) / 1_000

    def buckets(self) -> Iterator[tuple[int, int]]:
        """(largest microseconds, count) of the buckets that are not empty, in order."""
        for index in np.flatnonzero(self._counts).tolist():
            yield min(_highest(index), self.max_us), int(self._counts[index])

    def _grow(self, n: int) -> None:
        if n > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(n - len(self._counts), np.int64)])
