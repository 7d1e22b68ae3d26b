"""The rules that sources must obey, as far as they can be told without reading anything; part of validate.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from fastserve.definitions.inputs import FORMATS, FileInput, PostgresInput
from fastserve.definitions.source import (
    RUN_TIMES,
    BatchSource,
    FileSource,
    Source,
    SQLSource,
    TransformSource,
    batch_source,
)
from fastserve.errors import Problem
from fastserve.types import parse_dtype

_TABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_POSTGRES_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_source(where: str, source: Source) -> Iterator[Problem]:
    """What is wrong with one source, but for its name."""
    rows = batch_source(source)
    if rows is None:
        return
    if not rows.timestamp_field:
        yield Problem(where, "has no timestamp_field", "name the column with the event time")
    if isinstance(rows, FileSource):
        yield from _check_files(where, rows)
        return
    yield from _check_inputs(where, rows)
    if isinstance(rows, SQLSource):
        yield from _check_query(where, rows)
    elif isinstance(rows, TransformSource) and not _is_function(rows.function):
        yield Problem(
            where, f"function {rows.function!r} is no MODULE:NAME", "declare it with @batch_feature_view"
        )


def _check_files(where: str, files: FileSource) -> Iterator[Problem]:
    if not files.path:
        yield Problem(where, "has an empty path", "name a file, a directory or an URL")
    if files.format not in FORMATS:
        yield Problem(where, f"unknown format {files.format!r}", f"use one of {', '.join(FORMATS)}")
    if len(set(files.field_mapping.values())) != len(files.field_mapping):
        yield Problem(where, "field_mapping maps two columns to one name", "map each to its own")


def _check_query(where: str, source: SQLSource) -> Iterator[Problem]:
    if not isinstance(source.query, str) or not source.query.strip():
        yield Problem(where, "has no query", "write a SELECT over its inputs")
    for name, value in source.parameters.items():
        if not _TABLE.fullmatch(str(name)) or name in RUN_TIMES:
            fix = f"use letters, digits and _, and not {', '.join(RUN_TIMES)}"
            yield Problem(where, f"parameter {name!r} is not a usable name", fix)
        if not isinstance(value, (bool, int, float, str)):
            yield Problem(where, f"parameter {name!r} is a {type(value).__name__}", "a number, text or bool")


def _check_inputs(where: str, source: BatchSource) -> Iterator[Problem]:
    assert not isinstance(source, FileSource)
    if not source.inputs:
        yield Problem(
            where, "has no inputs", 'name what it reads: inputs={"trips": FileInput("trips.parquet")}'
        )
    lower = [str(name).lower() for name in source.inputs]
    for name, given in source.inputs.items():
        place = f"{where}, input {name!r}"
        if not _TABLE.fullmatch(str(name)) or lower.count(str(name).lower()) > 1:
            yield Problem(
                place, "is not a usable name", "letters, digits and _, and no two that differ in case"
            )
        if isinstance(given, FileInput):
            yield from _check_file_input(place, given)
        elif isinstance(given, PostgresInput):
            yield from _check_postgres(place, given)
        else:
            yield Problem(place, f"is a {type(given).__name__}", "give a FileInput or a PostgresInput")


def _check_file_input(where: str, files: FileInput) -> Iterator[Problem]:
    if not files.path:
        yield Problem(where, "has an empty path", "name a file, a directory or an URL")
    if files.format not in FORMATS:
        yield Problem(where, f"unknown format {files.format!r}", f"use one of {', '.join(FORMATS)}")
    if files.columns and files.format != "csv":
        yield Problem(where, f"columns= is for CSV; {files.format} has types of its own", "leave columns out")
    for column, dtype in files.columns.items():
        try:
            parse_dtype(dtype)
        except ValueError as error:
            yield Problem(f"{where}, column {column!r}", str(error), "use a type of fastserve.types")


def _check_postgres(where: str, given: PostgresInput) -> Iterator[Problem]:
    if not _VARIABLE.fullmatch(given.url_env):
        yield Problem(
            where,
            "url_env is not the name of an environment variable",
            "definitions hold no URLs, whose passwords the registry would show: name the variable that does",
        )
    if bool(given.table) == bool(given.query):
        yield Problem(where, "has a table and a query, or neither", "give table= or query=")
    if given.table and not _POSTGRES_TABLE.fullmatch(given.table):
        yield Problem(
            where, f"table {given.table!r} is no name", "write table or schema.table, or use query="
        )


def _is_function(text: str) -> bool:
    module, _, name = text.partition(":")
    return module.isidentifier() and name.isidentifier()
