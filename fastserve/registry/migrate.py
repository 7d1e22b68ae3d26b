"""Bring a registry database to this release's schema. Costs one SELECT when it is there already."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import exc

from fastserve.errors import RegistryError
from fastserve.registry.engine import BUSY_S, Database
from fastserve.registry.schema import HEAD, VERSION_TABLE, meta

_LOCK: Final = 0x66617374  # "fast": the key of the PostgreSQL advisory lock of migrations
_VERSION: Final = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))
_STATE: Final = sa.select(_VERSION.c.version_num, meta.c.value).select_from(
    _VERSION.join(meta, meta.c.key == "registry_id")
)


def ensure_schema(database: Database) -> str:
    """Migrate if the stored schema is behind; returns the registry's id.

    Processes that find it behind at the same time migrate one after the other; all but the first find
    nothing left to do.

    Raises:
        RegistryError: unreachable, not a database, not writable, or written by a newer fastserve.
    """
    state = _state(database)
    if state is None or state[0] != HEAD:
        _check_known(database, state)
        _migrate(database)
        state = _state(database)
        assert state is not None
    return state[1]


def _state(database: Database) -> tuple[str, str] | None:
    """(schema version, registry id); None when there are no tables yet."""
    try:
        with database.engine.connect() as connection:
            row = connection.execute(_STATE).one_or_none()
    except exc.DBAPIError as error:
        # SQLite says OperationalError for a missing table, PostgreSQL ProgrammingError (42P01).
        if "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", "") == "42P01":
            return None
        raise database.error(error) from None
    except exc.SQLAlchemyError as error:
        raise database.error(error) from None
    return (row[0], row[1]) if row else None


def _check_known(database: Database, state: tuple[str, str] | None) -> None:
    if state is not None and state[0] > HEAD:
        raise RegistryError(
            f"has schema {state[0]}; this fastserve knows up to {HEAD}",
            where=f"registry {database.shown}",
            hint="upgrade fastserve: a newer one has migrated this registry",
        )


def _migrate(database: Database) -> None:
    if database.path is not None:
        _turn_on_wal(database)
    with database.write() as connection:  # SQLite: one writer at a time, from BEGIN on
        if database.path is None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        _upgrade(connection)


def _turn_on_wal(database: Database) -> None:
    """Readers and one writer at once; stored in the file.

    Of two processes that do this to a new file at the same time SQLite refuses one, without waiting for the
    busy time-out.
    """
    deadline = time.monotonic() + BUSY_S
    with database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        while True:
            try:
                raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.Error as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise database.error(error) from None
            time.sleep(0.01)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415  (only a registry that is behind pays for it)
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    directory = str(Path(__file__).with_name("migrations")).replace("%", "%%")
    config.set_main_option("script_location", directory)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
