"""The keys of one read and the rows found for them: the readable twin of _ext/batch.pyx.

    keys     [k0, k1, …]       encoded by the views' KeyEncoders, one view's after the other's
    state    UNKNOWN until the cache or the store has answered for the key, then ABSENT or FOUND

A read makes one ReadBatch. The cache fills in what it has, the store the rest; the decoders read it. What is still
UNKNOWN then is answered as UNAVAILABLE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fastserve.errors import CodecError

UNKNOWN: Final = 0
ABSENT: Final = 1
FOUND: Final = 2

CACHED: Final = 1  # from the cache, which takes only rows that were decoded once
CHANGED: Final = 2  # a writer changed the key while its row was on the way: not to be cached
STALE: Final = 4  # older than the view allows; answered because the store is down


class ReadBatch:
    """See the module's docstring.

    Args:
        keys: to begin with; KeyEncoder.encode_into adds more.
    """

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys: list[bytes] = []
        self._rows: list[bytes | None] = []
        self._states: list[int] = []
        self._flags: list[int] = []
        self._fetched: list[int] = []
        self.missing = 0
        self.abandoned = False
        for key in keys:
            self.add(key)

    @classmethod
    def from_packed(cls, packed: bytes) -> ReadBatch:
        """The batch of a change message: u16 little-endian length, key, … (fastserve/online/changes.py).

        Raises:
            CodecError: for a message that is cut short.
        """
        keys, at = [], 0
        while at < len(packed):
            start = at + 2
            end = start + int.from_bytes(packed[at:start], "little")
            if start > len(packed) or end > len(packed):
                raise CodecError("a change message is cut short", where=f"offset {at} of {len(packed)}")
            keys.append(packed[start:end])
            at = end
        return cls(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def size(self) -> int:
        """Bytes of all keys, and of the rows that are known."""
        return sum(map(len, self._keys)) + sum(len(row) for row in self._rows if row is not None)

    def abandon(self) -> None:
        """Nobody waits for it any more: stores drop its replies and call nobody."""
        self.abandoned = True

    def keys(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Copies of the keys of a range."""
        return self._keys[start:stop]

    def missing_keys(self) -> list[bytes]:
        """Copies of the keys whose rows are UNKNOWN, in order; `fill` takes their rows."""
        return [key for key, state in zip(self._keys, self._states, strict=True) if state == UNKNOWN]

    def rows(self, start: int = 0, stop: int | None = None) -> list[bytes | None]:
        """Copies of the rows of a range; None where there is none, or nobody knows yet."""
        return self._rows[start:stop]

    def states(self, start: int = 0, stop: int | None = None) -> list[int]:
        """UNKNOWN, ABSENT or FOUND for each key of a range."""
        return self._states[start:stop]

    def flags(self, start: int = 0, stop: int | None = None) -> list[int]:
        """CACHED, CHANGED and STALE, or-ed, for each key of a range."""
        return self._flags[start:stop]

    def fetched_us(self, start: int = 0, stop: int | None = None) -> list[int]:
        """For each key of a range when the store was asked for it, at the latest; 0 if it was not."""
        return self._fetched[start:stop]

    def oldest_us(self, start: int = 0, stop: int | None = None) -> int | None:
        """The smallest `fetched_us` of the keys of a range that are known; None if there is none."""
        known = [f for f, s in zip(self._fetched[start:stop], self._states[start:stop], strict=True) if s]
        return min(known, default=None)

    def fill(self, rows: Sequence[bytes | None], fetched_us: int) -> None:
        """Give the rows of `missing_keys`, None where there is none.

        Args:
            fetched_us: when the store was asked, microseconds of the clock the caller ages rows by.

        Raises:
            CodecError: as many rows as missing keys are wanted.
        """
        if len(rows) != self.missing:
            raise CodecError(f"{len(rows)} rows for {self.missing} missing keys")
        given = iter(rows)
        for i, state in enumerate(self._states):
            if state == UNKNOWN:
                self.set(i, next(given), 0, fetched_us)

    def take(self, other: ReadBatch, start: int, stop: int) -> None:
        """Add the keys of a range of another batch, and their rows where they lie."""
        if not 0 <= start <= stop <= len(other):
            raise IndexError(f"{start} to {stop} of {len(other)} keys")
        for i in range(start, stop):
            self.add(other._keys[i])
            if other._states[i] != UNKNOWN:
                self.set(len(self) - 1, other._rows[i], other._flags[i], other._fetched[i])

    def forget(self, rows: Iterable[int]) -> None:
        """Some rows are UNKNOWN again."""
        for i in rows:
            if not 0 <= i < len(self):
                raise IndexError(f"{i} of {len(self)} keys")
            if self._states[i] != UNKNOWN:
                self._rows[i], self._states[i], self._flags[i], self._fetched[i] = None, UNKNOWN, 0, 0
                self.missing += 1

    def own(self) -> None:
        """Copy rows that lie in memory which is about to change; Python's never do."""

    def add(self, key: bytes) -> None:
        """One more key; for the other twins."""
        self._keys.append(key)
        self._rows.append(None)
        self._states.append(UNKNOWN)
        self._flags.append(0)
        self._fetched.append(0)
        self.missing += 1

    def set(self, i: int, row: bytes | None, flags: int, fetched_us: int) -> None:
        """Row i is known now; for the other twins."""
        if self._states[i] == UNKNOWN:
            self.missing -= 1
        self._rows[i] = row
        self._states[i] = ABSENT if row is None else FOUND
        self._flags[i] = flags
        self._fetched[i] = fetched_us
