"""Events of a feed into the tile rows of one view."""

from __future__ import annotations

from collections.abc import Sequence
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
from fastserve.streaming.events import Ints, Wrong, by_halves, rows_of, times_of


@dataclass(frozen=True, slots=True)
class Touched:
    """What events change of a view.

    Attributes:
        keys: of the entities, each once.
        codes: int64[n], of each event that counts the index of its key.
        rows: int64[n], which events of the batch these are.
        events: these events.
        wrong: events that the view's filter cannot be asked about.
    """

    keys: list[bytes]
    codes: Ints
    rows: Ints
    events: pa.RecordBatch
    wrong: list[Wrong]


@dataclass(frozen=True, slots=True)
class Built:
    """Rows to be written, and the keys whose rows could not be read; their events are lost to the view."""

    keys: list[bytes]
    rows: list[bytes]
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

    def touched(self, batch: pa.RecordBatch) -> Touched:
        """What these events, all of which count in the feed, change."""
        rows, wrong = self._passing(batch)
        events = batch if len(rows) == batch.num_rows else batch.take(pa.array(rows))
        keys = self._encoder.encode([events[name] for name in self.rv.join_keys], events.num_rows)
        coded = pa.array(keys, pa.binary()).dictionary_encode()
        codes: Ints = coded.indices.to_numpy().astype(np.int64)
        return Touched(coded.dictionary.to_pylist(), codes, rows, events, wrong)

    def build(self, touched: Touched, held: Sequence[bytes | None], *, end_us: int, created_us: int) -> Built:
        """The rows of the keys touched, on top of those they hold; see TileBuilder.build_into."""
        try:
            return Built(touched.keys, self._rows(touched, held, end_us, created_us), {})
        except CodecError:
            return self._build_readable(touched, held, end_us, created_us)

    def _rows(
        self, touched: Touched, held: Sequence[bytes | None], end_us: int, created_us: int
    ) -> list[bytes]:
        out, base = ReadBatch(touched.keys), ReadBatch(touched.keys)
        base.fill(list(held), 0)
        events = touched.events
        columns = [events[column.name] for column in self.program.columns]
        self._builder.build_into(
            out, touched.codes, times_of(events), columns, end_us=end_us, created_us=created_us, base=base
        )
        rows = [row for row in out.rows() if row is not None]
        assert len(rows) == len(touched.keys)  # each has an event
        return rows

    def _build_readable(
        self, touched: Touched, held: Sequence[bytes | None], end_us: int, created_us: int
    ) -> Built:
        """Key by key: one row that cannot be read must not hold up the others."""
        keys, made, unreadable = [], [], dict[int, str]()
        for code, (key, row) in enumerate(zip(touched.keys, held, strict=True)):
            own = np.flatnonzero(touched.codes == code)
            rows, events = touched.rows[own], touched.events.take(pa.array(own))
            one = Touched([key], np.zeros(len(own), np.int64), rows, events, [])
            try:
                made += self._rows(one, [row], end_us, created_us)
                keys.append(key)
            except CodecError as error:
                unreadable |= dict.fromkeys(rows.tolist(), f"{error.where}: {error.message}")
        return Built(keys, made, unreadable)

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
