"""The change messages of writers."""

from __future__ import annotations

from typing import Any

from fastserve._native.batch import ReadBatch
from fastserve._native.l1 import RowCache
from fastserve.batch.batch_py import ReadBatch as PyReadBatch
from fastserve.errors import CodecError


def message(data: bytes) -> None:
    """Twins read the same keys, and the cache can be told of them."""
    seen, expected = read(ReadBatch, data), read(PyReadBatch, data)
    assert seen == expected, f"{seen}, the twin {expected}"
    if seen is None:
        return
    cache = RowCache(16_384)
    batch = ReadBatch(seen)
    batch.fill([bytes(len(seen) % 50)] * len(seen), 1)
    taken = cache.put_many(batch, 0, len(seen))
    assert taken >= 0 and cache.drop(ReadBatch.from_packed(data)) <= len(seen)
    assert len(cache) == 0


def read(batch: Any, data: bytes) -> list[bytes] | None:
    try:
        keys: list[bytes] = batch.from_packed(data).keys()
    except CodecError:
        return None
    return keys
