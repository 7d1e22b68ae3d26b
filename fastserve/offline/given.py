"""Rows given from outside, by a push, in the canonical schema: checked as the rows of a source are.

| canonical           | taken from the column                                                                         |
|---------------------|-----------------------------------------------------------------------------------------------|
| a join key, feature | of its name; or the one that the batch source's field_mapping renames to it                    |
| `event_timestamp`   | `event_timestamp`, or the batch source's timestamp field                                       |
| `created_timestamp` | `created_timestamp`, the batch source's created column, or `created`; without, or where it is |
|                     | null, a row counts as known at its event time                                                 |

A time beyond the present is refused: such a row cannot be the answer at any time up to now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.definitions import batch_source
from fastserve.errors import InvalidDataError, guess
from fastserve.offline.cast import cast_column, cell
from fastserve.offline.frames import one_array
from fastserve.offline.schema import (
    CREATED_TS,
    EVENT_TS,
    TIMESTAMP,
    canonical_schema,
    feature_types,
    key_types,
)
from fastserve.registry import RegisteredView
from fastserve.timeutil import format_timestamp
from fastserve.types import DType, Timestamp

FEAST_CREATED: Final = "created"
Ints = npt.NDArray[np.int64]


def given_rows(views: Sequence[RegisteredView], table: pa.Table, now_us: int) -> list[pa.RecordBatch]:
    """The rows for each of the views, n each, in `canonical_schema(view)` and in the order given.

    Args:
        table: n rows; together the views use every column, and each finds all of its own.
        now_us: the present, which no time may lie beyond.

    Raises:
        InvalidDataError: a missing or unknown column, a null key or event time, a time in the future, a value
            that does not fit its declared type; names column and row (from 0).
    """
    made = [_Given.of(rv, table.column_names) for rv in views]
    used = {column for given in made for column in given.columns()}
    for name in table.column_names:
        if name not in used:
            raise _unknown(name, views, made)
    return [given.canonical(table, now_us) for given in made]


@dataclass(frozen=True, slots=True)
class _Given:
    """Which columns hold what for one view.

    Attributes:
        event, created: the columns with the times; created None where there is none.
        keys, features: canonical name -> (column, type).
    """

    rv: RegisteredView
    event: str
    created: str | None
    keys: Mapping[str, tuple[str, DType]]
    features: Mapping[str, tuple[str, DType]]

    @classmethod
    def of(cls, rv: RegisteredView, names: Sequence[str]) -> _Given:
        source = batch_source(rv.view.source)
        column_of = {} if source is None else {to: column for column, to in source.field_mapping.items()}
        keys, features = key_types(rv), feature_types(rv)

        def find(name: str) -> str:
            mapped = column_of.get(name, name)
            if name in names or mapped not in names:
                return _present(name, names, rv)
            return mapped

        events = [EVENT_TS] if source is None else [EVENT_TS, source.timestamp_field]
        created = [CREATED_TS, FEAST_CREATED]
        if source is not None and source.created_timestamp_column:
            created.insert(1, source.created_timestamp_column)
        free = [name for name in created if name not in keys and name not in features]
        return cls(
            rv=rv,
            event=_first(events, names) or _present(EVENT_TS, names, rv),
            created=_first(free, names),
            keys={name: (find(name), dtype) for name, dtype in keys.items()},
            features={name: (find(name), dtype) for name, dtype in features.items()},
        )

    def columns(self) -> set[str]:
        """Every column of the given table that the view takes."""
        times = {self.event} if self.created is None else {self.event, self.created}
        return times | {column for column, _ in (*self.keys.values(), *self.features.values())}

    def canonical(self, table: pa.Table, now_us: int) -> pa.RecordBatch:
        """The view's rows."""
        keys = [_column(table, column, dtype) for column, dtype in self.keys.values()]
        for (column, _), values in zip(self.keys.values(), keys, strict=True):
            _check_no_null(values, column, "join key")
        event = _column(table, self.event, Timestamp)
        _check_no_null(event, self.event, "event time")
        _check_past(event, self.event, now_us)
        created = event
        if self.created is not None:
            created = pc.coalesce(_column(table, self.created, Timestamp), event)
            _check_past(created, self.created, now_us)
        features = [_column(table, column, dtype) for column, dtype in self.features.values()]
        layout = pa.repeat(pa.scalar(self.rv.layout.layout_id, pa.int32()), table.num_rows)
        times = [event.cast(TIMESTAMP), created.cast(TIMESTAMP)]
        return pa.RecordBatch.from_arrays(
            [*keys, *times, *features, layout], schema=canonical_schema(self.rv)
        )


def _first(wanted: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _present(name: str, names: Sequence[str], rv: RegisteredView) -> str:
    if name in names:
        return name
    what = "column of event times" if name == EVENT_TS else "column"
    raise InvalidDataError(
        f"view {rv.view.name!r} needs a {what} {name!r}, which the rows do not have",
        where=f"column {name!r}",
        hint=f"{guess(name, names)}the columns given: {', '.join(names) or 'none'};"
        " a null stands for a value that is missing",
    )


def _unknown(name: str, views: Sequence[RegisteredView], made: Sequence[_Given]) -> InvalidDataError:
    known = sorted({n for given in made for n in (*given.keys, *given.features)} | {EVENT_TS, CREATED_TS})
    shown = ", ".join(repr(rv.view.name) for rv in views)
    return InvalidDataError(
        f"unknown column {name!r}: no join key, feature or time of {shown}",
        where=f"column {name!r}",
        hint=f"{guess(name, known)}columns: {', '.join(known)}",
    )


def _column(table: pa.Table, name: str, dtype: DType) -> pa.Array:
    return cast_column(one_array(table[name]), dtype, partial(cell, name))


def _check_no_null(values: pa.Array, column: str, what: str) -> None:
    if values.null_count:
        raise InvalidDataError(
            f"the {what} is null",
            where=cell(column, values.is_null().index(True).as_py()),
            hint=f"a row without {what} can never be found; leave it out",
        )


def _check_past(values: pa.Array, column: str, now_us: int) -> None:
    times: Ints = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
    if (times > now_us).any():
        i = int((times > now_us).argmax())
        raise InvalidDataError(
            f"{format_timestamp(int(times[i]))} lies in the future; it is {format_timestamp(now_us)} now",
            where=cell(column, i),
            hint="push a row once its time has come; check the producer's clock and time zone (naive is UTC)",
        )
