"""The latest row of every key within a batch, by the one order of fastserve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.offline.schema import CREATED_TS, EVENT_TS, TIMESTAMP

Ints: TypeAlias = npt.NDArray[np.int64]

_CODE_LIMIT: Final = 1 << 62


def timestamps(batch: pa.RecordBatch, name: str) -> Ints:
    """A timestamp column of a canonical batch as int64[n] microseconds UTC."""
    column = batch.column(name)
    if column.type != TIMESTAMP:
        column = column.cast(TIMESTAMP)
    values: Ints = column.view(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def latest_rows(batch: pa.RecordBatch, join_keys: Sequence[str]) -> Ints:
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
    codes, n_codes = key_codes([batch.column(name) for name in join_keys], n)
    order = _by_time(timestamps(batch, EVENT_TS), timestamps(batch, CREATED_TS))
    # codes   0 1 0 1 0        row      0 1 3 2 4   by time; the last place of each code has its latest row:
    # event   5 7 9 7 9   ->   code     0 1 1 0 0   of 0 it is place 4, row 4; of 1 place 2, row 3
    last = np.full(n_codes, -1)
    np.maximum.at(last, codes if order is None else codes[order], np.arange(n))
    last = last[last >= 0]
    found = np.zeros(n, np.bool_)
    found[last if order is None else order[last]] = True
    return np.flatnonzero(found)


def _by_time(event: Ints, created: Ints) -> Ints | None:
    """int64[n]: rows by (event, created, position); None where they come in that order, as files by date often do."""
    later = (event[1:] > event[:-1]) | ((event[1:] == event[:-1]) & (created[1:] >= created[:-1]))
    return None if later.all() else np.lexsort((created, event))


def key_codes(columns: Sequence[pa.Array], n: int) -> tuple[Ints, int]:
    """int64[n], equal exactly where the (composite) keys are equal, and their bound. No hashing, so no collisions."""
    codes = np.zeros(n, dtype=np.int64)
    n_codes = 1
    for column in columns:
        encoded = pc.dictionary_encode(column)
        n_values = max(len(encoded.dictionary), 1)
        if n_codes * n_values > _CODE_LIMIT:
            codes, n_codes = _dense(codes)
        codes = codes * n_values + encoded.indices.to_numpy(zero_copy_only=False)
        n_codes *= n_values
    return (codes, n_codes) if n_codes <= 4 * n else _dense(codes)


def _dense(codes: Ints) -> tuple[Ints, int]:
    """The codes without gaps between them."""
    distinct, codes = np.unique(codes, return_inverse=True)
    return codes, len(distinct)
