"""Counts, extremes, mean and spread of a column: exact, and mergeable in any order of parts.

    rows = nulls + nans + infinities + n        n: the finite values, which all the rest is about

Means and squared distances of parts are put together as Chan, Golub and LeVeque do it, so that a large mean does
not swallow a small spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of a column of numbers.

    Attributes:
        rows: all of them.
        nulls, nans, infinities: rows without a finite value, by what they have.
        low, high: the least and the largest finite value, an int where the column's values are; None without any.
        mean: of the finite values; 0 without any.
        m2: sum of their squared distances from the mean.
    """

    rows: int = 0
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    low: int | float | None = None
    high: int | float | None = None
    mean: float = 0.0
    m2: float = 0.0

    @property
    def n(self) -> int:
        """How many rows have a finite value."""
        return self.rows - self.nulls - self.nans - self.infinities

    @property
    def std(self) -> float | None:
        """The population's standard deviation; None without values."""
        return math.sqrt(self.m2 / self.n) if self.n else None

    @classmethod
    def of(cls, values: Values, nulls: int = 0) -> Moments:
        """Of numbers of any width, and so many nulls beside them."""
        rows = len(values) + nulls
        if not len(values):
            return cls(rows, nulls)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = values.astype(np.float64)  # once: sums of narrower numbers cost more than this copy
            total, nans, infinities = float(wide.sum()), 0, 0
            if not math.isfinite(total):  # else so are all values: no NaN, no infinity
                finite = np.isfinite(wide)
                nans = int(np.isnan(wide).sum())
                infinities = len(wide) - nans - int(finite.sum())
                values, wide = values[finite], wide[finite]
                total = float(wide.sum())
            return _finite(cls(rows, nulls, nans, infinities), values, wide, total)

    def merged(self, other: Moments) -> Moments:
        """Of both columns, one after the other."""
        n = self.n + other.n
        mean, m2 = self.mean, self.m2
        if n:
            apart = other.mean - self.mean
            mean += apart * (other.n / n)
            m2 += other.m2 + apart * apart * (self.n * (other.n / n))
        return Moments(
            self.rows + other.rows,
            self.nulls + other.nulls,
            self.nans + other.nans,
            self.infinities + other.infinities,
            _extreme(min, self.low, other.low),
            _extreme(max, self.high, other.high),
            mean,
            m2,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `Moments(**it)` is equal."""
        return {name: getattr(self, name) for name in self.__slots__}


def _finite(counts: Moments, values: Values, wide: npt.NDArray[np.float64], total: float) -> Moments:
    """Of finite values; `wide` has the same, and is used up."""
    n = len(values)
    if not n:
        return counts
    # The sum of finite values can overflow, that of their shares cannot.
    mean = total / n if math.isfinite(total) else float((wide / n).sum())
    wide -= mean
    # Squares and their sum, and no dot product: of long columns BLAS does that on all cores, which then spin.
    m2 = float(np.square(wide, out=wide).sum())
    return Moments(
        counts.rows,
        counts.nulls,
        counts.nans,
        counts.infinities,
        values.min().item(),
        values.max().item(),
        mean,
        m2,
    )


def _extreme(choose: Any, one: int | float | None, other: int | float | None) -> int | float | None:
    if one is None or other is None:
        return one if other is None else other
    return choose(one, other)  # type: ignore[no-any-return]
