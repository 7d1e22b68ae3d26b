"""Which entries should a cache keep? Hit ratios of the cache as it is built beside other policies, on made traces.

The cache is driven key by key with rows of 231 bytes, and its budget is such that it holds as many entries as
the others are allowed. The first half of a trace fills the caches and is not counted. Ratios need no quiet machine.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bench.record import Table, save
from bench.scale import scaled
from bench.tinylfu import TinyLfu
from fastserve.batch import ReadBatch
from fastserve.cache import RowCache
from loadtest.keys import ZipfKeys

IDS: Final = scaled(1_000_000, 20_000)
LOOKUPS: Final = scaled(2_000_000, 20_000)
SHARES: Final = {"1 %": 100, "10 %": 10}
_ROW: Final = bytes(231)

Trace = npt.NDArray[np.int64]


class Policy(Protocol):
    """A cache of so many entries, without the values."""

    def __init__(self, size: int) -> None: ...

    def look_up(self, key: int) -> bool:
        """Whether it is there; it is taken in if not."""


class Lru:
    """What was used last stays longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[int, None] = OrderedDict()

    def look_up(self, key: int) -> bool:
        entries = self._entries
        if key in entries:
            entries.move_to_end(key)
            return True
        if len(entries) == self._size:
            entries.popitem(last=False)
        entries[key] = None
        return False


class Sieve:
    """Zhang et al., "SIEVE is simpler than LRU", NSDI 2024: a FIFO, and a hand that spares what was used.

    What is evicted leaves a gap; they are closed when the hand begins anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._used: dict[int, bool] = {}
        self._queue: list[int | None] = []  # oldest first
        self._hand = 0

    def look_up(self, key: int) -> bool:
        if key in self._used:
            self._used[key] = True
            return True
        if len(self._used) == self._size:
            self._evict()
        self._used[key] = False
        self._queue.append(key)
        return False

    def _evict(self) -> None:
        queue, used = self._queue, self._used
        while (key := queue[self._hand]) is None or used[key]:
            if key is not None:
                used[key] = False
            self._move()
            queue = self._queue
        queue[self._hand] = None
        del used[key]
        self._move()

    def _move(self) -> None:
        self._hand += 1
        if self._hand == len(self._queue):  # from the newest to the oldest again
            self._hand = 0
            self._queue = [key for key in self._queue if key is not None]


class AsBuilt:
    """fastserve's own: S3-FIFO, in bytes."""

    def __init__(self, size: int) -> None:
        self._cache = RowCache(_budget(size))

    def __len__(self) -> int:
        return len(self._cache)

    def look_up(self, key: int) -> bool:
        return _read(self._cache, key)


def _read(cache: RowCache, key: int) -> bool:
    batch = ReadBatch([b"1:%d" % key])
    if not cache.get_many(batch, 0, 1, 0):
        return True
    batch.fill([_ROW], 0)
    cache.put_many(batch, 0, 1)
    return False


def _budget(size: int) -> int:
    """Bytes for so many entries, found by filling caches."""
    budget = size * 300
    for _ in range(4):
        cache = RowCache(budget)
        for key in range(IDS, IDS + 2 * size):
            _read(cache, key)
        budget = max(16_384, round(budget * size / len(cache)))
    return budget


POLICIES: Final[Mapping[str, type[Policy]]] = {
    "S3-FIFO as built": AsBuilt,
    "LRU": Lru,
    "SIEVE": Sieve,
    "W-TinyLFU": TinyLfu,
}


# ---- traces ----


def skewed() -> Trace:
    """zipf(0.99), the same entities popular all the time."""
    return ZipfKeys(IDS, seed=1).draw(LOOKUPS)


def drifting() -> Trace:
    """zipf(0.99); before each hundredth of the trace a hundredth of the ranks goes to other entities."""
    keys, draw, parts = ZipfKeys(IDS, seed=2), np.random.default_rng(3), []
    for _ in range(100):
        ranks = draw.choice(IDS, IDS // 100, replace=False)
        keys.by_rank[ranks] = keys.by_rank[draw.permutation(ranks)]
        parts.append(keys.draw(LOOKUPS // 100))
    return np.concatenate(parts)


def sessions() -> Trace:
    """Entities by zipf(0.6), each read again three times, a fiftieth as many look-ups later as there are ids."""
    first = ZipfKeys(IDS, 0.6, seed=4).draw(LOOKUPS // 4)
    gaps = np.random.default_rng(5).exponential(IDS / 50, (len(first), 4))
    gaps[:, 0] = 0
    moments = np.arange(len(first))[:, None] * 4 + np.cumsum(gaps, axis=1)
    return np.repeat(first, 4)[np.argsort(moments, axis=None, kind="stable")]


def scans() -> Trace:
    """zipf(0.99), and for a fifth of the time also every entity in turn, as a batch job reads them."""
    trace = ZipfKeys(IDS, seed=6).draw(LOOKUPS)
    job = np.arange(LOOKUPS) // (LOOKUPS // 10) % 5 == 0
    job &= np.arange(LOOKUPS) % 2 == 0
    trace[job] = np.arange(int(job.sum())) % IDS
    return trace


TRACES: Final[Mapping[str, Callable[[], Trace]]] = {
    "zipf 0.99": skewed,
    "zipf 0.99, drifting": drifting,
    "sessions of four reads": sessions,
    "zipf 0.99 and scans": scans,
}


def hit_ratio(policy: Policy, trace: Trace) -> float:
    """Over the second half."""
    for key in trace[: len(trace) // 2].tolist():
        policy.look_up(key)
    counted = trace[len(trace) // 2 :]
    return sum(map(policy.look_up, counted.tolist())) / len(counted)


def main() -> int:
    """Compare and write bench/results/policies.json."""
    columns = {name.replace(" ", "_"): kind for name, kind in POLICIES.items()}
    table = Table(
        f"{IDS:,} entities, {LOOKUPS:,} look-ups", {**dict.fromkeys(columns, "hit ratio"), "best": ""}
    )
    rows: dict[str, dict[str, float]] = {}
    for name, make in TRACES.items():
        trace = make()
        for share, part in SHARES.items():
            rows[f"{name}, {share}"] = {
                column: hit_ratio(kind(IDS // part), trace) for column, kind in columns.items()
            }
    rows["mean"] = {column: float(np.mean([row[column] for row in rows.values()])) for column in columns}
    for label, row in rows.items():
        table.add(label, **row, best=best_of(row))
    behind = max(max(row.values()) - row["S3-FIFO_as_built"] for row in rows.values())
    notes = [
        f"Best on average: {best_of(rows['mean'])}. S3-FIFO as built is at most {behind:.3f} behind the best of a row.",
        "W-TinyLFU has a window of 1 %, as in its paper; adaptive ones do better on sessions.",
    ]
    save("policies", "Which entries to keep", [table], notes=notes)
    return 0


def best_of(ratios: Mapping[str, float]) -> str:
    """The policy with the highest ratio."""
    return max(ratios, key=ratios.__getitem__).replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
