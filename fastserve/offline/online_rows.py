"""Canonical rows of a view as its online store holds them: the latest of each key, encoded, with a lifetime.

What the materializer writes and what a push writes goes through here, so that both write the same bytes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.offline.latest import latest_rows, timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US

Lifetimes: TypeAlias = npt.NDArray[np.int64] | None
Survivors: TypeAlias = tuple[pa.RecordBatch, Lifetimes]

_MAX_EXTRA_US: Final = 1 << 61  # keeps sums of times within int64, whatever the ttl


class OnlineRows:
    """Makes online rows of one view, in its current layout.

    Args:
        registered: the view, at the row set that the rows are for.
    """

    def __init__(self, registered: RegisteredView) -> None:
        layout = registered.layout
        self._join_keys = tuple(registered.join_keys)
        self._names = layout.names
        self._keys = KeyEncoder(registered.online_id, tuple(registered.join_keys.values()))
        self._rows = RowEncoder(layout)
        self._ttl_us = registered.view.ttl_us

    def survivors(self, batch: pa.RecordBatch, now_us: int) -> Survivors:
        """The rows worth writing: the latest of each key, if its lifetime is not over.

        Args:
            batch: canonical rows; of rows of equal order the last one counts.
            now_us: the present, which lifetimes count from.

        Returns:
            The rows, and int64 microseconds to keep each (None: for ever).
        """
        picked = latest_rows(batch, self._join_keys)
        lifetimes = self.lifetimes(timestamps(batch, EVENT_TS)[picked], now_us)
        if lifetimes is not None and not (alive := lifetimes > 0).all():
            picked, lifetimes = picked[alive], lifetimes[alive]
        return batch if len(picked) == batch.num_rows else batch.take(pa.array(picked)), lifetimes

    def keys(self, rows: pa.RecordBatch) -> ReadBatch:
        """The online keys of canonical rows; `encode` adds their rows."""
        batch = ReadBatch()
        self._keys.encode_into(batch, [rows.column(name) for name in self._join_keys], rows.num_rows)
        return batch

    def encode(self, batch: ReadBatch, rows: pa.RecordBatch) -> None:
        """Encode canonical rows under their keys."""
        columns = [rows.column(name) for name in self._names]
        self._rows.encode_into(batch, columns, timestamps(rows, EVENT_TS), timestamps(rows, CREATED_TS))

    def encoded(self, batch: pa.RecordBatch, now_us: int, size: int) -> list[tuple[ReadBatch, Lifetimes]]:
        """The survivors of a batch as put_batch takes them, `size` rows at a time."""
        rows, lifetimes = self.survivors(batch, now_us)
        parts = []
        for start in range(0, rows.num_rows, size):
            part = rows.slice(start, size)
            self.encode(keys := self.keys(part), part)
            parts.append((keys, None if lifetimes is None else lifetimes[start : start + size]))
        return parts

    def lifetimes(self, event_us: npt.NDArray[np.int64], now_us: int) -> Lifetimes:
        """int64[n] microseconds a row is kept from now on; None for ever."""
        kept = kept_us(self._ttl_us)
        return None if kept is None else event_us + (kept - now_us)


def kept_us(ttl_us: int | None) -> int | None:
    """How long after its event time a row is kept; None for ever.

    Longer than the ttl: for a while an expired row answers OUTSIDE_MAX_AGE rather than NOT_FOUND.
    """
    return None if ttl_us is None else min(2 * ttl_us + DAY_US, _MAX_EXTRA_US)
