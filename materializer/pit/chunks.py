"""What the point-in-time kernel is given, and how it shares work out to threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Job = TypeVar("Job")
Made = TypeVar("Made")

TAKE_ROWS: Final = 1 << 18
"""Rows of a chunk of an answer: so that 2 GB, what one Arrow array of strings holds, are not reached in one go."""

NONE: Final = -1


@dataclass(slots=True)
class Labels:
    """What is asked for; one for all views that have the same join keys.

    Attributes:
        keys: one array for each join key, as `canonical_key` makes them, [n]; none for a view without entities.
        times: microseconds UTC, [n].
        key_types: what each join key is declared as.
        coded: the keys as the kernel has them, once it has looked at them.
    """

    keys: Sequence[pa.Array]
    times: Ints
    key_types: Sequence[str]
    coded: Any = None


class RowChunk(NamedTuple):
    """Rows of a piece in source order; all but keys without nulls.

    Attributes:
        keys: one array for each join key, of any form that `canonical_key` takes, [m].
        event_ts, created_ts: microseconds UTC, [m].
    """

    keys: Sequence[pa.Array]
    event_ts: Ints
    created_ts: Ints


class Column(NamedTuple):
    """A column to take values from.

    Attributes:
        chunks: arrays of one type.
        kind: that type.
        places: which value goes to each label, [n].
    """

    chunks: Sequence[pa.Array]
    kind: pa.DataType
    places: Ints


Piece = Iterable[RowChunk]
"""Rows that one thread reads, once: places count on from each of its chunks to the next."""

Seen = Callable[[int], None]
"""Told how many more rows have been read."""


def unseen(rows: int) -> None:
    """Nobody is told."""


def place(chunk: int, row: int = 0) -> int:
    """Where a row is."""
    return chunk << 32 | row


def cores() -> int:
    """How many threads there are cores for."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(items: Iterator[Made]) -> Generator[Made]:
    """The items; while one is used, a thread makes the next."""
    none: Any = object()
    with ThreadPoolExecutor(1, "fastserve-ahead") as pool:
        coming = pool.submit(next, items, none)
        while (item := coming.result()) is not none:
            coming = pool.submit(next, items, none)
            yield item


def in_threads(work: Callable[[Job], Made], jobs: Sequence[Job], threads: int) -> list[Made]:
    """What `work` makes of each job, in their order; up to `threads` threads take them, one after the other."""
    made: list[Any] = [None] * len(jobs)
    shared = iter(enumerate(jobs))  # of a list: one thread at a time, for next() is one step under the GIL

    def some() -> None:
        for i, job in shared:
            made[i] = work(job)

    count = min(threads, len(jobs))
    if count <= 1:
        some()
        return made
    with ThreadPoolExecutor(count, "fastserve-pit") as pool:
        for future in [pool.submit(some) for _ in range(count)]:
            future.result()
    return made


def as_they_come(work: Callable[[Job], Made], jobs: Iterator[Job], threads: int) -> list[Made]:
    """What `work` makes of each job, in their order; whichever of the threads is free asks for the next."""
    made: dict[int, Made] = {}
    lock, numbered, none = threading.Lock(), enumerate(jobs), (-1, None)

    def some(_: int) -> None:
        while True:
            with lock:  # a generator is nobody's twice
                i, job = next(numbered, none)
            if i < 0:
                return
            made[i] = work(job)  # type: ignore[arg-type]

    in_threads(some, range(threads), threads)
    return [made[i] for i in range(len(made))]
