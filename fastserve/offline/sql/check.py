"""What is wrong with queries, told when they are applied: their text, and the types of what they answer."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import (
    AggregatedFeatureView,
    Definition,
    Entity,
    FeatureView,
    PostgresInput,
    SQLSource,
    batch_source,
)
from fastserve.definitions.validate import join_keys_of, label
from fastserve.errors import DefinitionError, FastserveError, InvalidDataError, Problem
from fastserve.offline.cast import cast_column
from fastserve.offline.events import event_columns
from fastserve.offline.inputs import empty_files
from fastserve.offline.options import READ
from fastserve.offline.sql.engine import connected, load_duckdb, lock
from fastserve.offline.sql.grammar import parse
from fastserve.offline.sql.query import answer_schema
from fastserve.offline.times import run_times
from fastserve.offline.window import Window
from fastserve.registry import Snapshot
from fastserve.types import Timestamp, parse_dtype

log = logging.getLogger(__name__)


def check_queries(objects: Sequence[Definition], current: Snapshot, config: Config) -> None:
    """Check the query of every view that is new or changed. No row is read: of files their heads, of PostgreSQL types.

    Where an input is not there yet, only the query's text is checked, and a warning says so.

    Raises:
        DefinitionError: all problems.
        ConfigError: DuckDB is not installed.
    """
    entities = {**current.entities, **{o.name: o for o in objects if isinstance(o, Entity)}}
    problems: list[Problem] = []
    for view in objects:
        source = batch_source(view.source) if isinstance(view, FeatureView) else None
        if not isinstance(view, FeatureView) or not isinstance(source, SQLSource):
            continue
        known = current.views.get((view.name, view.version))
        if known is None or (known.view.source, known.view.schema) != (view.source, view.schema):
            problems += _problems(view, source, entities, config)
    if problems:
        raise DefinitionError(problems)


def _problems(
    view: FeatureView, source: SQLSource, entities: Mapping[str, Entity], config: Config
) -> Iterator[Problem]:
    where = f"{label(view)}, query of source {source.name!r}"
    with (
        tempfile.TemporaryDirectory(prefix="fastserve-sql-") as folder,
        connected(config.sql_memory, Path(folder)) as connection,
    ):
        parsed = parse(connection, source, where)
        if parsed.problems:
            yield from parsed.problems
            return
        times = run_times(source, parsed.parameters, Window(), READ)
        try:
            for name, table in _empty_inputs(source, config, times).items():
                connection.register(name, table)
        except FastserveError as error:
            log.warning("%s is checked in part only, until it runs: %s", where, error)
            return
        lock(connection)
        given = {n: v for n, v in {**source.parameters, **times}.items() if n in parsed.parameters}
        try:
            connection.sql(source.query, params=given)  # not within another SELECT: its lines are the user's
            schema = answer_schema(connection, source, given)
        except load_duckdb().Error as error:
            yield Problem(where, str(error), "mend the query, or declare the input that it means")
            return
    yield from _type_problems(where, view, source, schema, join_keys_of(view, dict(entities)))


def _empty_inputs(source: SQLSource, config: Config, times: Mapping[str, Any]) -> dict[str, pa.Table]:
    texts = {name: moment.isoformat() for name, moment in times.items()}
    made = {}
    for name, given in source.inputs.items():
        if isinstance(given, PostgresInput):
            from fastserve.offline.postgres import schema_of  # noqa: PLC0415  (an extra)

            made[name] = schema_of(given.url_env, given, texts, f"input {name!r}").empty_table()
        else:
            made[name] = empty_files(given, config.repo)
    return made


def _type_problems(
    where: str, view: FeatureView, source: SQLSource, schema: pa.Schema, keys: Mapping[str, str]
) -> Iterator[Problem]:
    wanted = {name: parse_dtype(dtype) for name, dtype in keys.items()}
    if isinstance(view, AggregatedFeatureView):
        wanted |= {name: parse_dtype(dtype) for name, dtype in event_columns(view).items()}
    else:
        wanted |= {field.name: parse_dtype(field.dtype) for field in view.schema}
    times = (source.timestamp_field, source.created_timestamp_column)
    wanted |= {name: Timestamp for name in times if name}
    for name, dtype in wanted.items():
        count = schema.names.count(name)
        if count != 1:
            message = f"answers no column {name!r}" if not count else f"answers {count} columns {name!r}"
            yield Problem(where, message, f"SELECT … AS {name}; it answers {', '.join(schema.names)}")
            continue
        try:
            cast_column(pa.array([], schema.field(name).type), dtype, lambda i: "")
        except (InvalidDataError, pa.ArrowException) as error:
            message = error.message if isinstance(error, InvalidDataError) else str(error)
            yield Problem(f"{where}, column {name!r}", message, f"declare another type, or CAST({name} AS …)")
