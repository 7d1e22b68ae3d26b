"""One query, from its definition to rows:

    inputs   Arrow data sets and spooled tables                        offline/inputs.py
    engine   DuckDB, locked: it reaches nothing but those              engine.py
    text     checked again: what a registry holds may be older         grammar.py
    answer   the wanted times only, by time and then by all columns    here
    rows     cast and checked as those of a file                       offline/source.py

DuckDB works on a thread of its own and one batch ahead; the caller's thread waits, and looks whether to stop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from fastserve.definitions import SQLSource
from fastserve.errors import DefinitionError, InvalidDataError
from fastserve.offline.files import Batches, DataFile, Run
from fastserve.offline.inputs import open_inputs
from fastserve.offline.options import ReadOptions
from fastserve.offline.sql.engine import connected, load_duckdb, lock, quoted
from fastserve.offline.sql.grammar import as_table, parse
from fastserve.offline.times import moment, run_times
from fastserve.offline.watched import Watched
from fastserve.offline.window import Window


def open_query(source: SQLSource, repo: Path, window: Window, options: ReadOptions) -> Generator[DataFile]:
    """The query's answer as the one file of a source.

    Raises:
        ConfigError: DuckDB, a driver or a variable is missing.
        DefinitionError: the query may not be asked.
        InvalidDataError: an input cannot be read, or the query fails on it.
    """
    where = f"source {source.name!r}"
    with (
        tempfile.TemporaryDirectory(prefix="fastserve-sql-") as folder,
        connected(options.memory, Path(folder)) as connection,
        Watched(options.check) as watched,
    ):
        watched.cancel.always(connection.interrupt)
        parsed = parse(connection, source, where)
        if parsed.problems:
            raise DefinitionError(parsed.problems)
        times = run_times(source, parsed.parameters, window, options)
        texts = {name: moment.isoformat() for name, moment in times.items()}

        def opened() -> dict[str, Any]:
            return open_inputs(source.inputs, repo, Path(folder), options, texts, watched.cancel)

        for name, table in watched.do(opened).items():
            connection.register(name, table)
        lock(connection)
        given = {name: value for name, value in _given(source, times).items() if name in parsed.parameters}
        yield DataFile("query", _Answer(connection, watched, source, window, given))


def _given(source: SQLSource, times: Mapping[str, datetime]) -> dict[str, Any]:
    return {**source.parameters, **times}


def answer_schema(connection: Any, source: SQLSource, given: Mapping[str, Any]) -> pa.Schema:
    """The columns of a query's answer; no row is read."""
    made = connection.sql(f"{as_table(source.query)} LIMIT 0", params=dict(given)).to_arrow_table()
    schema: pa.Schema = made.schema
    return schema


class _Answer:
    """A FileReader over a query."""

    def __init__(
        self, connection: Any, watched: Watched, source: SQLSource, window: Window, given: Mapping[str, Any]
    ) -> None:
        self._connection = connection
        self._watched = watched
        self._source = source
        self._window = window
        self._given = given
        with saying(source):
            self.schema = watched.do(lambda: answer_schema(connection, source, given))

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        """The wanted rows of the answer, asked for each time that they are read."""
        return [Run(0, 0, self._read)]

    def _read(self, columns: Sequence[str], batch_rows: int, threads: bool) -> Batches:
        text, bounds = self._text(columns)
        watched = self._watched

        def begin() -> Any:
            answer = self._connection.sql(text, params={**self._given, **bounds})
            return answer.to_arrow_reader(batch_rows)  # executed as it is read

        with saying(self._source):
            reader = watched.do(begin)
            ahead: Future[pa.RecordBatch | None] = watched.start(lambda: _next(reader))
            while (batch := watched.wait(ahead)) is not None:
                ahead = watched.start(lambda: _next(reader))
                yield batch

    def _text(self, columns: Sequence[str]) -> tuple[str, dict[str, datetime]]:
        """The query with the window's bounds and an order that only equal rows share."""
        source, schema = self._source, self.schema
        times = [source.timestamp_field]
        if source.created_timestamp_column in schema.names:
            times.append(source.created_timestamp_column)
        condition, bounds = _bounds(source, schema, self._window)
        order = [*times, *(name for name in schema.names if name not in times)]
        return (
            f"SELECT {', '.join(map(quoted, columns))} FROM ({as_table(source.query)}){condition}"
            f" ORDER BY {', '.join(map(quoted, order))}",
            bounds,
        )


def _next(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def _bounds(source: SQLSource, schema: pa.Schema, window: Window) -> tuple[str, dict[str, datetime]]:
    """The window as a WHERE, as far as the answer's types let it be told to DuckDB; scan_files does the rest."""
    event, created = source.timestamp_field, source.created_timestamp_column or source.timestamp_field
    if not (_is_time(schema, event) and _is_time(schema, created)):
        return "", {}
    terms, bounds = [], {}
    if window.end_us is not None:
        terms.append(f"{quoted(event)} < $__end")
        bounds["__end"] = moment(window.end_us)
    if window.start_us is not None:
        term = f"{quoted(event)} >= $__start"
        bounds["__start"] = moment(window.start_us)
        if window.created_after_us is not None:
            term = f"({term} OR coalesce({quoted(created)}, {quoted(event)}) > $__created_after)"
            bounds["__created_after"] = moment(window.created_after_us)
        terms.append(term)
    # A null time is an error that names its row: it must come through.
    return (f" WHERE {quoted(event)} IS NULL OR ({' AND '.join(terms)})" if terms else ""), bounds


def _is_time(schema: pa.Schema, column: str) -> bool:
    if column not in schema.names:
        return False
    kind = schema.field(column).type
    return bool(pa.types.is_timestamp(kind) and kind.unit == "us")


@contextmanager
def saying(source: SQLSource) -> Generator[None]:
    """What DuckDB raises, as InvalidDataError."""
    duckdb = load_duckdb()
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InvalidDataError(
            str(error),
            where=f"source {source.name!r}",
            hint="give DuckDB more by sql_memory in fastserve.toml",
        ) from None
    except duckdb.Error as error:
        raise InvalidDataError(
            str(error), where=f"source {source.name!r}", hint="mend the query, or the input that it fails on"
        ) from None
