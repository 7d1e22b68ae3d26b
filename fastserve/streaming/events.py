"""Events as they come, in the columns of their feed: cast and checked, as a producer wants it and as a worker does.

A producer is told the first thing that is wrong and sends nothing. A worker takes the events that are right and says of
each of the others why it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.errors import InvalidDataError, guess
from fastserve.offline.cast import cast_column, cell
from fastserve.offline.frames import one_array
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from fastserve.streaming.feeds import Feed
from fastserve.timeutil import MICROS, format_timestamp
from fastserve.types import arrow_type

SKEW_US: Final = MICROS
"""How far an event may lie beyond the clock that stamps its entry: clocks differ."""

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wrong:
    """Row i, and why it is no event."""

    i: int
    reason: str


def cast_events(feed: Feed, table: pa.Table, needed: Sequence[str]) -> pa.RecordBatch:
    """The table in the feed's columns; a column that is not there is null. Unknown columns are left out.

    Args:
        needed: columns without a null.

    Raises:
        InvalidDataError: a value does not fit its type, or a needed one is null; names column and row (from 0).
    """
    arrays = []
    for name, dtype in feed.columns.items():
        if name in table.column_names:
            made = cast_column(one_array(table[name]), dtype, partial(cell, name))
        else:
            made = pa.nulls(table.num_rows, arrow_type(dtype))
        if made.null_count and name in needed:
            raise InvalidDataError(
                "is null" if name in table.column_names else "is missing",
                where=cell(name, made.is_null().index(True).as_py()),
                hint=f"every event has {', '.join(needed)}",
            )
        arrays.append(made)
    return pa.RecordBatch.from_arrays(arrays, schema=feed.schema)


def given_events(feeds: Sequence[Feed], table: pa.Table, now_us: int) -> pa.RecordBatch:
    """A producer's rows as events of a source, all of them right.

    Args:
        feeds: the source's, one at least.
        table: join keys, event id and columns by their names; the time as `event_timestamp` or as the batch source's
            timestamp field; perhaps `created_timestamp`, else they are known now.
        now_us: the present.

    Raises:
        InvalidDataError: a missing or unknown column, a value that does not fit, an event without a time or of no
            entity, a time in the future; names column and row (from 0).
    """
    feed = feeds[0]
    table = _renamed(feed, table)
    for name in table.column_names:
        if name not in feed.columns:
            raise InvalidDataError(
                f"unknown column {name!r}: no join key or column of the events {feed.source.name!r}",
                where=f"column {name!r}",
                hint=f"{guess(name, feed.columns)}columns: {', '.join(feed.columns)}",
            )
    for name in feed.columns:
        if name not in table.column_names and name != CREATED_TS:
            raise InvalidDataError(
                f"the events {feed.source.name!r} need a column {name!r}, which the rows do not have",
                where=f"column {name!r}",
                hint=f"the columns given: {', '.join(table.column_names) or 'none'};"
                " a null stands for a value that is missing",
            )
    batch = cast_events(feed, table, [EVENT_TS])
    _check_keys(feeds, batch)
    late = beyond(batch, np.full(batch.num_rows, now_us, np.int64))
    if late.any():
        i = int(late.argmax())
        shown = format_timestamp(int(times_of(batch)[i]))
        raise InvalidDataError(
            f"{shown} lies in the future; it is {format_timestamp(now_us)} now",
            where=cell(EVENT_TS, i),
            hint="send an event once it has happened; check the producer's clock and time zone (naive is UTC)",
        )
    return known(batch, np.full(batch.num_rows, now_us, np.int64))


def of_feed(feed: Feed, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The events that have the feed's join keys; the others are of no entity of its views."""
    for name in feed.join_keys:
        if batch[name].null_count:
            batch = batch.filter(batch[name].is_valid())
    return batch


def taken_events(feed: Feed, table: pa.Table) -> tuple[pa.RecordBatch, Ints, list[Wrong]]:
    """A worker's: the events that are right, which rows they are, and what is wrong with the others."""
    needed = [*feed.join_keys, EVENT_TS]

    def cast(start: int, stop: int) -> tuple[pa.RecordBatch, Ints]:
        rows = np.arange(start, stop, dtype=np.int64)
        return cast_events(feed, table.slice(start, stop - start), needed), rows

    errors = (InvalidDataError, pa.ArrowException, ArithmeticError)
    parts, wrong = by_halves(cast, 0, table.num_rows, errors, _text)
    return joined(feed, [batch for batch, _ in parts]), rows_of([rows for _, rows in parts]), wrong


def joined(feed: Feed, batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of a feed's events as one; of none the empty one."""
    if len(batches) == 1:
        return batches[0]
    whole = pa.Table.from_batches(batches, schema=feed.schema).combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], schema=feed.schema)


def rows_of(parts: Sequence[Ints]) -> Ints:
    """int64 arrays one after the other; of none the empty one."""
    return np.concatenate([np.empty(0, np.int64), *parts])


def by_halves(
    work: Callable[[int, int], T],
    start: int,
    stop: int,
    errors: tuple[type[Exception], ...],
    reason: Callable[[Exception], str],
) -> tuple[list[T], list[Wrong]]:
    """What work makes of rows start … stop - 1, in as few parts as leave out the single rows that it fails on."""
    try:
        return [work(start, stop)], []
    except errors as error:
        if stop - start <= 1:
            return [], [Wrong(start, reason(error))]
    middle = start + (stop - start) // 2
    left, left_wrong = by_halves(work, start, middle, errors, reason)
    right, right_wrong = by_halves(work, middle, stop, errors, reason)
    return left + right, left_wrong + right_wrong


def times_of(batch: pa.RecordBatch) -> Ints:
    """Event times, microseconds UTC."""
    times: Ints = batch[EVENT_TS].cast(pa.int64()).to_numpy()
    return times


def beyond(batch: pa.RecordBatch, stamped_us: Ints) -> npt.NDArray[np.bool_]:
    """Which events lie in the future of the clock that stamped them."""
    found: npt.NDArray[np.bool_] = times_of(batch) > stamped_us + SKEW_US
    return found


def known(batch: pa.RecordBatch, stamped_us: Ints) -> pa.RecordBatch:
    """The events; one that does not say when it became known was known when it was stamped."""
    created = batch[CREATED_TS]
    if not created.null_count:
        return batch
    created = pc.coalesce(created, pa.array(stamped_us).cast(created.type))
    at = batch.schema.get_field_index(CREATED_TS)
    return batch.set_column(at, batch.schema.field(at), created)


def _renamed(feed: Feed, table: pa.Table) -> pa.Table:
    """The batch source's name of the time, or of another column, is as good as ours."""
    source = feed.source.batch_source
    if source is None:
        return table
    mapping: Mapping[str, str] = {source.timestamp_field: EVENT_TS, **source.field_mapping}
    if source.created_timestamp_column:
        mapping = {source.created_timestamp_column: CREATED_TS, **mapping}
    names = set(table.column_names)
    return table.rename_columns(
        [
            mapping[name]
            if name not in feed.columns and name in mapping and mapping[name] not in names
            else name
            for name in table.column_names
        ]
    )


def _check_keys(feeds: Sequence[Feed], batch: pa.RecordBatch) -> None:
    """Raise InvalidDataError for an event of no entity at all."""
    found = np.zeros(batch.num_rows, np.bool_)
    for feed in feeds:
        valid = np.ones(batch.num_rows, np.bool_)
        for name in feed.join_keys:
            valid &= batch[name].is_valid().to_numpy(zero_copy_only=False)
        found |= valid
    if not found.all():
        keys = sorted({name for feed in feeds for name in feed.join_keys})
        raise InvalidDataError(
            "the join key is null",
            where=cell(" and ".join(keys), int((~found).argmax())),
            hint="such an event is of no entity; leave it out",
        )


def _text(error: Exception) -> str:
    if not isinstance(error, InvalidDataError):
        return str(error).partition("\n")[0] or type(error).__name__
    return f"{error.where.partition(', row')[0]}: {error.message}" if error.where else error.message
