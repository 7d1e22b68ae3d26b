"""Hashes of texts and bytes. The readable twin of `text_hashes` in _ext/asof_keys.pyx: bit for bit the same."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_WORD: Final = 2**64 - 1


def text_hashes(array: pa.Array) -> npt.NDArray[np.uint64]:
    """A hash of each key, the same in every process and on every machine; of a null it is anything: uint64[n].

    Args:
        array: large_string or large_binary.

    Raises:
        TypeError: it is another type.
    """
    if array.type not in (pa.large_string(), pa.large_binary()):
        raise TypeError(f"keys are {array.type}, not large_string or large_binary")
    keys = array.cast(pa.large_binary()).to_pylist()
    return np.fromiter((_hash(key or b"") for key in keys), np.uint64, len(keys))


def _hash(data: bytes) -> int:
    """fs_hash of _ext/hashing.pxd with seed 0."""
    hashed, at, size = len(data), 0, len(data)
    while size > 8:
        hashed = _fold(hashed ^ int.from_bytes(data[at : at + 8], "little"), 0x9E3779B97F4A7C15)
        at, size = at + 8, size - 8
    rest = data[at:]
    if size >= 4:
        word = int.from_bytes(rest[:4], "little") << 32 | int.from_bytes(rest[-4:], "little")
    elif size:
        word = rest[0] << 16 | rest[size >> 1] << 8 | rest[-1]
    else:
        word = 0
    hashed = _fold(hashed ^ word ^ 0xA0761D6478BD642F, 0xE7037ED1A0B428DB)
    return hashed ^ hashed >> 24


def _fold(a: int, b: int) -> int:
    product = a * b
    return product & _WORD ^ product >> 64
