"""Canonical rows of a view as its online store holds them: the latest of each key, encoded, with a lifetime.

What the materializer writes and what a push writes goes through here, so that both write the same bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.offline.latest import latest_rows, timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US

_MAX_EXTRA_US: Final = 1 << 61  # keeps sums of times within int64, whatever the ttl


class OnlineRows:
    """Makes online rows of one view, in its current layout.

    Args:
        registered: the view.
    """

    def __init__(self, registered: RegisteredView) -> None:
        layout = registered.layout
        self._join_keys = tuple(registered.join_keys)
        self._names = layout.names
        self._keys = KeyEncoder(registered.view_id, tuple(registered.join_keys.values()))
        self._rows = RowEncoder(layout)
        self._ttl_us = registered.view.ttl_us

    def survivors(
        self, batch: pa.RecordBatch, now_us: int
    ) -> tuple[list[bytes], pa.RecordBatch, list[int] | None]:
        """The rows worth writing: the latest of each key, if its lifetime is not over.

        Args:
            batch: canonical rows; of rows of equal order the last one counts.
            now_us: the present, which lifetimes count from.

        Returns:
            Online keys, their rows, and microseconds to keep each (None: for ever).
        """
        picked = latest_rows(batch, self._join_keys)
        lifetimes = self._lifetimes(timestamps(batch, EVENT_TS)[picked], now_us)
        if lifetimes is not None:
            picked, lifetimes = picked[lifetimes > 0], lifetimes[lifetimes > 0]
        rows = batch.take(pa.array(picked))
        keys = self._keys.encode([rows.column(name) for name in self._join_keys], rows.num_rows)
        return keys, rows, None if lifetimes is None else lifetimes.tolist()

    def encode(self, keys: list[bytes], batch: pa.RecordBatch) -> list[bytes]:
        """The bytes of n canonical rows under n online keys."""
        columns = [batch.column(name) for name in self._names]
        return self._rows.encode(keys, columns, timestamps(batch, EVENT_TS), timestamps(batch, CREATED_TS))

    def _lifetimes(self, event_us: npt.NDArray[np.int64], now_us: int) -> npt.NDArray[np.int64] | None:
        """int64[n] microseconds a row is kept from now on; None for ever.

        Longer than the ttl: for a while an expired row answers OUTSIDE_MAX_AGE rather than NOT_FOUND.
        """
        if self._ttl_us is None:
            return None
        return event_us + (min(2 * self._ttl_us + DAY_US, _MAX_EXTRA_US) - now_us)
