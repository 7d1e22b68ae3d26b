"""The tile rows of an aggregated view's entities: events of the longest window, part by part, into its row sets.

events          a part of the entities at a time, dealt out by the hash of their keys where there are many
tile rows       fastserve.aggregations.build, as of the end of the run
online store    newest wins, as for rows of any kind; a row is kept for as long as a window may need it
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.aggregations.build import TileBuilder
from fastserve.aggregations.program import Program
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.offline.events import EventRows, keyless
from fastserve.offline.latest import key_codes
from fastserve.offline.online_rows import kept_us
from fastserve.offline.pieces import Piece, TablePiece
from fastserve.offline.schema import canonical_schema
from fastserve.offline.window import known_by
from fastserve.online import OnlineStore
from fastserve.registry import RegisteredView
from materializer.shards.blocks import read_blocks
from materializer.shards.deal import MOST_SHARDS, ByKeys, Dealer
from materializer.shards.workdir import OwnedDir
from materializer.stop import Stop
from materializer.windows.events import Events, ordered
from materializer.write import PUT_ROWS, Puts

log = logging.getLogger(__name__)
PART_ROWS: Final = 4_000_000


class TileRows:
    """Makes the tile rows of one view.

    Args:
        registered: the view.
        rows: how its events are read.
        end_us: the rows are as of then.
        now_us: the run's present: only events known by then count; and the stamp of the rows.
        stop: asked between batches.
    """

    def __init__(
        self, registered: RegisteredView, rows: EventRows, end_us: int, now_us: int, stop: Stop
    ) -> None:
        self._registered = registered
        self._rows = rows
        self._end_us, self._now_us = end_us, now_us
        self._stop = stop
        self._builder = TileBuilder(rows.program, registered.layout.layout_id)

    @property
    def after_us(self) -> int:
        """An entity without events after this has none in any window: it gets no row.

        A row has the tiles of the windows at its newest event, so that it follows from the events alone, whenever it is
        made: events are read from as far back of this as a window reaches.
        """
        return self._end_us - self._rows.program.reach_us

    def parts(
        self,
        pieces: Sequence[Piece],
        told: Callable[[int], None],
        saw: Callable[[pa.RecordBatch, bool], None],
    ) -> Iterator[list[pa.RecordBatch]]:
        """The events, all of an entity in one part; those of no entity are left out, and the log says how many.

        Args:
            told: of how many were read so far.
            saw: gets every batch of them, and whether a stream appended it; all before the first part is there.
        """
        total = sum(piece.n_rows for piece in pieces)
        events = self._events(pieces, told, saw)
        if total <= PART_ROWS:
            yield list(events)
            return
        count = min(-(-total // PART_ROWS), MOST_SHARDS)
        schema = canonical_schema(self._rows.rv, self._rows.columns)
        by = ByKeys(tuple(self._rows.rv.join_keys.items()), count)
        with (
            closing(OwnedDir(tempfile.gettempdir())) as work,
            Dealer(work.dir, "events", schema, by) as dealer,
        ):
            for batch in events:
                dealer.add(batch)
            file = dealer.close()
            for _, blocks in sorted(file.blocks.items()):
                yield read_blocks(work.dir, file.name, blocks, schema)

    def _events(
        self,
        pieces: Sequence[Piece],
        told: Callable[[int], None],
        saw: Callable[[pa.RecordBatch, bool], None],
    ) -> Iterator[pa.RecordBatch]:
        join_keys = list(self._rows.rv.join_keys)
        read = missing = 0
        for piece in pieces:
            for batch in piece.rows(self._rows.columns):
                self._stop.check()
                read += batch.num_rows
                told(read)
                lost = keyless(batch, join_keys)
                missing += lost
                for name in join_keys if lost else ():
                    batch = batch.filter(pc.is_valid(batch[name]))
                known = known_by(batch, self._now_us)
                saw(known, isinstance(piece, TablePiece))
                yield known
        if missing:
            name = self._registered.view.name
            log.warning("view %s: %d events with a null join key are left out", name, missing)

    async def write(self, store: OnlineStore, part: Sequence[pa.RecordBatch], ids: Sequence[int]) -> int:
        """Write the rows of a part to the row sets of these ids; how many keys of the first got a newer row.

        Raises:
            Stopped: between two batches.
            StoreError: the store failed; part of it may be written.
        """
        keys, events = self.entities(part)
        written = 0
        for number, online_id in enumerate(ids):
            encoder = KeyEncoder(online_id, tuple(self._registered.join_keys.values()))
            puts = Puts(store)
            try:
                for start in range(0, len(events.starts) - 1, PUT_ROWS):
                    self._stop.check()
                    batch = self.built(encoder, keys, events, start)
                    newest = events.times[events.starts[start + 1 : start + PUT_ROWS + 1] - 1]
                    await puts.start(batch, newest + self.kept_us)
                await puts.finish()
            finally:
                await puts.settle()
            written += 0 if number else puts.written
        return written

    @property
    def program(self) -> Program:
        """What the rows are of."""
        return self._rows.program

    @property
    def kept_us(self) -> int:
        """A row is kept for its newest event's time and this from now on."""
        kept = kept_us(self._rows.program.reach_us)
        assert kept is not None
        return kept - self._now_us

    def entities(self, part: Sequence[pa.RecordBatch]) -> tuple[list[pa.Array], Events]:
        """The keys of the entities that have events, and these in their order."""
        rows = self._rows
        names = list(rows.rv.join_keys)
        table = pa.Table.from_batches(part, canonical_schema(rows.rv, rows.columns))
        columns = [table[name].combine_chunks() for name in names]
        codes, _ = key_codes(columns, len(table))
        _, first, entities = np.unique(codes, return_index=True, return_inverse=True)
        events = ordered(table, entities, rows, len(first), newest_after_us=self.after_us)
        present = np.flatnonzero(np.diff(events.starts))
        starts = np.append(events.starts[present], events.starts[-1])
        picked = pa.array(first[present])
        order = pa.array(events.order)
        values = [column.take(order) for column in events.columns]
        by_entity = Events(starts, np.arange(len(order)), events.times, values)
        return [column.take(picked) for column in columns], by_entity

    def built(self, encoder: KeyEncoder, keys: Sequence[pa.Array], events: Events, start: int) -> ReadBatch:
        """Rows of PUT_ROWS entities or fewer; none of one without events."""
        starts = events.starts[start : start + PUT_ROWS + 1]
        low, high, m = int(starts[0]), int(starts[-1]), len(starts) - 1
        batch = ReadBatch()
        encoder.encode_into(batch, [column.slice(start, m) for column in keys], m)
        self._builder.build_into(
            batch,
            np.repeat(np.arange(m), np.diff(starts)),
            events.times[low:high],
            [column.slice(low, high - low) for column in events.columns],
            end_us=self._end_us,
            created_us=self._now_us,
        )
        return batch
