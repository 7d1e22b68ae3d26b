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
from materializer.pit.chunks import Ints, RowChunk

log = logging.getLogger(__name__)
_KEPT: Final = "event_timestamp", "created_timestamp"
Codes = Callable[[RowChunk], npt.NDArray[np.signedinteger]]


@dataclass(frozen=True, slots=True)
class Events:
    """Events by entity, then time, then source order.

    Attributes:
        starts: where each entity's begin, and where the last one's end: int64[k + 1].
        times: microseconds UTC, int64[n].
        columns: of the program, n long.
        keyless: how many of those read were of no entity, for a null in their key.
    """

    starts: Ints
    times: Ints
    columns: Sequence[pa.Array]
    keyless: int


def counted_events(
    batches: Iterable[pa.RecordBatch],
    rows: EventRows,
    codes: Codes,
    n_codes: int,
    *,
    cutoff: int | None = None,
) -> Events:
    """The events that count.

    Args:
        batches: canonical rows of `rows.rv`, with all its columns, in source order.
        codes: which entity each row is of, from 0; -1 for none that is asked for.
        n_codes: how many entities.
        cutoff: only events known by then, microseconds UTC.
    """
    join_keys = list(rows.rv.join_keys)
    kept, entities, missing = [], [], 0
    for batch in batches:
        missing += keyless(batch, join_keys)
        event = timestamps(batch, EVENT_TS)
        found = codes(RowChunk([batch[name] for name in join_keys], event, event))
        wanted = found >= 0
        if cutoff is not None:
            wanted &= timestamps(batch, CREATED_TS) <= cutoff
        part = batch.select([*_KEPT, *rows.columns])
        kept.append(part if wanted.all() else part.filter(pa.array(wanted)))
        entities.append(found[wanted].astype(np.int64))
    if missing:
        log.warning("view %s: %d events with a null join key are left out", rows.rv.view.name, missing)
    table = pa.Table.from_batches(kept) if kept else _nothing(rows)
    return _ordered(
        table, np.concatenate(entities) if entities else np.empty(0, np.int64), rows, n_codes, missing
    )


def _ordered(table: pa.Table, entities: Ints, rows: EventRows, n_codes: int, missing: int) -> Events:
    kept = rows.counted(table, entities)
    if not kept.all():
        table, entities = table.filter(pa.array(kept)), entities[kept]
    times = table[EVENT_TS].cast(pa.int64()).to_numpy()
    order = np.lexsort((times, entities))
    starts = np.searchsorted(entities[order], np.arange(n_codes + 1))
    picked = pa.array(order)
    columns = [_one(table[column.name].take(picked)) for column in rows.program.columns]
    return Events(starts, times[order], columns, missing)


def _one(column: pa.ChunkedArray) -> pa.Array:
    made = column.combine_chunks()
    if isinstance(made, pa.ChunkedArray):  # strings of more than 2 GB
        return pa.concat_arrays(made.chunks) if made.num_chunks else pa.array([], made.type)
    return made


def _nothing(rows: EventRows) -> pa.Table:
    schema = rows.schema
    return pa.table([pa.array([], field.type) for field in schema], schema=schema)
