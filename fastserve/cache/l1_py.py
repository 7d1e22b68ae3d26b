"""Rows read lately, by key, within a budget of bytes: the readable twin.

An entry is a row or the knowledge that there is none, and when the store was asked for it. How old an entry may be is
the caller's business: `get_many` is told, so one cache serves views of different staleness.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fastserve.batch.batch_py import CACHED, CHANGED, STALE, UNKNOWN, ReadBatch

ENTRY_BYTES: Final = 64


class RowCache:
    """See the module's docstring.

    Args:
        budget_bytes: rows, keys and what it takes to find them.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes_used = 0
        self._entries: OrderedDict[bytes, tuple[bytes | None, int]] = OrderedDict()
        self._counts = dict.fromkeys(
            ("lookups", "hits", "negative_hits", "too_old", "inserts", "evictions", "drops"), 0
        )

    def __len__(self) -> int:
        return len(self._entries)

    def get_many(
        self, batch: ReadBatch, start: int, stop: int, oldest_us: int, *, stale: bool = False
    ) -> int:
        """Fill in the rows of a range that are UNKNOWN; how many of the range still are.

        Args:
            oldest_us: entries asked for before then do not count.
            stale: flag what is found STALE.
        """
        missing = 0
        for i, (key, state) in enumerate(
            zip(batch.keys(start, stop), batch.states(start, stop), strict=True), start
        ):
            if state != UNKNOWN:
                continue
            self._counts["lookups"] += 1
            entry = self._entries.get(key)
            if entry is None or entry[1] < oldest_us:
                self._counts["too_old"] += entry is not None
                missing += 1
                continue
            self._counts["hits"] += 1
            self._counts["negative_hits"] += entry[0] is None
            self._entries.move_to_end(key)
            batch.set(i, entry[0], CACHED | (STALE if stale else 0), entry[1])
        return missing

    def put_many(self, batch: ReadBatch, start: int, stop: int) -> int:
        """Take in the rows of a range that are known and neither CACHED, CHANGED nor STALE; how many."""
        taken = 0
        parts = (batch.keys, batch.rows, batch.states, batch.flags, batch.fetched_us)
        for key, row, state, flags, fetched in zip(*(part(start, stop) for part in parts), strict=True):
            if state == UNKNOWN or flags & (CACHED | CHANGED | STALE):
                continue
            held = self._entries.get(key)
            if held is not None and held[1] > fetched:
                continue
            self._remove(key)
            self._entries[key] = row, fetched
            self.bytes_used += self._size(key, row)
            taken += 1
        while self.bytes_used > self.budget_bytes:
            self._remove(next(iter(self._entries)))
            self._counts["evictions"] += 1
        self._counts["inserts"] += taken
        return taken

    def drop(self, batch: ReadBatch) -> int:
        """Forget these keys; how many there were."""
        dropped = sum(self._remove(key) for key in batch.keys())
        self._counts["drops"] += dropped
        return dropped

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes_used = 0

    def stats(self) -> dict[str, int]:
        """Counts since it was made, and what is there now."""
        return self._counts | {"entries": len(self._entries), "bytes_used": self.bytes_used}

    def _remove(self, key: bytes) -> bool:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes_used -= self._size(key, entry[0])
        return entry is not None

    def _size(self, key: bytes, row: bytes | None) -> int:
        return ENTRY_BYTES + len(key) + len(row or b"")
