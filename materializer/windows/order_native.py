"""Rows by entity, then by time, by threads (_ext/window_order.pyx); `order_by` of ranges_py.py is the twin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from fastserve._native.window_order import Ordering
from materializer.pit.chunks import Ints, in_threads


def order_by(
    codes: Sequence[npt.NDArray[np.signedinteger]], times: Sequence[Ints], n_codes: int, *, threads: int = 1
) -> tuple[Ints, Ints, Ints]:
    """See the twin, in ranges_py.py."""
    if [len(chunk) for chunk in codes] != [len(chunk) for chunk in times]:
        raise ValueError("codes and times in chunks of one length")
    firsts = list(accumulate(map(len, codes), initial=0))
    ordering = Ordering(firsts[-1], n_codes)
    small = [np.ascontiguousarray(chunk, np.int32) for chunk in codes]
    counts = np.zeros((len(small), ordering.n_parts), np.int64)
    if small:
        counts[:] = in_threads(ordering.count, small, threads)
    # A part's rows stand by chunk, so in the order they came in.
    stops = counts.T.cumsum().reshape(counts.T.shape).T
    to = np.ascontiguousarray(stops - counts)
    in_threads(
        lambda job: ordering.scatter(*job), list(zip(small, times, firsts[:-1], to, strict=True)), threads
    )
    ends = counts.sum(0).cumsum()
    parts = list(zip(range(ordering.n_parts), ends - counts.sum(0), ends, strict=True))
    in_threads(lambda job: ordering.settle(*job), parts, threads)
    return ordering.starts, ordering.placed[:, 1], ordering.placed[:, 0]
