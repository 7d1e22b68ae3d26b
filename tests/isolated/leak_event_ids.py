"""Ids of events: hashed, looked for, kept, let go, and a table that has to grow."""

import numpy as np
import pyarrow as pa

from fastserve._native.event_ids import IdTable, id_hashes
from tests.isolated.meter import run

NATIVES = ("event_ids",)
IDS = pa.array([b"a", None, b"x" * 50], pa.large_binary())
N = 2_000
WORDS, BUCKETS, GIVEN = np.arange(N, dtype=np.uint64), np.arange(N), np.ones(N, np.uint8)
KEPT = IdTable()


def once(i: int) -> None:
    assert len(id_hashes(IDS)) == 3
    table = KEPT if i % 50 else IdTable()
    few = slice(0, 10 if i % 50 else N)
    table.first_of_each(WORDS[few], BUCKETS[few], BUCKETS[few], GIVEN[few])
    table.add(i, WORDS[few])
    table.let_go(i - 1)
    if i % 50 == 0:
        try:
            table.first_of_each(WORDS, BUCKETS, BUCKETS, GIVEN[:5])
        except ValueError:
            return
        raise SystemExit("nothing was raised")


if __name__ == "__main__":
    run(once)
