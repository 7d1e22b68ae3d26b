"""Events of a feed into the tile rows of one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from fastserve.aggregations.build import ReadBatch, TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.codec.keys import KeyEncoder
from fastserve.definitions import AggregatedFeatureView
from fastserve.definitions.filters import compile_filter
from fastserve.errors import CodecError
from fastserve.registry import RegisteredView
from fastserve.streaming.events import Ints, Wrong, times_of

_ROW: Final = "_row"


@dataclass(frozen=True, slots=True)
class Touched:
    """What events change of a view.

    Attributes:
        keys: of the entities, each once.
        codes: int64[n], of each event that counts the index of its key.
        rows: int64[n], which events of the batch these are.
        wrong: events that the view's filter cannot be asked about.
    """

    keys: list[bytes]
    codes: Ints
    rows: Ints
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
        types = {column.name: column.dtype for column in view.events.schema}
        self._filter = (
            compile_filter(view.filter, types, f"FeatureView {view.name!r}")[0] if view.filter else None
        )
        self._encoder = KeyEncoder(rv.online_id, tuple(rv.join_keys.values()))
        self._builder = TileBuilder(self.program, rv.layout.layout_id)

    def touched(self, batch: pa.RecordBatch) -> Touched:
        """What these events, all of which count in the feed, change."""
        rows, wrong = self._passing(batch, np.arange(batch.num_rows, dtype=np.int64))
        some = batch if len(rows) == batch.num_rows else batch.take(pa.array(rows))
        keys = self._encoder.encode([some[name] for name in self.rv.join_keys], some.num_rows)
        coded = pa.array(keys, pa.binary()).dictionary_encode()
        codes: Ints = coded.indices.to_numpy().astype(np.int64)
        return Touched(coded.dictionary.to_pylist(), codes, rows, wrong)

    def build(
        self,
        batch: pa.RecordBatch,
        touched: Touched,
        held: Sequence[bytes | None],
        *,
        end_us: int,
        created_us: int,
    ) -> Built:
        """The rows of the keys touched, on top of those they hold; see TileBuilder.build_into."""
        try:
            return Built(touched.keys, self._rows(batch, touched, held, end_us, created_us), {})
        except CodecError:
            return self._build_readable(batch, touched, held, end_us, created_us)

    def _rows(
        self,
        batch: pa.RecordBatch,
        touched: Touched,
        held: Sequence[bytes | None],
        end_us: int,
        created_us: int,
    ) -> list[bytes]:
        out, base = ReadBatch(touched.keys), ReadBatch(touched.keys)
        base.fill(list(held), 0)
        some = batch if len(touched.rows) == batch.num_rows else batch.take(pa.array(touched.rows))
        columns = [some[column.name] for column in self.program.columns]
        self._builder.build_into(
            out, touched.codes, times_of(some), columns, end_us=end_us, created_us=created_us, base=base
        )
        rows = [row for row in out.rows() if row is not None]
        assert len(rows) == len(touched.keys)  # each has an event
        return rows

    def _build_readable(
        self,
        batch: pa.RecordBatch,
        touched: Touched,
        held: Sequence[bytes | None],
        end_us: int,
        created_us: int,
    ) -> Built:
        """Key by key: one row that cannot be read must not hold up the others."""
        keys, made, unreadable = [], [], dict[int, str]()
        for code, (key, row) in enumerate(zip(touched.keys, held, strict=True)):
            own = np.flatnonzero(touched.codes == code)
            one = Touched([key], np.zeros(len(own), np.int64), touched.rows[own], [])
            try:
                made += self._rows(batch, one, [row], end_us, created_us)
                keys.append(key)
            except CodecError as error:
                unreadable |= dict.fromkeys(touched.rows[own].tolist(), f"{error.where}: {error.message}")
        return Built(keys, made, unreadable)

    def _passing(self, batch: pa.RecordBatch, rows: Ints) -> tuple[Ints, list[Wrong]]:
        """The rows that the filter keeps; those it fails on (an overflow, say) are found by halving."""
        if self._filter is None:
            return rows, []
        table = pa.Table.from_batches([batch]).append_column(_ROW, pa.array(rows))
        try:
            kept: Ints = table.filter(self._filter)[_ROW].to_numpy()
            return kept, []
        except pa.ArrowInvalid as error:
            if len(rows) == 1:
                reason = f"the filter of view {self.rv.view.name!r} fails: {str(error).splitlines()[0]}"
                return rows[:0], [Wrong(int(rows[0]), reason)]
        half = len(rows) // 2
        left, left_wrong = self._passing(batch.slice(0, half), rows[:half])
        right, right_wrong = self._passing(batch.slice(half), rows[half:])
        return np.concatenate([left, right]), [*left_wrong, *right_wrong]
