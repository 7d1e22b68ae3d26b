"""One view joined to the labels: keys to codes, codes and times to rows, rows to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.offline.schema import (
    CREATED_TS,
    EVENT_TS,
    LAYOUT,
    default_array,
    feature_types,
    layouts_without,
)
from materializer.pit.asof import asof_indices
from materializer.pit.factorize import canonical_key, shared_codes

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Ints = npt.NDArray[np.int64]
_TAKE_ROWS: Final = 1 << 18  # so that 2 GB, what one Arrow array of strings holds, are not reached in one go


def join_view(
    keys: Mapping[str, pa.Array],
    times: Ints,
    rows: pa.Table,
    rv: RegisteredView,
    features: Sequence[str],
    *,
    cutoff: int | Ints | None = None,
) -> dict[str, pa.ChunkedArray]:
    """The features in force at each label, each of length n and of its declared Arrow type.

    Nulls stay typed nulls, so integers stay integers. The declared default stands where no row is in force, and
    where the row is older than the field; an explicit null in a row stays null.

    Args:
        keys: join key -> the labels' values, as `canonical_key` makes them, [n].
        times: the labels' times, microseconds UTC, [n].
        rows: rows in the canonical schema, in source order.
        rv: the view.
        features: names, in the order wanted.
        cutoff: see `asof_indices`.
    """
    rows = rows.combine_chunks()
    mine = [canonical_key(rows[name], dtype) for name, dtype in rv.join_keys.items()]
    asked = [keys[name] for name in rv.join_keys]
    spine_codes, row_codes = shared_codes(asked, mine, len(times), len(rows))
    found = asof_indices(
        spine_codes,
        times,
        row_codes,
        _int64(rows[EVENT_TS]),
        _int64(rows[CREATED_TS]),
        ttl_us=rv.view.ttl_us,
        cutoff=cutoff,
    )
    return {name: _gather(rows, name, found, rv) for name in features}


def _gather(rows: pa.Table, name: str, found: Ints, rv: RegisteredView) -> pa.ChunkedArray:
    dtype = feature_types(rv)[name]
    column = rows[name]
    default = default_array(dtype, rv.defaults[name])
    if not default.null_count:  # the default becomes one more row, and is taken like any other
        at = len(column)
        older = layouts_without(rv, name)
        if older:
            layouts = np.append(_int64(rows[LAYOUT]), -1)
            found = np.where(np.isin(layouts[found], older), at, found)
        found = np.where(found < 0, at, found)
        column = pa.chunked_array([*column.chunks, default], column.type)
    if column.num_chunks == 2:
        column = pa.chunked_array([pa.concat_arrays(column.chunks)])
    return _take(column, found)


def _take(column: pa.ChunkedArray, found: Ints) -> pa.ChunkedArray:
    source: Any = column.chunk(0) if column.num_chunks == 1 else column
    chunks: list[pa.Array] = []
    for at in range(0, len(found), _TAKE_ROWS):
        part = found[at : at + _TAKE_ROWS]
        taken = source.take(pa.array(part, mask=part < 0))
        chunks += taken.chunks if isinstance(taken, pa.ChunkedArray) else [taken]
    return pa.chunked_array(chunks, column.type)


def _int64(column: pa.ChunkedArray) -> Ints:
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
