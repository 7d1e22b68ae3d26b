"""An aggregated view at labels' times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from fastserve.offline.events import EventRows
from materializer.pit.chunks import Labels
from materializer.windows.events import counted_events
from materializer.windows.keys import coded
from materializer.windows.ranges import fold_windows, order_by


def join_windows(
    labels: Labels,
    batches: Iterable[pa.RecordBatch],
    rows: EventRows,
    features: Sequence[str],
    *,
    cutoff: int | None = None,
) -> dict[str, pa.Array]:
    """The features at each label, n long and of their declared Arrow types.

    Args:
        labels: whose keys and times.
        batches: the events that labels can see and others, canonical rows of `rows.rv` in source order.
        rows: what they are.
        features: names, in the order wanted.
        cutoff: only events known by then, microseconds UTC.
    """
    keys = coded(labels)
    nobody = keys.n_codes  # a key with a null: an entity without events
    entities = np.where(keys.codes < 0, nobody, keys.codes).astype(np.int64)
    asked = np.zeros(nobody + 1, np.bool_)
    asked[entities] = True
    events = counted_events(batches, rows, keys.find, asked, cutoff=cutoff)
    starts, order = order_by(entities, labels.times, nobody + 1)
    number = {output.name: i for i, output in enumerate(rows.program.outputs)}
    made = fold_windows(
        rows.program,
        [number[name] for name in features],
        (events.starts, events.order, events.times, events.columns),
        (starts, np.ascontiguousarray(labels.times[order])),
    )
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return {name: values.take(pa.array(back)) for name, values in zip(features, made, strict=True)}
