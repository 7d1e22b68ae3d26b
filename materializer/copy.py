"""A new row set against the history it was made of, and what only the old one has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.codec.rows import crc32c, read_header
from fastserve.errors import MaterializeError
from fastserve.offline.online_rows import Lifetimes, OnlineRows
from fastserve.online import OnlineStore
from fastserve.online.base import ORDER, Rows, rows_of
from fastserve.registry import RegisteredView
from fastserve.timeutil import MICROS
from materializer.reclaim import prefix_of
from materializer.stop import Stop

CHECK_ROWS: Final = 16_384  # of one question: the fewer, the less client and server take turns
CARRY_ROWS: Final = 4_096
SLACK_S: Final = 5.0


async def check_rows(
    store: OnlineStore,
    registered: RegisteredView,
    chunks: Iterable[pa.RecordBatch],
    now_us: int,
    began: float,
    stop: Stop,
) -> None:
    """Read back what was written: every key has its row, or a newer one.

    Args:
        registered: the view, at the set that was written.
        chunks: canonical rows.
        now_us: the present that they were written at.
        began: when that was, by the monotonic clock: rows whose life is over since may be gone.

    Raises:
        MaterializeError: a row is not there, or is an older one.
        Stopped: between two batches.
    """
    rows = OnlineRows(registered)
    for chunk in chunks:
        survivors, lifetimes = rows.survivors(chunk, now_us)
        for start in range(0, survivors.num_rows, CHECK_ROWS):
            stop.check()
            part = survivors.slice(start, CHECK_ROWS)
            rows.encode(keys := rows.keys(part), part)
            held = await _get(store, keys.keys())
            lives = None if lifetimes is None else lifetimes[start : start + CHECK_ROWS]
            elapsed_us = int((time.monotonic() - began + SLACK_S) * MICROS)
            wrong = _wrong(rows_of(keys), held, lives, elapsed_us)
            if wrong:
                key = keys.keys()[wrong[0]].decode("utf-8", "backslashreplace")
                raise MaterializeError(
                    f"{len(wrong)} of {len(held)} rows that were written are not in the online store",
                    where=f"key {key}",
                    hint="nothing was switched; does the store evict rows (maxmemory-policy), or was it emptied?",
                )


def _wrong(wanted: Sequence[bytes], held: Rows, lives: Lifetimes, elapsed_us: int) -> list[int]:
    """Which rows are neither there, nor replaced by newer ones, nor over."""
    found = []
    for i, (row, there) in enumerate(zip(wanted, held, strict=True)):
        if there is None:
            if lives is None or lives[i] > elapsed_us:
                found.append(i)
        elif there[ORDER] < row[ORDER]:
            found.append(i)
    return found


async def carry(store: OnlineStore, old: RegisteredView, new: RegisteredView, now_us: int, stop: Stop) -> int:
    """Copy the rows of a set into another where that has none, or an older one; how many.

    Args:
        old, new: the view, at the sets.
        now_us: the present, which lifetimes count from.
    """
    rows, before, after = OnlineRows(new), prefix_of(old.online_id), prefix_of(new.online_id)
    carried, batch = 0, []

    async def copy(keys: list[bytes]) -> int:
        stop.check()
        held = [(key, row) for key, row in zip(keys, await _get(store, keys), strict=True) if row is not None]
        moved = [(after + key[len(before) :], row) for key, row in held]
        lives = rows.lifetimes(np.array([read_header(row)[1] for _, row in moved], np.int64), now_us)
        alive = [i for i in range(len(moved)) if lives is None or lives[i] > 0]
        return await store.put_many(
            [moved[i][0] for i in alive],
            [_under(*moved[i]) for i in alive],
            None if lives is None else lives[alive],
        )

    async for key in store.scan(before):
        batch.append(key)
        if len(batch) == CARRY_ROWS:
            carried += await copy(batch)
            batch = []
    return carried + (await copy(batch) if batch else 0)


def _under(key: bytes, row: bytes) -> bytes:
    """The same row under another key: its checksum covers both (docs/row-format.md)."""
    return row[:4] + crc32c(row[8:], crc32c(key + row[:4])).to_bytes(4, "little") + row[8:]


async def _get(store: OnlineStore, keys: list[bytes]) -> Rows:
    found = store.get_fresh(keys)
    return await found if isinstance(found, asyncio.Future) else found
