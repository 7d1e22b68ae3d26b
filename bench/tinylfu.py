"""W-TinyLFU, for bench.policies: Einziger et al., "TinyLFU: a highly efficient cache admission policy", TOS 2017.

    window       1 %, LRU: where every key goes first
    probation    20 % of the rest, and what is pushed out of protected: LRU
    protected    80 % of the rest: what was used in probation: LRU
    sketch       how often keys were asked for lately; halved when it has counted ten times the size

What leaves the window stays only if it was asked for more often than what probation would let go for it.
"""

from __future__ import annotations

from collections import OrderedDict


class Sketch:
    """Counts up to 15 in four rows, of which the least is the estimate."""

    def __init__(self, size: int) -> None:
        self._mask = (1 << max(size * 4, 64).bit_length()) - 1
        self._rows = [bytearray(self._mask + 1) for _ in range(4)]
        self._left = self._period = 10 * size

    def count(self, key: int) -> None:
        """It was asked for."""
        for row, at in zip(self._rows, self._places(key), strict=True):
            if row[at] < 15:
                row[at] += 1
        self._left -= 1
        if not self._left:
            self._left = self._period
            halved = bytes(n // 2 for n in range(256))
            self._rows = [row.translate(halved) for row in self._rows]

    def often(self, key: int) -> int:
        """About how often."""
        return min(row[at] for row, at in zip(self._rows, self._places(key), strict=True))

    def _places(self, key: int) -> tuple[int, ...]:
        mixed = (key + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 31) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mask = self._mask
        return mixed & mask, mixed >> 13 & mask, mixed >> 26 & mask, mixed >> 39 & mask


class TinyLfu:
    """See the module's docstring."""

    def __init__(self, size: int) -> None:
        self._sketch = Sketch(size)
        self._window_size = max(1, size // 100)
        self._main_size = size - self._window_size
        self._protected_size = self._main_size * 4 // 5
        self._window: OrderedDict[int, None] = OrderedDict()
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._protected: OrderedDict[int, None] = OrderedDict()

    def look_up(self, key: int) -> bool:
        """Whether it is there; it is taken in if not."""
        self._sketch.count(key)
        for part in (self._protected, self._window):
            if key in part:
                part.move_to_end(key)
                return True
        if key in self._probation:
            self._promote(key)
            return True
        self._window[key] = None
        if len(self._window) > self._window_size:
            self._admit(self._window.popitem(last=False)[0])
        return False

    def _promote(self, key: int) -> None:
        del self._probation[key]
        self._protected[key] = None
        if len(self._protected) > self._protected_size:
            self._probation[self._protected.popitem(last=False)[0]] = None

    def _admit(self, key: int) -> None:
        if len(self._probation) + len(self._protected) >= self._main_size:
            victim = next(iter(self._probation or self._protected))
            if self._sketch.often(key) <= self._sketch.often(victim):
                return
            del (self._probation or self._protected)[victim]
        self._probation[key] = None
