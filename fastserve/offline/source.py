"""Rows of a view from its source, in the canonical schema (schema.py), streaming.

One file at a time, one batch at a time: times first, then rows outside the window are dropped, then the other
columns are cast. Memory is a few batches, whatever the source's size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.definitions import BatchSource, EventSource, FileSource, SQLSource
from fastserve.errors import InvalidDataError, guess
from fastserve.offline.cast import cast_column
from fastserve.offline.files import CSV_NULLS, DataFile, Run, open_files, reading
from fastserve.offline.options import READ, ReadOptions
from fastserve.offline.schema import (
    canonical_schema,
    default_array,
    feature_types,
    key_types,
    layouts_without,
)
from fastserve.offline.window import Window
from fastserve.types import DType, Timestamp

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

BATCH_ROWS: Final = 65_536

Ints = npt.NDArray[np.int64]


def scan_source(  # noqa: PLR0913  (a call names each)
    source: BatchSource,
    rv: RegisteredView,
    repo: Path,
    *,
    columns: Sequence[str] | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
    created_after_us: int | None = None,
    batch_rows: int = BATCH_ROWS,
    options: ReadOptions = READ,
) -> Iterator[pa.RecordBatch]:
    """The source's rows in `canonical_schema(rv, columns)`, in source order, 1 to `batch_rows` rows a batch.

    Source order is files by ascending path, rows by their place in the file. A file may lack a feature that the
    view gained under its version: its rows are older than the field, and take the field's default. Some file
    must have it. A query's rows come by event and created time, then by all its columns; a transform's as it gave
    them.

    Args:
        source: the files, the query or the transform.
        rv: the view the rows are for.
        repo: directory that relative paths start from.
        columns: features to read; None for all.
        start_us, end_us: event times ``[start_us, end_us)``, microseconds UTC.
        created_after_us: also rows before `start_us` that were created after this.
        options: what queries and transforms are told beside.

    Raises:
        ConfigError: a source needs what is not installed, or a variable that is not set.
        InvalidDataError: no such file, a missing column, a null key or event time, a value that does not
            fit its declared type (cast.py has the table); names source, file, column and row (from 0).
    """
    window = Window(start_us, end_us, created_after_us)
    files = open_source(source, repo, window, options)
    try:
        yield from scan_files(files, source, rv, window, columns=columns, batch_rows=batch_rows)
    finally:
        files.close()  # a query that is not read to its end stops here


def open_source(
    source: BatchSource,
    repo: Path,
    window: Window,
    options: ReadOptions = READ,
    *,
    only: Collection[str] | None = None,
    version: int | None = None,
) -> Generator[DataFile]:
    """What holds the source's rows: its files, or the one answer of a query or transform.

    Args:
        only, version: of a FileSource, as of `open_files`; other sources' are in `options.pins`.
    """
    if isinstance(source, FileSource):
        yield from open_files(source, repo, only=only, version=version)
    elif isinstance(source, SQLSource):
        from fastserve.offline.sql.query import open_query  # noqa: PLC0415  (files need neither)

        yield from open_query(source, repo, window, options)
    else:
        from fastserve.offline.transform import open_transform  # noqa: PLC0415

        yield from open_transform(source, repo, window, options)


def scan_files(
    files: Iterable[DataFile],
    source: BatchSource,
    rv: RegisteredView,
    window: Window,
    *,
    columns: Sequence[str] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """`scan_source` over files that were opened already."""
    schema = canonical_schema(rv, columns)
    for scan in file_scans(files, source, rv, columns):
        with reading(source, scan.file.path):
            for run in scan.runs(window):
                row = run.first_row
                for batch in run.read(scan.in_file(), batch_rows, True):
                    if batch.num_rows and (made := scan.canonical(batch, row, window, schema)) is not None:
                        yield made
                    row += batch.num_rows


def file_scans(
    files: Iterable[DataFile], source: BatchSource, rv: RegisteredView, columns: Sequence[str] | None
) -> Iterator[FileScan]:
    """How each file is read.

    Raises:
        InvalidDataError: a column is missing: in some file, or a feature younger than a file in all.
    """
    unseen: set[str] | None = None
    for file in files:
        scan = FileScan.make(source, rv, file, columns)
        unseen = set(scan.absent) if unseen is None else unseen & set(scan.absent)
        yield scan
    for name in sorted(unseen or ()):
        scan.check_has(scan.values[name][0])


@dataclass(frozen=True, slots=True)
class FileScan:
    """How one file's columns become the canonical ones.

    Attributes:
        event, created: the file's columns with the times; created None where the source has none.
        values: canonical name -> (file column, type), for join keys and features.
        n_keys: how many of `values`, from the front, are join keys.
        absent: features younger than the file -> their default, an array of one.
        null_keys: whether join keys may be null.
    """

    source: BatchSource
    file: DataFile
    event: str
    created: str | None
    values: Mapping[str, tuple[str, DType]]
    n_keys: int
    layout_id: int
    absent: Mapping[str, pa.Array]
    null_keys: bool

    @classmethod
    def make(
        cls, source: BatchSource, rv: RegisteredView, file: DataFile, columns: Sequence[str] | None
    ) -> FileScan:
        column_of = {name: column for column, name in source.field_mapping.items()}
        keys = key_types(rv)
        wanted = {**keys, **feature_types(rv, columns)}
        known = {*file.reader.schema.names, *file.partition}

        def time_column(name: str) -> str:
            return name if name in known else column_of.get(name, name)

        absent = {
            field.name: default_array(wanted[field.name], field.default)
            for field in rv.view.schema
            if field.name in wanted
            and column_of.get(field.name, field.name) not in known
            and layouts_without(rv, field.name)
        }
        scan = cls(
            source=source,
            file=file,
            event=time_column(source.timestamp_field),
            created=time_column(source.created_timestamp_column) if source.created_timestamp_column else None,
            values={name: (column_of.get(name, name), dtype) for name, dtype in wanted.items()},
            n_keys=len(keys),
            layout_id=rv.layout.layout_id,
            absent=absent,
            null_keys=isinstance(rv.view.source, EventSource),
        )
        for column in scan.columns():
            scan.check_has(column)
        return scan

    def columns(self) -> list[str]:
        """Every column needed, each once."""
        return list(dict.fromkeys([*self.time_columns(), *self.columns_of(self.values)]))

    def time_columns(self) -> list[str]:
        """The columns with the times."""
        return [self.event] if self.created is None else [self.event, self.created]

    def columns_of(self, names: Iterable[str]) -> list[str]:
        """The columns of join keys and features."""
        return [self.values[name][0] for name in names if name not in self.absent]

    def in_file(self, columns: Iterable[str] | None = None) -> list[str]:
        """Of these columns, or all needed, those that the file itself holds, rather than its path."""
        wanted = self.columns() if columns is None else dict.fromkeys(columns)
        return [name for name in wanted if name in self.file.reader.schema.names]

    def check_has(self, column: str) -> None:
        names = self.file.reader.schema.names
        place = f"source {self.source.name!r}, file {self.file.path!r}"
        if names.count(column) > 1:
            raise InvalidDataError(f"has {names.count(column)} columns named {column!r}", where=place)
        if column in names or column in self.file.partition:
            return
        shown = ", ".join([*names, *self.file.partition])
        raise InvalidDataError(
            f"has no column {column!r}",
            where=place,
            hint=f"{guess(column, names)}its columns: {shown}; field_mapping={{column: name}} renames",
        )

    def canonical(
        self, batch: pa.RecordBatch, first_row: int, window: Window, schema: pa.Schema
    ) -> pa.RecordBatch | None:
        """The wanted rows of a batch; None when there is none."""
        rows = np.arange(first_row, first_row + batch.num_rows)
        event, created = self.times(batch, rows)
        kept = window.keeps(event, created)
        if not kept.any():
            return None
        if not kept.all():
            batch, rows, event, created = batch.filter(pa.array(kept)), rows[kept], event[kept], created[kept]
        found = [self.column(batch, name, rows) for name in self.values]
        for (column, _), values in zip(list(self.values.values())[: self.n_keys], found, strict=False):
            self.check_key(values, column, rows)
        times = [pa.array(values).cast(schema.field("event_timestamp").type) for values in (event, created)]
        layout = pa.repeat(pa.scalar(self.layout_id, pa.int32()), len(rows))
        arrays = [*found[: self.n_keys], *times, *found[self.n_keys :], layout]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def runs(self, window: Window) -> list[Run]:
        """The runs of the file that may hold wanted rows."""
        names = self.file.reader.schema.names
        created = self.created if self.created in names else None
        prunable = self.event in names and (created is None) == (self.created is None)
        return self.file.reader.runs(
            window.prune(self.file.reader.schema, self.event, created) if prunable else None
        )

    def times(self, batch: pa.RecordBatch, rows: Ints) -> tuple[Ints, Ints]:
        """Event and created times, microseconds UTC, [n]."""
        event_column = self.cast(batch, self.event, Timestamp, rows)
        self.check_no_null(event_column, self.event, rows)
        event: Ints = _int64(event_column)
        if self.created is None:
            return event, event
        created_column = self.cast(batch, self.created, Timestamp, rows)
        return event, _int64(pc.coalesce(created_column, event_column))

    def column(self, batch: pa.RecordBatch, name: str, rows: Ints) -> pa.Array:
        """The values of a join key or feature."""
        if name in self.absent:
            return self.absent[name].take(pa.array(np.zeros(len(rows), np.int64)))
        return self.cast(batch, *self.values[name], rows)

    def cast(self, batch: pa.RecordBatch, column: str, dtype: DType, rows: Ints) -> pa.Array:
        from_text = self.source.format == "csv"
        if column in batch.schema.names:
            values = batch.column(column)
        else:
            from_text = True
            text = self.file.partition[column]
            text_or_null = None if text == "__HIVE_DEFAULT_PARTITION__" else text
            values = pa.repeat(pa.scalar(text_or_null, pa.string()), batch.num_rows)
        if from_text and dtype.item not in ("string", "bytes"):
            values = pc.if_else(pc.is_in(values, pa.array(CSV_NULLS)), pa.scalar(None, pa.string()), values)
        return cast_column(values, dtype, self.where(column, rows))

    def where(self, column: str, rows: Ints) -> Callable[[int], str]:
        def place(i: int) -> str:
            return f"source {self.source.name!r}, file {self.file.path!r}, column {column!r}, row {rows[i]}"

        return place

    def check_key(self, values: pa.Array, column: str, rows: Ints) -> None:
        """Raise for a null key; an event without one is of no entity."""
        if not self.null_keys:
            self.check_no_null(values, column, rows)

    def check_no_null(self, values: pa.Array, column: str, rows: Ints) -> None:
        if not values.null_count:
            return
        what = "event time" if column == self.event else "join key"
        raise InvalidDataError(
            f"the {what} is null",
            where=self.where(column, rows)(values.is_null().index(True).as_py()),
            hint=f"a row without {what} can never be found; leave it out of the source",
        )


def _int64(times: pa.Array) -> Any:
    return times.cast(pa.int64()).to_numpy(zero_copy_only=False)
