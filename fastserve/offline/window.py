"""The rows of a scan that are wanted, by their times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from fastserve.offline.latest import timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS

_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """The rows wanted: before `end_us`, and either from `start_us` on or created after `created_after_us`.

    A bound that is None does not bind; without `start_us` everything before the end is wanted.
    """

    start_us: int | None = None
    end_us: int | None = None
    created_after_us: int | None = None

    def keeps(self, event: Ints, created: Ints) -> Bools:
        """Per row, microseconds UTC: is it wanted?"""
        kept = np.ones(len(event), np.bool_)
        if self.end_us is not None:
            kept &= event < self.end_us
        if self.start_us is not None:
            late = False if self.created_after_us is None else created > self.created_after_us
            kept &= (event >= self.start_us) | late
        return kept

    def prune(self, schema: pa.Schema, event: str, created: str | None) -> ds.Expression | None:
        """A condition that every wanted row meets, for row-group statistics; None where there is none."""
        terms = [] if self.end_us is None else [_bound(schema, event, self.end_us, 1)]
        if self.start_us is not None:
            low = self.start_us
            if self.created_after_us is not None:  # a row without created time was created at its event time
                low = min(low, self.created_after_us)
            term = _bound(schema, event, low, -1)
            if self.created_after_us is not None and created is not None and term is not None:
                known = _bound(schema, created, self.created_after_us, -1)
                term = None if known is None else term | known
            terms.append(term)
        stated = [term for term in terms if term is not None]
        return stated[0] & stated[1] if len(stated) == 2 else stated[0] if stated else None


def known_by(batch: pa.RecordBatch, now_us: int, floor_us: int | None = None) -> pa.RecordBatch:
    """The rows of a canonical batch that are known by a time, microseconds UTC, and not before `floor_us`.

    A row created later is not known yet, as a cutoff at that time would say: it waits for work of a later present.
    """
    known = timestamps(batch, CREATED_TS) <= now_us
    if floor_us is not None:
        known &= timestamps(batch, EVENT_TS) >= floor_us
    return batch if known.all() else batch.filter(pa.array(known))


def _bound(schema: pa.Schema, column: str, us: int, sign: int) -> ds.Expression | None:
    """column <= us (sign 1) or column >= us (sign -1), rounded outwards to the column's unit."""
    kind = schema.field(column).type
    if not pa.types.is_timestamp(kind):
        return None
    scaled = us * _PER_SECOND[kind.unit]
    value = -(-scaled // 10**6) if sign > 0 else scaled // 10**6
    if not -(2**63) < value < 2**63:
        return None
    limit = pa.scalar(value, pa.int64()).cast(kind)
    return ds.field(column) <= limit if sign > 0 else ds.field(column) >= limit
