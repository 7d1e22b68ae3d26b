"""Rows read lately, by key, within a budget of bytes: the readable twin of _ext/l1.pyx.

An entry is a row, or the knowledge that there is none, and when the store was asked for it. How old an entry may be is
the caller's business: `get_many` is told, so one cache serves views of different staleness.

    small     a tenth of the bytes: where a key goes that was not seen lately
    main      the rest: keys that were used again while in small, or that came back soon after they left it
    ghosts    keys that left small unused: what tells a key that came back

Eviction is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): one pass over many
keys that are asked for once goes through small and leaves main alone. The twins keep the same rules, not the same
bytes: which of two entries goes first may differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastserve.batch.batch_py import CACHED, CHANGED, STALE, UNKNOWN, ReadBatch

ENTRY_BYTES: Final = 64
LEAST_BYTES: Final = 16_384
MAX_USES: Final = 3
PROMOTE: Final = 1
LARGEST: Final = 32
_COUNTS: Final = ("lookups", "hits", "negative_hits", "too_old", "inserts", "evictions", "drops")


@dataclass(slots=True)
class _Entry:
    row: bytes | None
    fetched_us: int
    size: int
    uses: int = 0


class _Queue:
    """Entries, oldest first, and their bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0

    def append(self, key: bytes, entry: _Entry) -> None:
        self.entries[key] = entry
        self.size += entry.size

    def remove(self, key: bytes) -> _Entry:
        entry = self.entries.pop(key)
        self.size -= entry.size
        return entry

    def oldest(self) -> tuple[bytes, _Entry]:
        key = next(iter(self.entries))
        return key, self.remove(key)


class RowCache:
    """See the module's docstring. One thread's.

    Args:
        budget_bytes: rows, keys and what it takes to find them; 16 KiB at least.

    Raises:
        ValueError: the budget is smaller.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < LEAST_BYTES:
            raise ValueError(f"a cache of {budget_bytes} bytes: {LEAST_BYTES} is the least")
        self.budget_bytes = budget_bytes
        self._small = _Queue(budget_bytes // 10)
        self._main = _Queue(budget_bytes - budget_bytes // 10)
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._counts = dict.fromkeys(_COUNTS, 0)

    def __len__(self) -> int:
        return len(self._small.entries) + len(self._main.entries)

    @property
    def bytes_used(self) -> int:
        """Of the budget."""
        return self._small.size + self._main.size

    def get_many(
        self, batch: ReadBatch, start: int, stop: int, oldest_us: int, *, stale: bool = False
    ) -> int:
        """Fill in the rows of a range that are UNKNOWN; how many of the range still are.

        The rows lie in the cache's own memory until the next put_many, drop or clear: decode them, or own() them.

        Args:
            oldest_us: entries asked for before then do not count; they stay, for who takes them stale.
            stale: flag what is found STALE.
        """
        missing = 0
        states = batch.states(start, stop)
        for i, (key, state) in enumerate(zip(batch.keys(start, stop), states, strict=True), start):
            if state != UNKNOWN:
                continue
            self._counts["lookups"] += 1
            entry = self._small.entries.get(key) or self._main.entries.get(key)
            if entry is None or entry.fetched_us < oldest_us:
                self._counts["too_old"] += entry is not None
                missing += 1
                continue
            self._counts["hits"] += 1
            self._counts["negative_hits"] += entry.row is None
            entry.uses = min(entry.uses + 1, MAX_USES)
            batch.set(i, entry.row, CACHED | (STALE if stale else 0), entry.fetched_us)
        return missing

    def get_reads(self, batch: ReadBatch, n: int, ages_us: Sequence[int], moment: int, since: int) -> int:
        """get_many of n rows for each of several reads in turn; how many of all of them are UNKNOWN.

        Args:
            ages_us: how long before `moment` a row of each read may have been asked for; 0 for not at all.
            since: entries asked for before then do not count, whatever their age.

        Raises:
            IndexError: the batch is not n keys for each read.
        """
        if len(batch) != len(ages_us) * n:
            raise IndexError(f"{len(batch)} keys, not {len(ages_us)} times {n}")
        for r, age in enumerate(ages_us):
            if age > 0:
                self.get_many(batch, r * n, (r + 1) * n, max(moment - age, since))
        return batch.missing

    def put_many(self, batch: ReadBatch, start: int, stop: int) -> int:
        """Take in the rows of a range that are known and neither CACHED, CHANGED nor STALE; how many.

        An entry gives way only to one asked for no earlier. A row of over a thirty-second of the budget is not taken.
        """
        taken = 0
        parts = (batch.keys, batch.rows, batch.states, batch.flags, batch.fetched_us)
        for key, row, state, flags, fetched in zip(*(part(start, stop) for part in parts), strict=True):
            if state != UNKNOWN and not flags & (CACHED | CHANGED | STALE):
                taken += self._put(key, row, fetched)
        self._counts["inserts"] += taken
        return taken

    def drop(self, batch: ReadBatch) -> int:
        """Forget these keys; how many there were."""
        dropped = 0
        for key in batch.keys():
            for queue in (self._small, self._main):
                if key in queue.entries:
                    queue.remove(key)
                    dropped += 1
        self._counts["drops"] += dropped
        return dropped

    def clear(self) -> None:
        """Forget everything."""
        for queue in (self._small, self._main):
            queue.entries.clear()
            queue.size = 0

    def stats(self) -> dict[str, int]:
        """Counts since it was made, and what is there now."""
        return self._counts | {"entries": len(self), "bytes_used": self.bytes_used}

    def _put(self, key: bytes, row: bytes | None, fetched_us: int) -> bool:
        queue, uses = self._small, 0
        for held in (self._small, self._main):
            entry = held.entries.get(key)
            if entry is not None:
                if entry.fetched_us > fetched_us:
                    return False
                queue, uses = held, held.remove(key).uses
        if key in self._ghosts:
            del self._ghosts[key]
            queue = self._main
        size = ENTRY_BYTES + len(key) + len(row or b"")
        if size > self.budget_bytes // LARGEST:
            return False
        while queue.size + size > queue.capacity:
            if queue is self._small:
                self._pass_small()
            else:
                self._pass_main()
        queue.append(key, _Entry(row, fetched_us, size, uses))
        return True

    def _pass_small(self) -> None:
        """The oldest entry of small goes: into main if it was used or nothing has to leave for it."""
        key, entry = self._small.oldest()
        if entry.uses < PROMOTE and self._main.size + entry.size > self._main.capacity:
            self._counts["evictions"] += 1
            self._ghosts[key] = None
            if len(self._ghosts) > max(len(self._main.entries), 64):
                self._ghosts.popitem(last=False)
            return
        while self._main.size + entry.size > self._main.capacity:
            self._pass_main()
        entry.uses = 0
        self._main.append(key, entry)

    def _pass_main(self) -> None:
        """The oldest entry of main goes: to its end again if it was used, else for good."""
        key, entry = self._main.oldest()
        if entry.uses:
            entry.uses -= 1
            self._main.append(key, entry)
        else:
            self._counts["evictions"] += 1
