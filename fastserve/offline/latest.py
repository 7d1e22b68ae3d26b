"""The latest row of every key within a batch, by the one order of fastserve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.offline.schema import CREATED_TS, EVENT_TS

_CODE_LIMIT: Final = 1 << 62


def timestamps(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A timestamp column of a canonical batch as int64[n] microseconds UTC."""
    column = batch.column(name).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    values: npt.NDArray[np.int64] = column.to_numpy(zero_copy_only=False)
    return values


def latest_rows(batch: pa.RecordBatch, join_keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Which rows survive: per key the one with the largest (event_ts, created_ts, position).

    Args:
        batch: n canonical rows in source order; join keys without nulls.
        join_keys: names of the key columns; none for a view with one global row.

    Returns:
        int64[m], ascending row numbers, m the number of distinct keys.
    """
    n = batch.num_rows
    if n == 0:
        return np.empty(0, dtype=np.int64)
    codes = key_codes([batch.column(name) for name in join_keys], n)
    # codes     0 1 0 1 0        sorted by (code, event, created); the sort is stable, so among equals
    # event     5 7 9 7 9   ->   rows 0 2 4 | 1 3: the last row of each run of one code is the latest.
    order = np.lexsort((timestamps(batch, CREATED_TS), timestamps(batch, EVENT_TS), codes))
    ordered = codes[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return np.sort(order[last])


def key_codes(columns: Sequence[pa.Array], n: int) -> npt.NDArray[np.int64]:
    """int64[n]: equal exactly where the (composite) keys are equal. No hashing, so no collisions."""
    codes = np.zeros(n, dtype=np.int64)
    n_codes = 1
    for column in columns:
        encoded = pc.dictionary_encode(column)
        n_values = max(len(encoded.dictionary), 1)
        if n_codes * n_values > _CODE_LIMIT:
            distinct, codes = np.unique(codes, return_inverse=True)
            n_codes = len(distinct)
        codes = codes * n_values + encoded.indices.to_numpy(zero_copy_only=False)
        n_codes *= n_values
    return codes
