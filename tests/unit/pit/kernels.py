"""A kernel, and how tests ask it: by codes for keys, and indices for places."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from materializer.pit.chunks import Ints, Labels, RowChunk


class Kernel(NamedTuple):
    """What materializer/pit/asof.py chooses between."""

    find_rows: Callable[..., Ints]
    gather: Callable[..., list[pa.ChunkedArray]]

    def asof(self, labels: Any, rows: Any, *, cuts: Sequence[int] = (), **rule: Any) -> list[int]:
        """Per label (codes, times) the index of its row (codes, event times, created times), or -1.

        A code below 0 is a null. The rows come in chunks, cut before the rows in `cuts`.
        """
        codes, times = (np.asarray(x, np.int64) for x in labels)
        row_codes, events, created = (np.asarray(x, np.int64) for x in rows)
        bounds = [0, *cuts, len(events)]
        keys = _keys(row_codes)
        chunks = [[RowChunk([keys[a:b]], events[a:b], created[a:b])] for a, b in itertools.pairwise(bounds)]
        places = self.find_rows(Labels([_keys(codes)], times, ["int64"]), chunks, **rule)
        assert places.dtype == np.int64 and len(places) == len(times)
        return indices(places, bounds).tolist()


def indices(places: Ints, starts: Sequence[int]) -> Ints:
    """Places as positions in the source."""
    return np.where(places < 0, -1, np.array(starts)[np.maximum(places >> 32, 0)] + (places & 0xFFFFFFFF))


def _keys(codes: Ints) -> pa.Array:
    return pa.array(codes, mask=codes < 0)
