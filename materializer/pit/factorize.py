"""Composite join keys as one int64 code per row, the same code for the same key on both sides of a join.

Codes are 0 or more and of no meaning beyond being equal or not. A key that no feature row has, or with a null
in any part, is -1 and matches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from fastserve.types import KEY_TYPES

Codes = npt.NDArray[np.int64]

_CANONICAL: Final = {
    "int64": pa.int64(),
    "string": pa.large_string(),
    "bytes": pa.large_binary(),
    "bool": pa.bool_(),
}
assert set(_CANONICAL) == set(KEY_TYPES)


def canonical_key(column: pa.ChunkedArray | pa.Array, key_type: str) -> pa.Array:
    """A key column as int64, large_string, large_binary or bool; equal keys become equal values.

    Args:
        column: integers of any width; string, large_string or string_view; binary of any kind; bool; or a
            dictionary of these. An unsigned integer beyond int64 equals no key: null.
        key_type: what the join key is declared as, one of KEY_TYPES.

    Raises:
        TypeError: the column is not of that type.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if is_.is_dictionary(column.type):
        column = column.dictionary_decode()
    target = _CANONICAL[key_type]
    if is_.is_null(column.type):
        return pa.nulls(len(column), target)
    if _family(column.type) != key_type:
        raise TypeError(f"the column is {column.type}, the join key is {key_type}")
    if is_.is_uint64(column.type):
        fits = pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64()))
        column = pc.if_else(fits, column, pa.scalar(None, pa.uint64()))
    return column.cast(target)


def _family(kind: pa.DataType) -> str:
    if is_.is_integer(kind):
        return "int64"
    if is_.is_boolean(kind):
        return "bool"
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "string"
    binary = (is_.is_binary, is_.is_large_binary, is_.is_fixed_size_binary, is_.is_binary_view)
    return "bytes" if any(test(kind) for test in binary) else ""


def shared_codes(
    spine: Sequence[pa.Array], features: Sequence[pa.Array], n_spine: int, n_features: int
) -> tuple[Codes, Codes]:
    """Codes of both sides: int64[n_spine], int64[n_features].

    Args:
        spine, features: the key columns in the same order, each pair as `canonical_key` made it; no columns at
            all for a view without entities, whose one key everybody has.
    """
    spine_codes = np.zeros(n_spine, np.int64)
    feature_codes = np.zeros(n_features, np.int64)
    count = 1
    for left, right in zip(spine, features, strict=True):
        encoded = right.dictionary_encode()
        part = or_none(encoded.indices)
        asked = or_none(pc.index_in(left, encoded.dictionary))
        width = len(encoded.dictionary)
        feature_codes = combined(feature_codes, part, width)
        spine_codes = combined(spine_codes, asked, width)
        if count * width > 2**31:  # keep products within int64: renumber what the feature rows have
            known = np.unique(feature_codes)
            known = known[known >= 0]
            feature_codes, spine_codes = (renumbered(c, known) for c in (feature_codes, spine_codes))
            width, count = len(known), 1
        count *= max(width, 1)
    return spine_codes, feature_codes


def or_none(indices: Any) -> Codes:
    """Arrow's indices, null as -1."""
    found = pc.fill_null(indices.cast(pa.int64()), -1)
    return found.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def combined(codes: Codes, part: Codes, width: int) -> Codes:
    """A code for each pair of a code and a part below `width`; -1 where either is."""
    return np.where((codes < 0) | (part < 0), -1, codes * width + part)


def renumbered(codes: Codes, known: Codes) -> Codes:
    """Where each code stands among those known, ascending; -1 for all others."""
    if not len(known):
        return np.full(len(codes), -1, np.int64)
    at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[at] == codes, at, -1)
