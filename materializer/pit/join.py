"""One view joined to the labels: keys and times to rows, rows to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The features in force at each label, each of length n and of its declared Arrow type.

    Nulls stay typed nulls, so integers stay integers. The declared default stands where no row is in force, and
    where the row is older than the field; an explicit null in a row stays null.

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
    chunks = [
        RowChunk([batch[name] for name in rv.join_keys], _int64(batch[EVENT_TS]), _int64(batch[CREATED_TS]))
        for batch in batches
    ]
    places = find_rows(labels, chunks, ttl_us=rv.view.ttl_us, cutoff=cutoff, threads=threads)
    columns = [_column(batches, name, places, rv) for name in features]
    return dict(zip(features, gather(columns, threads=threads), strict=True))


def _column(batches: Sequence[pa.RecordBatch], name: str, places: Ints, rv: RegisteredView) -> Column:
    """A feature's chunks, and where in them each label's value is."""
    default = default_array(feature_types(rv)[name], rv.defaults[name])
    chunks = [batch[name] for batch in batches]
    if not default.null_count:  # the default becomes one more chunk, and is taken like any other value
        older = layouts_without(rv, name)
        if older:
            written = Column([batch[LAYOUT] for batch in batches], pa.int32(), places)
            layouts = gather([written])[0].fill_null(-1).to_numpy()
            places = np.where(np.isin(layouts, older), -1, places)
        places = np.where(places < 0, place(len(chunks)), places)
        chunks.append(default)
    return Column(chunks, default.type, places)


def _int64(column: pa.Array) -> Ints:
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
