"""An aggregated view at labels' times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.aggregations.program import Program
from fastserve.offline.events import EventRows
from materializer.pit.chunks import Ints, Labels, in_threads
from materializer.windows.events import Events, counted_events
from materializer.windows.keys import coded
from materializer.windows.ranges import fold_windows, order_by

_CUTS: Final = 4  # a thread, so that one which is held up leaves the rest to others


def join_windows(
    labels: Labels,
    batches: Iterable[pa.RecordBatch],
    rows: EventRows,
    features: Sequence[str],
    *,
    cutoff: int | None = None,
    threads: int = 1,
) -> dict[str, pa.Array]:
    """The features at each label, n long and of their declared Arrow types.

    Args:
        labels: whose keys and times.
        batches: the events that labels can see and others, canonical rows of `rows.rv` in source order.
        rows: what they are.
        features: names, in the order wanted.
        cutoff: only events known by then, microseconds UTC.
        threads: that fold, at most; the answer does not depend on it.
    """
    keys = coded(labels)
    nobody = keys.n_codes  # a key with a null: an entity without events
    entities = np.where(keys.codes < 0, nobody, keys.codes)
    asked = np.zeros(nobody + 1, np.bool_)
    asked[entities] = True
    events = counted_events(batches, rows, keys.find, asked, cutoff=cutoff, threads=threads)
    starts, order, times = order_by([entities], [labels.times], nobody + 1, threads=threads)
    number = {output.name: i for i, output in enumerate(rows.program.outputs)}
    outputs = [number[name] for name in features]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    taken = pa.array(back)

    def fold(cut: tuple[int, int]) -> list[pa.Array]:
        return _fold(rows.program, outputs, events, (starts, times), *cut)

    def put_back(parts: Sequence[pa.Array]) -> pa.Array:
        return pa.chunked_array(parts).combine_chunks().take(taken)

    parts = in_threads(
        fold, _cuts(events.starts + starts, threads if threads == 1 else _CUTS * threads), threads
    )
    values = in_threads(put_back, list(zip(*parts, strict=True)), threads)
    return dict(zip(features, values, strict=True))


def _cuts(weights: Ints, parts: int) -> list[tuple[int, int]]:
    """Entities first … last - 1 of each part, of about equal weight; weights rise, one more than there are entities."""
    at = np.searchsorted(weights, np.linspace(weights[0], weights[-1], parts + 1)[1:-1])
    return list(pairwise([0, *np.unique(at[(at > 0) & (at < len(weights) - 1)]).tolist(), len(weights) - 1]))


def _fold(
    program: Program, outputs: Sequence[int], events: Events, labels: tuple[Ints, Ints], first: int, stop: int
) -> list[pa.Array]:
    """The values of the labels of some entities, in their order."""
    low, high = events.starts[first], events.starts[stop]
    begins, times = labels
    mine = (
        events.starts[first : stop + 1] - low,
        events.order[low:high],
        events.times[low:high],
        events.columns,
    )
    asked = (begins[first : stop + 1] - begins[first], times[begins[first] : begins[stop]])
    return fold_windows(program, outputs, mine, asked)
