"""Which of two columns' values are the same bits: null is null alone, NaN its payload, -0.0 not 0.0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from fastserve.offline.frames import one_array

Bools = npt.NDArray[np.bool_]


def same_bits(a: pa.ChunkedArray | pa.Array, b: pa.ChunkedArray | pa.Array) -> Bools:
    """bool[n]; of columns of two types nothing is the same."""
    return _same(one_array(a), one_array(b))


def _same(a: pa.Array, b: pa.Array) -> Bools:
    if is_.is_list(a.type) and is_.is_list(b.type):
        return _same_lists(a, b)
    if is_.is_fixed_size_list(a.type) and is_.is_fixed_size_list(b.type):
        return _same_lists(a.cast(pa.list_(a.type.value_type)), b.cast(pa.list_(b.type.value_type)))
    if a.type != b.type:
        return np.zeros(len(a), np.bool_)
    valid, other = _mask(a), _mask(b)
    both = valid & other
    found: Bools = valid == other
    found[both] = _same_scalars(a.filter(pa.array(both)), b.filter(pa.array(both)))
    return found


def _same_scalars(a: pa.Array, b: pa.Array) -> Bools:
    """Of values without nulls."""
    if is_.is_floating(a.type):
        bits = pa.int32() if a.type.bit_width == 32 else pa.int64()
        a, b = a.view(bits), b.view(bits)
    found: Bools = pc.equal(a, b).to_numpy(zero_copy_only=False)
    return found


def _same_lists(a: pa.Array, b: pa.Array) -> Bools:
    valid, other = _mask(a), _mask(b)
    found: Bools = valid == other
    lengths = [pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False) for column in (a, b)]
    found &= lengths[0] == lengths[1]
    rows = np.flatnonzero(found & valid & (lengths[0] > 0))
    if not len(rows):
        return found
    items = [column.take(pa.array(rows)).flatten() for column in (a, b)]
    starts = np.cumsum(lengths[0][rows]) - lengths[0][rows]
    found[rows] = np.logical_and.reduceat(_same(*items), starts)
    return found


def _mask(column: pa.Array) -> Bools:
    found: Bools = column.is_valid().to_numpy(zero_copy_only=False)
    return found
