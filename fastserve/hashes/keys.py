"""The hash of composite join keys by which rows and labels are dealt out: equal keys have equal hashes everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as is_

from fastserve.hashes.mixing import mixed

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.hashes.texts_py import text_hashes
else:
    try:
        from fastserve._native.asof_keys import text_hashes
    except ImportError:
        from fastserve.hashes.texts_py import text_hashes

Hashes = npt.NDArray[np.uint64]


def key_hashes(keys: Sequence[pa.Array], n: int) -> Hashes:
    """uint64[n]; of a key with a null it is anything, and of no keys at all it is one for all.

    Args:
        keys: one array for each join key, as `canonical_key` makes them, [n].
    """
    hashed = np.zeros(n, np.uint64)
    for column in keys:
        hashed = mixed(hashed ^ (text_hashes(column) if _is_text(column) else _words(column)))
    return hashed


def hashable(column: pa.Array) -> pa.Array:
    """A column of any scalar type as one of those that `key_hashes` takes."""
    if is_.is_integer(column.type) or is_.is_boolean(column.type):
        return column
    if is_.is_binary(column.type):
        return column.cast(pa.large_binary())
    return column.cast(pa.string()).cast(pa.large_string())


def _is_text(column: pa.Array) -> bool:
    return bool(is_.is_large_string(column.type) or is_.is_large_binary(column.type))


def _words(column: pa.Array) -> Hashes:
    whole = column.cast(pa.int64())
    values: npt.NDArray[np.int64] = (whole.fill_null(0) if whole.null_count else whole).to_numpy()
    return values.view(np.uint64)
