"""Events of a feed into the tile rows of one view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastserve.aggregations.build import ReadBatch, TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.codec.keys import KeyEncoder
from fastserve.definitions import AggregatedFeatureView
from fastserve.definitions.filters import passing, view_filter
from fastserve.errors import CodecError
from fastserve.registry import RegisteredView
from fastserve.streaming.entities import Entities
from fastserve.streaming.events import Ints, Wrong, by_halves, rows_of, times_of


@dataclass(frozen=True, slots=True)
class Touched:
    """What events change of a view.

    Attributes:
        entities: of the events that count.
        keys: theirs, by code; no row is known.
        rows: int64[n], which events of the batch these are.
        events: these events.
        wrong: events that the view's filter cannot be asked about.
    """

    entities: Entities
    keys: ReadBatch
    rows: Ints
    events: pa.RecordBatch
    wrong: list[Wrong]


@dataclass(frozen=True, slots=True)
class Built:
    """Rows to be written, and the events of keys whose rows could not be read: they are lost to the view."""

    rows: list[ReadBatch]
    unreadable: dict[int, str]


class ViewTiles:
    """One view over a feed.

    Args:
        rv: an aggregated view, at the row set that is served.
    """

    def __init__(self, rv: RegisteredView) -> None:
        view = rv.view
        assert isinstance(view, AggregatedFeatureView)
        self.rv = rv
        self.program = compile_program(view)
        self._filter = view_filter(view)[0]
        self._encoder = KeyEncoder(rv.online_id, tuple(rv.join_keys.values()))
        self._builder = TileBuilder(self.program, rv.layout.layout_id)

    def touched(self, batch: pa.RecordBatch, entities: Entities) -> Touched:
        """What these events, all of which count in the feed, change."""
        rows, wrong = self._passing(batch)
        if len(rows) < batch.num_rows:
            batch, entities = batch.take(pa.array(rows)), entities.of_events(rows)
        keys = ReadBatch()
        self._encoder.encode_into(keys, entities.columns, entities.m)
        return Touched(entities, keys, rows, batch, wrong)

    def build(self, touched: Touched, held: ReadBatch, *, end_us: int, created_us: int) -> Built:
        """The rows of the keys touched, on top of those they hold; see TileBuilder.build_into."""
        stamps = {"end_us": end_us, "created_us": created_us}
        try:
            codes = touched.entities.codes
            return Built([self._rows(touched.keys, codes, touched.events, held, **stamps)], {})
        except CodecError:
            return self._build_readable(touched, held, stamps)

    def _rows(
        self, keys: ReadBatch, codes: Ints, events: pa.RecordBatch, held: ReadBatch, **stamps: int
    ) -> ReadBatch:
        """Each of the keys, which are those of `held`, has an event."""
        out = ReadBatch()
        out.take(keys, 0, len(keys))
        columns = [events[column.name] for column in self.program.columns]
        self._builder.build_into(out, codes, times_of(events), columns, base=held, **stamps)
        return out

    def _build_readable(self, touched: Touched, held: ReadBatch, stamps: Mapping[str, int]) -> Built:
        """Key by key: one row that cannot be read must not hold up the others."""
        made, unreadable = [], dict[int, str]()
        for code in range(len(held)):
            own = np.flatnonzero(touched.entities.codes == code)
            events, codes = touched.events.take(pa.array(own)), np.zeros(len(own), np.int64)
            key, one = ReadBatch(), ReadBatch()
            key.take(touched.keys, code, code + 1)
            one.take(held, code, code + 1)
            try:
                made.append(self._rows(key, codes, events, one, **stamps))
            except CodecError as error:
                rows = touched.rows[own].tolist()
                unreadable |= dict.fromkeys(rows, f"{error.where}: {error.message}")
        return Built(made, unreadable)

    def _passing(self, batch: pa.RecordBatch) -> tuple[Ints, list[Wrong]]:
        """The rows that the filter keeps, and those it fails on (an overflow, say)."""
        condition = self._filter
        if condition is None:
            return np.arange(batch.num_rows, dtype=np.int64), []
        table = pa.Table.from_batches([batch])

        def kept(start: int, stop: int) -> Ints:
            return start + passing(condition, table.slice(start, stop - start))

        def reason(error: Exception) -> str:
            return f"the filter of view {self.rv.view.name!r} fails: {str(error).splitlines()[0]}"

        parts, wrong = by_halves(kept, 0, batch.num_rows, (pa.ArrowInvalid,), reason)
        return rows_of(parts), wrong
