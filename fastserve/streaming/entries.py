"""Entries of a log: many events as one Arrow IPC stream, or one event as a JSON object. The field's name says which.

    arrow   ~500 events in the feed's schema: what producers of ours send
    json    one event: {"card_id": 7, "event_timestamp": "2026-01-01T00:00:00Z", "amount": 3.5, "payment_id": "p1"}

Arrow costs a fiftieth of JSON an event; JSON is what anything can send: ``XADD key * json '{…}'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson
import pyarrow as pa

from fastserve.errors import InvalidDataError
from fastserve.offline.frames import arrow_table
from fastserve.streaming.events import Ints, beyond, joined, rows_of, taken_events
from fastserve.streaming.feeds import Feed

ARROW: Final = b"arrow"
JSON: Final = b"json"
ENTRY_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a log.

    Attributes:
        id: its place in the log, as the log writes it.
        stamped_us: when the log took it, microseconds UTC.
        fields: what it holds.
    """

    id: str
    stamped_us: int
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event, or a whole entry, that cannot be used.

    Attributes:
        entry: the entry's id.
        row: which of its events, from 0; None for all of it.
        reason: why.
        body: the event as JSON, or the entry's bytes.
    """

    entry: str
    row: int | None
    reason: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """The events of some entries in their order, those that are right.

    Attributes:
        batch: in the feed's schema.
        entry, row: of each event which entry, as an index, and which row of that.
        dead: the others.
    """

    batch: pa.RecordBatch
    entry: Ints
    row: Ints
    dead: list[DeadLetter]


def encode_entry(batch: pa.RecordBatch) -> dict[bytes, bytes]:
    """Events as the fields of an entry."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return {ARROW: sink.getvalue().to_pybytes()}


def decode_entries(feed: Feed, entries: Sequence[Entry]) -> Decoded:
    """The events of entries. Nothing that is in them raises: what cannot be used is a dead letter."""
    parts, dead = list[_Part](), list[DeadLetter]()
    tables: list[tuple[int, pa.Table]] = []  # all in the same columns
    for i, entry in enumerate(entries):
        try:
            table = _table(entry)
        except _UNREADABLE as error:
            parts += _parts(feed, entries, tables, dead)
            tables = []
            dead.append(_unreadable(entry, error))
            continue
        if tables and tables[0][1].schema != table.schema:
            parts += _parts(feed, entries, tables, dead)
            tables = []
        tables.append((i, table))
    parts += _parts(feed, entries, tables, dead)
    batch = joined(feed, [part[0] for part in parts])
    return Decoded(batch, rows_of([part[1] for part in parts]), rows_of([part[2] for part in parts]), dead)


_Part = tuple[pa.RecordBatch, Ints, Ints]  # right events; of each which entry, and which row of that


def _parts(
    feed: Feed, entries: Sequence[Entry], tables: list[tuple[int, pa.Table]], dead: list[DeadLetter]
) -> list[_Part]:
    """All at once, if nothing is wrong with them; else one after the other."""
    found = _all_right(feed, entries, tables) if len(tables) > 1 else None
    if found is not None:
        return [found]
    parts = []
    for i, table in tables:
        try:
            if (checked := _checked(table)).num_rows:
                parts.append(_part(feed, entries[i], i, checked, dead))
        except _UNREADABLE as error:
            dead.append(_unreadable(entries[i], error))
    return parts


def _all_right(feed: Feed, entries: Sequence[Entry], tables: list[tuple[int, pa.Table]]) -> _Part | None:
    """The events of tables that have nothing wrong; None if anything is."""
    try:
        batch, rows, wrong = taken_events(feed, _checked(pa.concat_tables([table for _, table in tables])))
    except _UNREADABLE:
        return None
    sizes = [table.num_rows for _, table in tables]
    stamped = np.array([entries[i].stamped_us for i, _ in tables], np.int64)
    if wrong or beyond(batch, np.repeat(stamped, sizes)).any():
        return None
    starts = np.cumsum([0, *sizes[:-1]])
    return (
        batch,
        np.repeat(np.array([i for i, _ in tables], np.int64), sizes),
        rows - np.repeat(starts, sizes),
    )


def _part(feed: Feed, entry: Entry, i: int, table: pa.Table, dead: list[DeadLetter]) -> _Part:
    """Entry i's."""
    batch, taken, wrong = taken_events(feed, table)
    dead += [DeadLetter(entry.id, each.i, each.reason, _json(table, each.i)) for each in wrong]
    ahead = beyond(batch, np.full(batch.num_rows, entry.stamped_us, np.int64))
    if ahead.any():
        reason = "column 'event_timestamp': lies in the future of the log's clock"
        rows = np.flatnonzero(ahead).tolist()
        dead += [DeadLetter(entry.id, int(taken[j]), reason, _json(batch, j)) for j in rows]
        batch, taken = batch.filter(pa.array(~ahead)), taken[~ahead]
    return batch, np.full(batch.num_rows, i, np.int64), taken


def letter_of(decoded: Decoded, i: int, entries: Sequence[Entry], reason: str) -> DeadLetter:
    """Event i, which turns out to be of no use after all."""
    entry = entries[int(decoded.entry[i])]
    return DeadLetter(entry.id, int(decoded.row[i]), reason, _json(decoded.batch, i))


_UNREADABLE: Final = (InvalidDataError, pa.ArrowException, ValueError, OSError)


def _unreadable(entry: Entry, error: Exception) -> DeadLetter:
    body = next(iter(entry.fields.values()), b"")
    return DeadLetter(entry.id, None, f"cannot be read: {_first_line(error)}", body)


def _table(entry: Entry) -> pa.Table:
    """What an entry holds, before `_checked`. Raises one of _UNREADABLE."""
    if ARROW in entry.fields:
        return pa.ipc.open_stream(entry.fields[ARROW]).read_all()
    if JSON not in entry.fields:
        raise InvalidDataError("an entry has a field `arrow` or `json`")
    event = orjson.loads(entry.fields[JSON])
    if not isinstance(event, dict):
        raise InvalidDataError("an event in JSON is an object")
    return arrow_table({name: [value] for name, value in event.items()})


def _checked(table: pa.Table) -> pa.Table:
    """The table. Raises one of _UNREADABLE where it is none."""
    table.validate(full=True)  # offsets lead anywhere in bytes of others
    return arrow_table(table)  # each name once


def _json(table: pa.Table | pa.RecordBatch, i: int) -> bytes:
    """A row for people."""
    row = {name: _value(table[name][i]) for name in table.schema.names}
    return orjson.dumps(row, default=_shown, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # a time that Python cannot name
        return str(scalar.cast(pa.string()))


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, InvalidDataError) else str(error)
    return text.splitlines()[0] if text else type(error).__name__
