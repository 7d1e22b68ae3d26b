"""Declared inputs of queries and transforms, opened as Arrow: data sets that are read in part, or spooled tables.

    Parquet, Arrow, Delta   a data set: only the columns and rows that a query needs are read
    CSV, PostgreSQL         read once into an unlinked Arrow IPC file of TMPDIR, which is mapped into memory: CSV so
                            that its text is taken as that of any source (cast.py), PostgreSQL so that all inputs of
                            one URL are one snapshot, however often a query reads them

Files are read by ascending path, as those of a FileSource.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from fastserve.definitions import FileInput, Input, PostgresInput
from fastserve.errors import InvalidDataError
from fastserve.offline.cast import cast_column
from fastserve.offline.files import (
    CSV_NULLS,
    delta_uri,
    open_files,
    path_columns,
    reading,
    runs_of,
    source_paths,
)
from fastserve.offline.options import Pin, ReadOptions, Spooled
from fastserve.offline.watched import Cancel
from fastserve.types import arrow_type, parse_dtype

Table: TypeAlias = ds.Dataset | pa.Table

_CSV_ROWS: Final = 65_536
_SCAN_ROWS: Final = 65_536


def open_inputs(
    inputs: Mapping[str, Input],
    repo: Path,
    directory: Path,
    options: ReadOptions,
    times: Mapping[str, str],
    cancel: Cancel,
) -> dict[str, Table]:
    """Every input by name.

    Args:
        directory: for what is spooled.
        times: what PostgreSQL's queries are told: name -> text.
        cancel: told how to end what runs in PostgreSQL.

    Raises:
        InvalidDataError: an input is not there or cannot be read.
        ConfigError: PostgreSQL's URL or driver is missing.
    """
    made: dict[str, Table] = {}
    databases: dict[str, dict[str, PostgresInput]] = {}
    for name, given in inputs.items():
        if isinstance(given, PostgresInput):
            databases.setdefault(given.url_env, {})[name] = given
        else:
            made[name] = _open_files(given, repo, directory, options.pins.get(name, Pin()), options.check)
    for url_env, asked in databases.items():
        from fastserve.offline.postgres import read_postgres  # noqa: PLC0415  (an extra)

        for name, batches in read_postgres(url_env, asked, times, cancel):
            made[name], spooled = spool(batches, directory / f"{name}.arrow")
            if options.spooled is not None:
                options.spooled(name, spooled)
    return {name: made[name] for name in inputs}


def empty_files(given: FileInput, repo: Path) -> pa.Table:
    """A file input without its rows: only heads of files are read."""
    if given.format == "csv":
        first = next(open_files(given, repo))
        return _csv_schema(given, first.reader.schema.names).empty_table()
    return _dataset(given, repo, Pin()).schema.empty_table()


def _open_files(given: FileInput, repo: Path, directory: Path, pin: Pin, check: Callable[[], None]) -> Table:
    if given.format != "csv":
        return _dataset(given, repo, pin)
    files = open_files(given, repo, only=pin.files)
    digest = hashlib.sha256(given.path.encode()).hexdigest()[:16]
    table, _ = spool(_csv_batches(given, files, check), directory / f"{digest}.arrow")
    return table


def _dataset(given: FileInput, repo: Path, pin: Pin) -> ds.Dataset:
    with reading(given, given.path):
        if given.format == "delta":
            made = DeltaTable(delta_uri(given, repo), version=pin.version).to_pyarrow_dataset()
            return _Bounded.of(made, made.schema)
        filesystem, root, paths = source_paths(given, repo, pin.files)
        named = path_columns(root, paths)
        parts = (
            ds.partitioning(pa.schema([(n, pa.string()) for n in named]), flavor="hive") if named else None
        )
        kind = {"arrow": "ipc"}.get(given.format, given.format)
        made = ds.dataset(
            paths, format=kind, filesystem=filesystem, partitioning=parts, partition_base_dir=root
        )
        schemas = [made.schema, *(fragment.physical_schema for fragment in made.get_fragments())]
        return _Bounded.of(made, pa.unify_schemas(schemas))  # a column may be in later files only


class _Bounded(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """A data set that is scanned part by part: Arrow keeps what it read of a scan until the scan ends."""

    @classmethod
    def of(cls, made: ds.Dataset, schema: pa.Schema) -> _Bounded:
        """The same data set, with perhaps more columns."""
        fragments = sorted(made.get_fragments(), key=lambda fragment: str(fragment.path))
        bounded: _Bounded = cls(fragments, schema, made.format, made.filesystem)
        return bounded

    def scanner(self, **options: Any) -> _Scan:
        """As DuckDB asks for it: columns, and a filter."""
        return _Scan(self, options)


@dataclass(frozen=True, slots=True)
class _Scan:
    """What DuckDB needs of a scanner."""

    dataset: ds.Dataset
    options: Mapping[str, Any]

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows by file and place in the file."""
        whole = self._of(self.dataset)
        return pa.RecordBatchReader.from_batches(whole.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for fragment in self.dataset.get_fragments(self.options.get("filter")):
            for part in self._parts(fragment):
                yield from self._of(part, self.dataset.schema).to_batches()

    def _parts(self, fragment: ds.Fragment) -> Iterator[ds.Fragment]:
        """A Parquet file by runs of row groups; other files as they are."""
        if not isinstance(fragment, ds.ParquetFileFragment):
            yield fragment
            return
        for run in runs_of(fragment, self.options.get("filter"), self.dataset.schema):
            yield fragment.subset(row_group_ids=run)

    def _of(self, data: Any, *schema: pa.Schema) -> ds.Scanner:
        few = {"batch_size": _SCAN_ROWS, "batch_readahead": 4, "fragment_readahead": 1}
        make = ds.Scanner.from_fragment if schema else ds.Scanner.from_dataset
        named = {"schema": schema[0]} if schema else {}
        return make(data, **named, **few, **self.options)


# ---- spooling ------------------------------------------------------------------------------------


def spool(batches: Iterator[pa.RecordBatch | pa.Schema], path: Path) -> tuple[pa.Table, Spooled]:
    """A schema and then rows, through a file that nobody else sees, as a table that is mapped rather than held."""
    schema: Any = next(batches)
    digest, rows = hashlib.sha256(schema.serialize()), 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            for column in batch.columns:
                for buffer in _compact(column).buffers():
                    digest.update(b"-" if buffer is None else memoryview(buffer))
            rows += batch.num_rows
            writer.write_batch(batch)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    finally:
        path.unlink()
    return table, Spooled(rows, digest.hexdigest())


def _compact(column: pa.Array) -> pa.Array:
    """Without what a slice leaves out, so that equal rows are equal bytes."""
    return column if column.offset == 0 else pa.concat_arrays([column])


def _csv_schema(given: FileInput, names: Iterable[str]) -> pa.Schema:
    types = {name: arrow_type(parse_dtype(dtype)) for name, dtype in given.columns.items()}
    return pa.schema([(name, types.get(name, pa.string())) for name in names])


def _csv_batches(
    given: FileInput, files: Iterable[Any], check: Callable[[], None]
) -> Iterator[pa.RecordBatch | pa.Schema]:
    schema: pa.Schema | None = None
    for file in files:
        names = list(file.reader.schema.names)
        if schema is None:
            schema = _csv_schema(given, [*names, *(n for n in file.partition if n not in names)])
            _check_columns(given, file.path, schema.names)
            yield schema
        missing = sorted(set(schema.names) - {*names, *file.partition})
        if missing:
            raise InvalidDataError(
                f"has no column {missing[0]!r}, which the first file has",
                where=f"input {given.path!r}, file {file.path!r}",
                hint="give the files of an input the same columns",
            )
        with reading(given, file.path):
            row = 0
            for run in file.reader.runs(None):
                for batch in run.read(names, _CSV_ROWS, True):
                    check()
                    yield _typed(given, file, batch, row, schema)
                    row += batch.num_rows


def _typed(
    given: FileInput, file: Any, batch: pa.RecordBatch, first: int, schema: pa.Schema
) -> pa.RecordBatch:
    columns = []
    for name in schema.names:
        if name in batch.schema.names:
            values = batch.column(name)
        else:
            values = pa.repeat(pa.scalar(file.partition[name], pa.string()), batch.num_rows)
        if name in given.columns:
            dtype = parse_dtype(given.columns[name])
            if dtype.item not in ("string", "bytes"):
                nulls = pc.is_in(values, pa.array(CSV_NULLS))
                values = pc.if_else(nulls, pa.scalar(None, pa.string()), values)

            def place(i: int, name: str = name) -> str:
                return f"input {given.path!r}, file {file.path!r}, column {name!r}, row {first + i}"

            values = cast_column(values, dtype, place)
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _check_columns(given: FileInput, path: str, names: list[str]) -> None:
    for column in given.columns:
        if column not in names:
            raise InvalidDataError(
                f"has no column {column!r}, whose type is declared",
                where=f"input {given.path!r}, file {path!r}",
                hint=f"its columns: {', '.join(names)}",
            )
