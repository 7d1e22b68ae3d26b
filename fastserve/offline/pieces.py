"""A view's rows as pieces, each to be read twice: keys and times of all rows, then features of the rows that matter.

A piece is rows that follow one another in one file: a run of row groups, or the file. Pieces stand in source order,
and a row is known by the number of its piece and its place within: both stay the same however often one reads. A
piece is for one thread at a time; different ones share nothing that is written. One that is `portable` can be pickled
and read by another process, which sees the same files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from fastserve.definitions import BatchSource, FileSource
from fastserve.errors import InvalidDataError
from fastserve.offline.delta import OfflineTable, conformed, tended
from fastserve.offline.files import DataFile, FileReader, ParquetReader, Run, reading
from fastserve.offline.schema import CREATED_TS, EVENT_TS, LAYOUT, TIMESTAMP, canonical_schema, key_types
from fastserve.offline.source import FileScan, file_scans
from fastserve.offline.window import Window

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Ints = npt.NDArray[np.int64]

KEY_ROWS: Final = 1 << 17  # of a batch of keys and times
VALUE_ROWS: Final = 1 << 15  # of a batch with features, which may be wide


class Piece(Protocol):
    """Rows in source order."""

    @property
    def n_rows(self) -> int:
        """How many; 0 where that is known only once they are read."""

    @property
    def portable(self) -> bool:
        """Whether other processes can read it; the answer of a query is kept by the process that asked."""

    @property
    def origin(self) -> Hashable | None:
        """What its keys and times are read from: pieces of one origin have the same, whatever view they are of. None:
        no other has."""

    def keys(self) -> Iterator[pa.RecordBatch]:
        """Join keys, event and created time of all rows, no row left out.

        Raises:
            InvalidDataError: a key or time does not fit, or is null within the window asked for.
            OfflineStoreError: the table cannot be read.
        """

    def take(self, columns: Sequence[str], rows: Ints) -> pa.RecordBatch:
        """Features and layout of some rows.

        Args:
            rows: places within the piece, ascending, each once; one or more.

        Raises:
            InvalidDataError: a value does not fit, or the file was changed since it was listed.
            OfflineStoreError: the table cannot be read.
        """

    def rows(self, columns: Sequence[str], batch_rows: int = VALUE_ROWS) -> Iterator[pa.RecordBatch]:
        """Whole rows in `canonical_schema(rv, columns)`; of a source those of the window asked for alone.

        Args:
            batch_rows: read at a time; of them, a batch has those that are wanted.

        Raises:
            InvalidDataError: as `keys` and `take`, of any row of the window.
            OfflineStoreError: the table cannot be read.
        """


@dataclass(frozen=True, slots=True)
class SourcePiece:
    """A run of a source's file."""

    rv: RegisteredView
    scan: FileScan
    run: Run
    window: Window

    @property
    def n_rows(self) -> int:
        return self.run.n_rows

    @property
    def portable(self) -> bool:
        return not isinstance(self.scan.file.reader, Kept)

    @property
    def origin(self) -> Hashable | None:
        scan = self.scan
        keys = tuple(scan.values[name] for name in key_types(self.rv))
        of = (scan.source.name, scan.file.path, self.run.first_row, self.run.n_rows)
        return (*of, scan.event, scan.created, keys, scan.null_keys) if self.portable else None

    def keys(self) -> Iterator[pa.RecordBatch]:
        scan, row = self.scan, self.run.first_row
        names = list(key_types(self.rv))
        schema = pa.schema([field for field in canonical_schema(self.rv, []) if field.name != LAYOUT])
        with reading(scan.source, scan.file.path):
            wanted = scan.in_file([*scan.time_columns(), *scan.columns_of(names)])
            for batch in self.run.read(wanted, KEY_ROWS, False):
                rows = np.arange(row, row + batch.num_rows)
                row += batch.num_rows
                event, created = scan.times(batch, rows)
                keys = [scan.column(batch, name, rows) for name in names]
                if any(values.null_count for values in keys):
                    self._check_keys(keys, names, rows, self.window.keeps(event, created))
                times = [pa.array(values).cast(TIMESTAMP) for values in (event, created)]
                yield pa.RecordBatch.from_arrays([*keys, *times], schema=schema)

    def _check_keys(
        self, keys: Sequence[pa.Array], names: Sequence[str], rows: Ints, kept: npt.NDArray[np.bool_]
    ) -> None:
        for values, name in zip(keys, names, strict=True):
            self.scan.check_key(values.filter(pa.array(kept)), self.scan.values[name][0], rows[kept])

    def take(self, columns: Sequence[str], rows: Ints) -> pa.RecordBatch:
        scan = self.scan
        schema = _value_schema(self.rv, columns)

        def made(batch: pa.RecordBatch, at: Ints) -> pa.RecordBatch:
            found = [scan.column(batch, name, at + self.run.first_row) for name in columns]
            layout = pa.repeat(pa.scalar(scan.layout_id, pa.int32()), len(at))
            return pa.RecordBatch.from_arrays([*found, layout], schema=schema)

        with reading(scan.source, scan.file.path):
            wanted = scan.in_file(scan.columns_of(columns)) or scan.in_file(scan.time_columns())
            taken = _taken(self.run.read(wanted, VALUE_ROWS, False), rows, made)
            self._check_same(sum(batch.num_rows for batch in taken) >= len(rows))
        return _whole(taken)

    def rows(self, columns: Sequence[str], batch_rows: int = VALUE_ROWS) -> Iterator[pa.RecordBatch]:
        scan, row = self.scan, self.run.first_row
        schema = canonical_schema(self.rv, columns)
        with reading(scan.source, scan.file.path):
            for batch in self.run.read(scan.in_file(), batch_rows, False):
                if batch.num_rows and (made := scan.canonical(batch, row, self.window, schema)) is not None:
                    yield made
                row += batch.num_rows
            self._check_same(row - self.run.first_row >= self.n_rows)

    def _check_same(self, complete: bool) -> None:
        """Raise for a file that somebody wrote to since it was listed."""
        if not complete or self.scan.file.changed():
            raise InvalidDataError(
                "changed while it was read",
                where=f"source {self.scan.source.name!r}, file {self.scan.file.path!r}",
                hint="read it again when nobody writes to the source",
            )


@dataclass(frozen=True, slots=True)
class TablePiece:
    """A run of a file of an offline table; `stored` are the columns that the table has."""

    rv: RegisteredView
    uri: str
    stored: pa.Schema
    run: Run

    @property
    def n_rows(self) -> int:
        return self.run.n_rows

    @property
    def portable(self) -> bool:
        return True

    @property
    def origin(self) -> Hashable | None:
        return None  # a view's table is its own

    def keys(self) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([field for field in canonical_schema(self.rv, []) if field.name != LAYOUT])
        with tended(self.uri):
            for batch in self.run.read(schema.names, KEY_ROWS, False):
                yield conformed(batch, schema, self.rv)

    def take(self, columns: Sequence[str], rows: Ints) -> pa.RecordBatch:
        schema = _value_schema(self.rv, columns)
        present = [name for name in schema.names if name in self.stored.names]
        with tended(self.uri):
            batches = self.run.read(present, VALUE_ROWS, False)
            return _whole(_taken(batches, rows, lambda batch, _: conformed(batch, schema, self.rv)))

    def rows(self, columns: Sequence[str], batch_rows: int = VALUE_ROWS) -> Iterator[pa.RecordBatch]:
        schema = canonical_schema(self.rv, columns)
        present = [name for name in schema.names if name in self.stored.names]
        with tended(self.uri):
            for batch in self.run.read(present, batch_rows, False):
                yield conformed(batch, schema, self.rv)


class Kept:
    """A FileReader over an answer, in an unlinked temporary file: a sequence of Arrow messages."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._file = tempfile.TemporaryFile(prefix="fastserve-answer-")
        self._messages: list[tuple[int, int, int]] = []  # offset, bytes, rows

    @classmethod
    def of(cls, reader: FileReader, columns: Sequence[str]) -> Kept:
        """The answer's columns, read to the end."""
        made = cls(pa.schema([reader.schema.field(name) for name in columns]))
        for run in reader.runs(None):
            for batch in run.read(columns, VALUE_ROWS, True):
                made.add(batch)
        return made

    def add(self, batch: pa.RecordBatch) -> None:
        """Write the next rows."""
        if not batch.num_rows:
            return
        self.schema = batch.schema  # what came, whatever was announced
        data = batch.serialize()
        offset = self._messages[-1][0] + self._messages[-1][1] if self._messages else 0
        self._file.write(data)
        self._messages.append((offset, data.size, batch.num_rows))

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        self._file.flush()
        return [Run(0, sum(rows for _, _, rows in self._messages), self._read)]

    def _read(self, columns: Sequence[str], batch_rows: int, threads: bool) -> Iterator[pa.RecordBatch]:
        for offset, size, _ in self._messages:
            data = pa.py_buffer(os.pread(self._file.fileno(), size, offset))
            yield pa.ipc.read_record_batch(data, self.schema).select(list(columns))

    def __del__(self) -> None:
        self._file.close()


def source_pieces(
    files: Generator[DataFile],
    source: BatchSource,
    rv: RegisteredView,
    window: Window,
    columns: Sequence[str],
) -> list[Piece]:
    """The pieces of a source that may hold rows of the window; all `columns` are there, or have a default.

    A query or transform is asked once: its answer is kept on disk until the pieces are gone.
    """
    found: list[Piece] = []
    with closing(files):  # an answer that is not read to its end stops here
        for scan in file_scans(files, source, rv, columns):
            if not isinstance(source, FileSource):
                with reading(source, scan.file.path):
                    kept = Kept.of(scan.file.reader, scan.in_file())
                scan = replace(scan, file=replace(scan.file, reader=kept))
            found += [SourcePiece(rv, scan, run, window) for run in scan.runs(window)]
    return found


def table_pieces(table: OfflineTable, window: Window, version: int | None = None) -> list[Piece]:
    """The pieces of an offline table that may hold rows of the window, by Delta's and Parquet's statistics."""
    with tended(table.uri):
        found: list[Piece] = []
        for fragment, stored in table.files(window.start_us, window.end_us, version):
            prune = window.prune(stored, EVENT_TS, CREATED_TS)
            runs = ParquetReader(fragment, stored).runs(prune)
            found += [TablePiece(table.rv, table.uri, stored, run) for run in runs]
        return found


def _value_schema(rv: RegisteredView, columns: Sequence[str]) -> pa.Schema:
    full = canonical_schema(rv, columns)
    return pa.schema([full.field(name) for name in (*columns, LAYOUT)])


def _taken(
    batches: Iterator[pa.RecordBatch],
    rows: Ints,
    make: Callable[[pa.RecordBatch, Ints], pa.RecordBatch],
) -> list[pa.RecordBatch]:
    """Those rows alone, as `make` makes them; batches after the last are not read."""
    found: list[pa.RecordBatch] = []
    first = at = 0
    for batch in batches:
        last = int(np.searchsorted(rows, first + batch.num_rows))
        if last > at:
            mine = rows[at:last]
            picked = batch if last - at == batch.num_rows else batch.take(pa.array(mine - first))
            found.append(make(picked, mine))
        first, at = first + batch.num_rows, last
        if at == len(rows):
            break
    return found


def _whole(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """In one, which holds no more memory than it says: a slice holds all of what it is of."""
    one = batches[0] if len(batches) == 1 else None
    if one is not None and one.get_total_buffer_size() <= 1.25 * one.nbytes:
        return one
    return pa.concat_batches(batches)
