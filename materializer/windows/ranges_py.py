"""Windows at labels' times, folded over events one by one; `_ext/window_ranges.pyx` is the twin.

Events and labels stand by entity, then by time. So the events of a window are a range of them, and as t grows both of
its ends move forward:

    events of an entity   1 3 3 6 8            label at 7, window 4, hop 1: after 3, to 7  ->  events 3 … 4: 6
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.aggregations.finals_py import finalize
from fastserve.aggregations.program import Output, Program
from fastserve.aggregations.states_py import algebra
from fastserve.aggregations.values_py import canonical_values
from fastserve.types import arrow_type, parse_dtype

Ints = npt.NDArray[np.int64]


def order_by(
    codes: Sequence[npt.NDArray[np.signedinteger]], times: Sequence[Ints], n_codes: int, *, threads: int = 1
) -> tuple[Ints, Ints, Ints]:
    """The order by code, then time, then place.

    Args:
        codes, times: in chunks that follow one another, int[m] and int64[m], n together; codes from 0 to below n_codes.
        threads: at most; the answer does not depend on it.

    Returns:
        Where each code begins and the last ends, int64[n_codes + 1]; the order, int64[n]; the times in it.
    """
    whose, moments = (np.concatenate([np.empty(0, np.int64), *chunks]) for chunks in (codes, times))
    order = np.lexsort((moments, whose))
    return np.searchsorted(whose[order], np.arange(n_codes + 1)), order, moments[order]


def fold_windows(
    program: Program,
    outputs: Sequence[int],
    events: tuple[Ints, Ints, Ints, Sequence[pa.Array]],
    labels: tuple[Ints, Ints],
) -> list[pa.Array]:
    """The values of some outputs at labels: each [m], of its declared Arrow type.

    Args:
        outputs: indices into program.outputs.
        events: what order_by gives of k entities: int64[k + 1], int64[n], int64[n]; and the program's columns as they
            came, which may be longer.
        labels: starts and times likewise, of the same entities: int64[k + 1], int64[m].
    """
    starts, order, times, columns = events
    values = [canonical_values(column.take(pa.array(order))) for column in columns]
    made = []
    for output in (program.outputs[i] for i in outputs):
        first, last = ranges(program, output, starts, times, *labels)
        folded = [_fold(program, output, times, values, i, j) for i, j in zip(first, last, strict=True)]
        made.append(as_array(output.dtype, folded))
    return made


def ranges(
    program: Program, output: Output, starts: Ints, times: Ints, label_starts: Ints, label_times: Ints
) -> tuple[list[int], list[int]]:
    """The events of each label's window: from the first to before the last."""
    hop_us = program.levels[output.level].hop_us
    after = (label_times - output.window_us) // hop_us * hop_us
    first, last = np.zeros(len(label_times), np.int64), np.zeros(len(label_times), np.int64)
    for (start, stop), (low, high) in zip(pairwise(starts), pairwise(label_starts), strict=True):
        mine = times[start:stop]
        first[low:high] = start + np.searchsorted(mine, after[low:high], "right")
        last[low:high] = start + np.searchsorted(mine, label_times[low:high], "right")
    return first.tolist(), last.tolist()


def _fold(
    program: Program, output: Output, times: Ints, values: Sequence[Sequence[Any]], first: int, last: int
) -> Any:
    level = program.levels[output.level]
    states = []
    for state in (level.states[i] for i in output.states):
        mine = algebra(program, state)
        made = mine.empty
        for i in range(first, last):
            made = mine.update(made, int(times[i]), values[state.column][i] if state.column >= 0 else None)
        states.append(made)
    return finalize(output, states, level.states[output.states[0]].parameter)


def as_array(dtype: str, values: Sequence[Any]) -> pa.Array:
    """Values as finalize gives them, as an array of the declared type."""
    declared = parse_dtype(dtype)
    kind = arrow_type(declared)
    if declared.item == "string":  # they come as bytes
        plain = pa.list_(pa.binary()) if declared.is_list else pa.binary()
        return pa.array(values, plain).cast(kind)
    if declared.item == "timestamp":
        plain = pa.list_(pa.int64()) if declared.is_list else pa.int64()
        return pa.array(values, plain).cast(kind)
    return pa.array(values, kind)
