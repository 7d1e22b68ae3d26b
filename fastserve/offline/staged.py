"""Appending to an offline table in two steps, so that many processes write and only commits take turns.

    stage    any process: which rows the table lacks, written to a Parquet file beside its others      not seen yet
    commit   one process: files of many dates in one commit, if the dates are still as they were looked at

A staged date that another writer changed meanwhile is not committed: it has to be staged again, no other date has. A
file that was never committed is seen by nobody; a vacuum removes it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from fastserve.errors import MaterializeError, OfflineStoreError
from fastserve.offline.delta import ATTEMPTS, OfflineTable, append_properties, create_table, tended
from fastserve.offline.latest import timestamps
from fastserve.offline.parquet import with_dictionary
from fastserve.offline.schema import CREATED_TS, EVENT_DATE, EVENT_TS, canonical_schema, key_types
from fastserve.timeutil import now_us

Chunks = Callable[[], Iterable[pa.RecordBatch]]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Staged:
    """The new rows of one date, written and not committed.

    Attributes:
        seen: the date's files that were looked at.
        adds: files to add; none when every row is there already.
        rows_new: rows in them.
        n_bytes: their size.
    """

    day: date
    seen: frozenset[str]
    adds: tuple[AddAction, ...]
    rows_new: int
    n_bytes: int


def prepare(table: OfflineTable) -> None:
    """Make the table, or give it the columns that the view gained: staged files need it to be as the view is.

    Raises:
        OfflineStoreError: it cannot be written.
    """
    schema = canonical_schema(table.rv).append(pa.field(EVENT_DATE, pa.date32()))
    with tended(table.uri):
        for _ in range(ATTEMPTS):
            delta = table.open()
            try:
                if delta is None:
                    create_table(table.uri, schema)
                elif set(schema.names) <= {field.name for field in delta.schema().fields}:
                    return
                else:
                    empty = pa.RecordBatchReader.from_batches(schema, [])
                    write_deltalake(delta, empty, mode="append", schema_mode="merge")
            except CommitFailedError:
                continue
    raise OfflineStoreError("other writers change it each time we try", where=table.uri, hint="try again")


def stage(table: OfflineTable, day: date, chunks: Chunks) -> Staged:
    """Write the rows of a date that the table lacks to a file beside its others.

    A row that stands there already stays as it was first written; of equal rows given the last counts. Memory is the
    keys and times of the date's rows and one chunk.

    Args:
        table: prepared.
        chunks: the date's rows in the canonical schema with all features; asked twice.

    Raises:
        OfflineStoreError: the table cannot be read or written.
    """
    names = [*key_types(table.rv), EVENT_TS, CREATED_TS]
    keys = [chunk.select(names) for chunk in chunks()]
    with tended(table.uri):
        delta = table.open()
        assert delta is not None
        seen = _files_of(delta, day)
        if not keys:
            return Staged(day, seen, (), 0, 0)
        given = pa.Table.from_batches(keys)
        new = table.is_new(delta, given)
        if not new.any():
            return Staged(day, seen, (), 0, 0)
        kept = _kept(chunks(), new)
        add = _write(delta, day, kept)
        return Staged(day, seen, (add,), int(np.count_nonzero(new)), add.size)


def commit(table: OfflineTable, staged: Sequence[Staged]) -> list[Staged]:
    """Commit staged dates, all in one; returns those that other writers changed meanwhile: stage them again.

    Raises:
        MaterializeError: other writers were faster, again and again; nothing was committed.
        OfflineStoreError: the table cannot be read or written.
    """
    for _ in range(ATTEMPTS):
        with tended(table.uri):
            delta = table.open()
            if delta is None:
                raise OSError("the table was removed")
            stale = [one for one in staged if one.adds and _files_of(delta, one.day) != one.seen]
            gone = {one.day for one in stale}
            adds: list[AddAction | RemoveAction] = [
                add for one in staged if one.day not in gone for add in one.adds
            ]
            if not adds:
                return stale
            try:
                delta.create_write_transaction(
                    adds,
                    "append",
                    delta.schema(),
                    partition_by=[EVENT_DATE],
                    commit_properties=append_properties(delta),
                )
            except CommitFailedError:
                continue
            return stale
    raise MaterializeError(
        "other writers changed the table each time we tried; nothing was written",
        where=table.uri,
        hint="run the same command again: rows that are there already are left out",
    )


def rows_by_date(table: OfflineTable) -> dict[str, int]:
    """Date -> rows, from the log alone; empty without a table."""
    with tended(table.uri):
        delta = table.open()
        if delta is None:
            return {}
        actions = pa.table(delta.get_add_actions(flatten=True))
    found: dict[str, int] = {}
    days, counts = actions[f"partition.{EVENT_DATE}"], actions["num_records"]
    for day, rows in zip(days.to_pylist(), counts.to_pylist(), strict=True):
        found[str(day)] = found.get(str(day), 0) + int(rows or 0)
    return found


def _files_of(delta: DeltaTable, day: date) -> frozenset[str]:
    among = [(EVENT_DATE, "=", day.isoformat())]
    return frozenset(delta.file_uris(file_pruning_predicate=among))


def _kept(chunks: Iterable[pa.RecordBatch], new: Any) -> Iterable[pa.RecordBatch]:
    at = 0
    for chunk in chunks:
        mask = new[at : at + chunk.num_rows]
        at += chunk.num_rows
        if mask.any():
            yield chunk if mask.all() else chunk.filter(pa.array(mask))


def _write(delta: DeltaTable, day: date, chunks: Iterable[pa.RecordBatch]) -> AddAction:
    """Write a file of a date into the table's directory."""
    dataset = delta.to_pyarrow_dataset()
    path = f"{EVENT_DATE}={day.isoformat()}/part-00000-{uuid.uuid4()}-c000.zstd.parquet"
    stats, schema = _Stats(), pa.schema([field for field in dataset.schema if field.name != EVENT_DATE])
    with dataset.filesystem.open_output_stream(path) as stream:
        dictionary: Any = with_dictionary(schema)
        with pq.ParquetWriter(stream, schema, compression="zstd", use_dictionary=dictionary) as writer:
            for chunk in chunks:
                columns = [
                    chunk.column(field.name).cast(field.type)
                    if field.name in chunk.schema.names
                    else pa.nulls(chunk.num_rows, field.type)
                    for field in schema
                ]
                made = pa.RecordBatch.from_arrays(columns, schema=schema)
                stats.add(made)
                writer.write_batch(made)
        size = stream.tell()
    return AddAction(path, size, {EVENT_DATE: day.isoformat()}, now_us() // 1_000, True, stats.to_json())


class _Stats:
    """Of one file, as Delta's log has them: rows, nulls per column, smallest and largest times."""

    def __init__(self) -> None:
        self._rows = 0
        self._nulls: dict[str, int] = {}
        self._times: dict[str, tuple[int, int]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        self._rows += batch.num_rows
        for field, column in zip(batch.schema, batch.columns, strict=True):
            if not pa.types.is_nested(field.type):
                self._nulls[field.name] = self._nulls.get(field.name, 0) + column.null_count
        for name in (EVENT_TS, CREATED_TS):
            times = timestamps(batch, name)
            low, high = self._times.get(name, (2**63 - 1, -(2**63)))
            self._times[name] = (min(low, int(times.min())), max(high, int(times.max())))

    def to_json(self) -> str:
        return json.dumps(
            {
                "numRecords": self._rows,
                "minValues": {name: _moment(low) for name, (low, _) in self._times.items()},
                "maxValues": {name: _moment(high) for name, (_, high) in self._times.items()},
                "nullCount": self._nulls,
            }
        )


def _moment(us: int) -> str:
    time = _EPOCH + timedelta(microseconds=us)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
