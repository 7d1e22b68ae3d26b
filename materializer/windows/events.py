"""The events that count, of the entities that labels ask for, by entity and time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.offline.events import EventRows, keyless
from fastserve.offline.latest import timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from materializer.pit.chunks import Ints, RowChunk, as_they_come
from materializer.windows.ranges import order_by

log = logging.getLogger(__name__)
_KEPT: Final = "event_timestamp", "created_timestamp"
Codes = npt.NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class Events:
    """Events that count, and their order by entity, then time, then place.

    Attributes:
        starts, order, times: see order_by; int64[k + 1] for k entities, int64[n], int64[n].
        columns: of the program, n long, as they came.
    """

    starts: Ints
    order: Ints
    times: Ints
    columns: Sequence[pa.Array]


def counted_events(
    batches: Iterable[pa.RecordBatch],
    rows: EventRows,
    codes: Callable[[RowChunk], Codes],
    asked: npt.NDArray[np.bool_],
    *,
    cutoff: int | None = None,
    threads: int = 1,
) -> Events:
    """The events that count.

    Args:
        batches: canonical rows of `rows.rv`, with all its columns, in source order.
        codes: which entity each row is of, from 0; -1 for one that nobody knows.
        asked: of each code, whether its events are wanted.
        cutoff: only events known by then, microseconds UTC.
        threads: that look at batches, at most.
    """
    join_keys = list(rows.rv.join_keys)

    def look(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes, int]:
        """What counts of a batch, whose it is, and how many have a null in a join key."""
        event = timestamps(batch, EVENT_TS)
        found = codes(RowChunk([batch[name] for name in join_keys], event, event))
        wanted = (found >= 0) & asked[found]
        if cutoff is not None:
            wanted &= timestamps(batch, CREATED_TS) <= cutoff
        part = batch.select([*_KEPT, *rows.columns])
        if not wanted.all():
            part, found = part.filter(pa.array(wanted)), found[wanted]
        return part, found, keyless(batch, join_keys)

    looked = as_they_come(look, iter(batches), threads)
    if missing := sum(each[2] for each in looked):
        log.warning("view %s: %d events with a null join key are left out", rows.rv.view.name, missing)
    table = pa.Table.from_batches([each[0] for each in looked]) if looked else rows.schema.empty_table()
    whose = np.concatenate([np.empty(0, np.int32), *(each[1] for each in looked)])
    return ordered(table, whose, rows, len(asked), threads=threads)


def ordered(
    table: pa.Table,
    entities: Codes,
    rows: EventRows,
    n_codes: int,
    *,
    newest_after_us: int | None = None,
    threads: int = 1,
) -> Events:
    """The events of a table that count.

    Args:
        table: n rows, their times and `rows.columns`, in source order.
        entities: of each row, int[n], below n_codes.
        newest_after_us: only entities with an event that counts after this.
        threads: at most.
    """
    kept = rows.counted(table, entities)
    if newest_after_us is not None:
        newest = np.full(n_codes, np.iinfo(np.int64).min)
        np.maximum.at(newest, entities[kept], table[EVENT_TS].cast(pa.int64()).to_numpy()[kept])
        kept &= newest[entities] > newest_after_us
    if not kept.all():
        table, entities = table.filter(pa.array(kept)), entities[kept]
    times = [chunk.view(pa.int64()).to_numpy() for chunk in table[EVENT_TS].chunks]
    whose = np.split(entities, np.cumsum([len(chunk) for chunk in times])[:-1]) if times else []
    order = order_by(whose, times, n_codes, threads=threads)
    return Events(*order, [table[column.name].combine_chunks() for column in rows.program.columns])
