"""Which entities are asked for: a few of them often, most of them seldom."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

EXPONENT: Final = 0.99


class ZipfKeys:
    """Entity ids drawn with a Zipf distribution, with repetition: the k-th most popular one with weight k**-s.

    Popular entities do not lie side by side: a permutation, the same for every `n`, says which entity has which rank.

    Args:
        n: ids are 0 to n - 1.
        s: the exponent; 0 draws evenly.
        seed: of the draws, not of who is popular.
    """

    def __init__(self, n: int, s: float = EXPONENT, seed: int | None = None) -> None:
        self.n = n
        self.s = s
        self._random = np.random.default_rng(seed)

    @cached_property
    def _cumulated(self) -> npt.NDArray[np.float64]:
        """float64[n]: the share of draws that ranks 0 to k take."""
        total = np.cumsum(np.arange(1, self.n + 1, dtype=np.float64) ** -self.s)
        return np.asarray(total / total[-1], np.float64)

    @cached_property
    def by_rank(self) -> npt.NDArray[np.int64]:
        """int64[n]: the entity of each rank, the most popular one first."""
        return np.random.default_rng(self.n).permutation(self.n).astype(np.int64)

    def draw(self, count: int) -> npt.NDArray[np.int64]:
        """int64[count] entity ids."""
        ranks = np.searchsorted(self._cumulated, self._random.random(count), side="right")
        return np.asarray(self.by_rank[np.minimum(ranks, self.n - 1)], np.int64)
