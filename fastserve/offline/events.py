"""The events of an aggregated view as rows: which columns are read, which rows count.

Rows of events have the canonical schema (schema.py) of a view of their own: the columns of the program, those of the
filter and the event's id. Their join keys may be null: such events are of no entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.program import Program
from fastserve.codec.layout import Layout
from fastserve.definitions import AggregatedFeatureView, FeatureView, Field
from fastserve.definitions.filters import passing, view_filter
from fastserve.offline.schema import CREATED_TS, EVENT_TS, LAYOUT, canonical_schema
from fastserve.registry import RegisteredView
from fastserve.registry.snapshot import fields_of

Ints = npt.NDArray[np.int64]
_LAYOUT_ID: Final = 1


@dataclass(frozen=True, slots=True)
class EventRows:
    """How the events of an aggregated view are read.

    Attributes:
        rv: a view of the events, by the aggregated view's id and join keys; its ttl is how far back of a moment
            events are read: the longest window, its hop, and the lateness within which copies are looked for.
        program: what is computed of them.
        condition: of those that count; None for all.
        event_id: column of the event's id; '' for none.
    """

    rv: RegisteredView
    program: Program
    condition: pc.Expression | None
    event_id: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of an event beside its keys and times."""
        return self.rv.view.feature_names

    @property
    def schema(self) -> pa.Schema:
        """Times and columns of rows."""
        return pa.schema([f for f in canonical_schema(self.rv) if f.name not in {*self.rv.join_keys, LAYOUT}])

    def counted(self, rows: pa.Table, entities: Ints) -> npt.NDArray[np.bool_]:
        """Which rows count: bool[n]. Of copies of an event of one entity one does, if it meets the filter.

        Args:
            rows: n events in source order.
            entities: a number for each entity, [n].
        """
        kept = np.ones(len(rows), np.bool_)
        if self.condition is not None:
            kept = np.zeros(len(rows), np.bool_)
            kept[passing(self.condition, rows)] = True
        if self.event_id:
            kept[_copies(rows, entities, self.event_id)] = False
        return kept


def event_columns(view: AggregatedFeatureView) -> dict[str, str]:
    """Column -> type, of what is read of an event beside its keys and times."""
    return _condition(view)[1]


def _condition(view: AggregatedFeatureView) -> tuple[pc.Expression | None, dict[str, str]]:
    source = view.events
    types = {column.name: column.dtype for column in compile_program(view).columns}
    condition, used = view_filter(view)
    types |= used
    if source.event_id:
        types.setdefault(source.event_id, str(source.event_id_type))
    return condition, types


def event_rows(rv: RegisteredView) -> EventRows:
    """The events of a registered aggregated view."""
    view = rv.view
    assert isinstance(view, AggregatedFeatureView)
    program, source = compile_program(view), view.events
    condition, types = _condition(view)
    events = FeatureView(
        view.name,
        entities=view.entities,
        schema=[Field(name, dtype) for name, dtype in types.items()],
        source=source,
        version=view.version,
        ttl=timedelta(microseconds=program.reach_us + (source.lateness_us if source.event_id else 0)),
    )
    layout = Layout(_LAYOUT_ID, *fields_of(events))
    return EventRows(
        RegisteredView(events, rv.view_id, rv.join_keys, (layout,)), program, condition, source.event_id
    )


def what_is_read(rv: RegisteredView, features: Sequence[str]) -> tuple[RegisteredView, list[str]]:
    """Whose rows features of a view come from, and which columns of them: its own, or those of its events."""
    if not isinstance(rv.view, AggregatedFeatureView):
        return rv, list(features)
    rows = event_rows(rv)
    return rows.rv, list(rows.columns)


def keyless(batch: pa.RecordBatch, join_keys: Sequence[str]) -> int:
    """How many rows have a null in some join key."""
    missing = None
    for name in join_keys:
        if batch[name].null_count:
            nulls = batch[name].is_null()
            missing = nulls if missing is None else pc.or_(missing, nulls)
    return 0 if missing is None else int(pc.sum(missing).as_py())


def _copies(rows: pa.Table, entities: Ints, event_id: str) -> Ints:
    """The copies: of the rows of one id and entity, all but the least by (event time, created time, position)."""
    ids = rows[event_id].combine_chunks()
    if isinstance(ids, pa.ChunkedArray):
        ids = pa.concat_arrays(ids.chunks)
    encoded = ids.dictionary_encode()
    if len(encoded.dictionary) == len(ids) - ids.null_count:
        return np.empty(0, np.int64)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    twice = np.flatnonzero((codes >= 0) & (np.bincount(codes + 1)[codes + 1] > 1))
    batch = rows.select([EVENT_TS, CREATED_TS]).take(pa.array(twice)).combine_chunks()
    event, created = (batch[name].cast(pa.int64()).to_numpy() for name in (EVENT_TS, CREATED_TS))
    order = np.lexsort((twice, created, event, entities[twice], codes[twice]))
    same = np.diff(codes[twice][order], prepend=-1) == 0
    same &= np.diff(entities[twice][order], prepend=-1) == 0
    found: Ints = twice[order[same]]
    return found
