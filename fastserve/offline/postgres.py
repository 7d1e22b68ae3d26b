"""PostgreSQL as an input: Arrow by ADBC, one read-only transaction a database: all its inputs are one snapshot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import pyarrow as pa

from fastserve.definitions import PostgresInput
from fastserve.errors import ConfigError, InvalidDataError
from fastserve.offline.watched import Cancel

_SESSION: Final = (
    "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL TimeZone = 'UTC'",
    # Rows come in the table's order, whatever else is read meanwhile: float sums depend on it.
    "SET LOCAL synchronize_seqscans = off",
    "SET LOCAL max_parallel_workers_per_gather = 0",
)
_PASSWORD: Final = re.compile(r"(://[^:/@\s]*:)[^@\s]*@|(password\s*=\s*)('[^']*'|\S+)", re.IGNORECASE)


def read_postgres(
    url_env: str, inputs: Mapping[str, PostgresInput], times: Mapping[str, str], cancel: Cancel
) -> Iterator[tuple[str, Iterator[pa.RecordBatch | pa.Schema]]]:
    """The inputs of one database in turn: name, and its schema followed by its rows; read one before the next.

    Args:
        times: what ``current_setting('fastserve.NAME')`` answers.
        cancel: told how to end a query that runs.

    Raises:
        ConfigError: the variable is not set, or there is no driver.
        InvalidDataError: no connection, or what the server says of a query.
    """
    with _connected(url_env) as connection:
        with connection.cursor() as cursor, _saying(f"PostgreSQL of ${url_env}"):
            _begin(cursor, times)
        for name, given in inputs.items():
            where = f"input {name!r}, PostgreSQL of ${url_env}"
            with connection.cursor() as cursor, _saying(where):
                with cancel.by(cursor.adbc_cancel):
                    cursor.execute(_query(given))
                    yield name, _rows(cursor, where)


def schema_of(url_env: str, given: PostgresInput, times: Mapping[str, str], where: str) -> pa.Schema:
    """The columns of an input; no row is read."""
    with _connected(url_env) as connection, connection.cursor() as cursor, _saying(where):
        _begin(cursor, times)
        cursor.execute(f"SELECT * FROM (\n{_query(given)}\n) AS answer LIMIT 0")
        return cursor.fetch_record_batch().schema


def _query(given: PostgresInput) -> str:
    if given.query:
        return given.query.strip().rstrip(";")
    parts = (part.replace('"', '""') for part in given.table.split("."))
    return "SELECT * FROM " + ".".join(f'"{part}"' for part in parts)


def _begin(cursor: Any, times: Mapping[str, str]) -> None:
    for statement in _SESSION:
        cursor.execute(statement)
    for name, text in times.items():
        cursor.execute("SELECT set_config($1, $2, true)", (f"fastserve.{name}", text))
        cursor.fetchall()


def _rows(cursor: Any, where: str) -> Iterator[pa.RecordBatch | pa.Schema]:
    with _saying(where):
        reader = cursor.fetch_record_batch()
        yield reader.schema
        yield from reader


@contextmanager
def _connected(url_env: str) -> Iterator[Any]:
    try:
        from adbc_driver_postgresql import dbapi  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError(
            "PostgreSQL inputs need ADBC's driver, which is not installed",
            hint="pip install 'fastserve[sql]'",
        ) from None
    url = os.environ.get(url_env, "")
    if not url:
        raise ConfigError(
            f"the environment variable {url_env} is not set",
            where=f"PostgresInput({url_env!r})",
            hint=f"set {url_env} to postgresql://user:password@host/database",
        )
    with _saying(f"PostgreSQL of ${url_env}"):
        connection = dbapi.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        with suppress(Exception):  # the transaction read only: nothing is lost with it
            connection.close()


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """What the driver raises, as InvalidDataError; never with the URL's password."""
    from adbc_driver_manager import Error  # noqa: PLC0415

    try:
        yield
    except (Error, pa.ArrowException, OSError) as error:
        text = _PASSWORD.sub(lambda m: f"{m[1] or ''}{m[2] or ''}***{'@' if m[1] else ''}", str(error))
        raise InvalidDataError(
            text.strip(), where=where, hint="check the URL, the table or query, and the role"
        ) from None
