"""Bytes that online rows take in a store, from the lengths of keys and rows. bench/memory.py measures what this
foretells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Lengths = Sequence[tuple[int, int]]
_OBJECT: Final = 16
_ENTRY: Final = 24
_BUCKET: Final = 8
_EMBEDDED: Final = 44  # a value up to this is in one piece with its object


def redis_bytes(lengths: Lengths, keys: float, *, expires: bool) -> float:
    """Memory of a Redis (7, 64 bits) for so many keys.

    A key is an entry of a table, its name, and an object with the value; one that expires is an entry of another
    table, too. Each piece has the size that jemalloc hands out. A table has as many buckets as the next power of two.

    Args:
        lengths: (bytes of the key, bytes of the row) of a sample.
    """
    if keys < 1:
        return 0.0
    each = _mean(_allocated(_ENTRY) + _string(key) + _value(row) for key, row in lengths)
    buckets = _BUCKET << max(2, (round(keys) - 1).bit_length())
    tables = 2 if expires else 1
    return keys * (each + (_allocated(_ENTRY) if expires else 0)) + tables * buckets


def lmdb_bytes(lengths: Lengths, keys: float, *, expires: bool) -> float:
    """Bytes of an LMDB's file for so many keys, in pages that are nine tenths full.

    Args:
        lengths: (bytes of the key, bytes of the row) of a sample.
        expires: rows carry when they end.
    """
    return keys * _mean(key + row + 8 + 2 + 8 * expires for key, row in lengths) / 0.9


def _value(n_bytes: int) -> int:
    if n_bytes <= _EMBEDDED:
        return _allocated(_OBJECT + 3 + n_bytes + 1)
    return _allocated(_OBJECT) + _string(n_bytes)


def _string(n_bytes: int) -> int:
    """Of a string of Redis: its header, the bytes, a zero."""
    header = 1 if n_bytes < 32 else 3 if n_bytes < 256 else 5
    return _allocated(header + n_bytes + 1)


def _allocated(n_bytes: int) -> int:
    """What jemalloc hands out: steps of 16 up to 128, then four to a doubling."""
    if n_bytes <= 128:
        return max(8, -(-n_bytes // 16) * 16) if n_bytes > 8 else 8
    step = 1 << ((n_bytes - 1).bit_length() - 3)
    return -(-n_bytes // step) * step


def _mean(sizes: Iterable[int]) -> float:
    found = list(sizes)
    return sum(found) / len(found)
