"""Keys that were written already, by round: the readable twin of _ext/key_set.pyx.

round 1   mark [a b], mark [a]     nothing is earlier: within a round keys may come again
round 2   mark [a c]               a is earlier, c is not
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastserve.batch.batch_py import ReadBatch


class KeySet:
    """See the module's docstring.

    Args:
        limit: so many keys are remembered; later ones are not, and never count as earlier.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._round = 1
        self._rounds: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._rounds)

    def next_round(self) -> None:
        """What was marked until now is earlier from here on."""
        self._round += 1

    def mark(self, batch: ReadBatch) -> npt.NDArray[np.bool_]:
        """Remember the keys of a batch; bool[n]: which of them were marked in an earlier round."""
        earlier = np.zeros(len(batch), np.bool_)
        for i, key in enumerate(batch.keys()):
            seen = self._rounds.get(key)
            if seen is not None:
                earlier[i] = seen < self._round
            elif len(self._rounds) < self._limit:
                self._rounds[key] = self._round
        return earlier
