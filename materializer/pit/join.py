"""One view joined to the labels: keys and times to rows, rows to values.

pieces   keys and times of all rows            ->  places: the row of each label         find_rows
pieces   features of the rows that have a label  ->  found: what became of each piece    winners.py
places, found                                  ->  values                                answer
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fastserve.offline.schema import (
    CREATED_TS,
    EVENT_TS,
    LAYOUT,
    default_array,
    feature_types,
    layouts_without,
)
from fastserve.types import arrow_type
from materializer.pit.asof import find_rows, gather
from materializer.pit.chunks import Column, Ints, Labels, RowChunk, place

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView


def join_view(
    keys: Mapping[str, pa.Array],
    times: Ints,
    rows: pa.Table,
    rv: RegisteredView,
    features: Sequence[str],
    *,
    cutoff: int | Ints | None = None,
    threads: int | None = None,
) -> dict[str, pa.ChunkedArray]:
    """The features in force at each label, each of length n and of its declared Arrow type, of rows in memory.

    Args:
        keys: join key -> the labels' values, as `canonical_key` makes them, [n].
        times: the labels' times, microseconds UTC, [n].
        rows: rows in the canonical schema, in source order; its chunks are taken as they are.
        rv: the view.
        features: names, in the order wanted.
        cutoff: see `asof_indices`.
        threads: at most so many; None: as many as there are cores. The answer does not depend on it.
    """
    batches = rows.to_batches()
    labels = Labels([keys[name] for name in rv.join_keys], times, list(rv.join_keys.values()))
    pieces = [row_chunks([batch], rv) for batch in batches]
    places = find_rows(labels, pieces, ttl_us=rv.view.ttl_us, cutoff=cutoff, threads=threads)
    found = [of_age(batch, rv, features) for batch in batches]
    return answer(places, found, rv, features, threads=threads)


def row_chunks(
    batches: Sequence[pa.RecordBatch] | Iterator[pa.RecordBatch], rv: RegisteredView
) -> Iterator[RowChunk]:
    """Keys and times as the kernel takes them."""
    for batch in batches:
        keys = [batch[name] for name in rv.join_keys]
        yield RowChunk(keys, _int64(batch[EVENT_TS]), _int64(batch[CREATED_TS]))


def answer(
    places: Ints,
    found: Sequence[pa.RecordBatch | None],
    rv: RegisteredView,
    features: Sequence[str],
    *,
    threads: int | None = None,
) -> dict[str, pa.ChunkedArray]:
    """The values at places. Nulls stay typed nulls, so integers stay integers; the declared default stands where no
    row is in force.

    Args:
        places: chunk and row, [n].
        found: the chunks, from `of_age`; None for one that no place is in.
    """
    types = feature_types(rv, features)
    filled: Ints | None = None
    columns = []
    for name, dtype in types.items():
        kind = arrow_type(dtype)
        nothing = pa.nulls(0, kind)
        chunks = [nothing if batch is None else batch[name] for batch in found]
        default = default_array(dtype, rv.defaults[name])
        if default.null_count:
            columns.append(Column(chunks, kind, places))
        else:  # the default becomes one more chunk, and is taken like any other value
            if filled is None:
                filled = np.where(places < 0, place(len(found)), places)
            columns.append(Column([*chunks, default], kind, filled))
    return dict(zip(features, gather(columns, threads=threads), strict=True))


def of_age(batch: pa.RecordBatch, rv: RegisteredView, features: Sequence[str]) -> pa.RecordBatch:
    """Features alone; the declared default where the row is older than the field, an explicit null stays null."""
    made = []
    layouts = None
    for name, dtype in feature_types(rv, features).items():
        values, default = batch[name], default_array(dtype, rv.defaults[name])
        older = [] if default.null_count else layouts_without(rv, name)
        if older:
            layouts = batch[LAYOUT].to_numpy(zero_copy_only=False) if layouts is None else layouts
            rows = np.where(np.isin(layouts, older), len(values), np.arange(len(values)))
            if len(values) and (rows == len(values)).any():
                values = pa.concat_arrays([values, default]).take(pa.array(rows))
        made.append(values)
    return pa.RecordBatch.from_arrays(made, names=list(features))


def _int64(column: pa.Array) -> Ints:
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
