"""Connections to the registry's database: SQLite or PostgreSQL, and their errors in our words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event, exc

from fastserve.errors import ConfigError, RegistryError

BUSY_S: Final = 60
_CONNECT_S: Final = 10
_WRITE: Final = "fastserve_write"
_FORMS: Final = "write sqlite:////absolute/path.db or postgresql://user:password@host/database"


class Database:
    """An engine with the two kinds of transaction the registry needs.

    Attributes:
        path: the SQLite file; None for PostgreSQL.
        shown: the URL as messages may show it: without user, password and options.
    """

    def __init__(self, engine: sa.Engine, path: Path | None, shown: str) -> None:
        self.engine = engine
        self.path = path
        self.shown = shown
        self._pid = os.getpid()
        self._file: tuple[int, int] | None = None
        self._watches: dict[int, sqlite3.Connection] = {}  # by process: one that was inherited is left alone
        # Temporal rows make several autocommitted SELECTs consistent: a revision never changes.
        self._reader = engine if path else engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for SELECTs; RegistryError on failure."""
        with self._mapped(), self._checked(self._reader).connect() as connection:
            self._check_file()
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back on any error; RegistryError on failure.

        SQLite takes the write lock at the start (BEGIN IMMEDIATE): a transaction that reads first and
        writes later could otherwise not be upgraded once another process has written.
        """
        with self._mapped():
            engine = self._checked(self.engine).execution_options(**{_WRITE: True})
            with engine.begin() as connection:
                yield connection

    def dedicated(self) -> sa.Connection:
        """A PostgreSQL connection outside the pool, autocommitting, for what lives as long as it does."""
        with self._mapped():
            connection = self._checked(self._reader).connect()
            connection.detach()
            return connection

    def data_version(self) -> int | None:
        """A number that every commit changes, for a small part of what a SELECT costs; None where there is none.

        SQLite's `PRAGMA data_version`, on a connection that never writes.

        Raises:
            RegistryError: the file is gone, or cannot be read.
        """
        if self.path is None:
            return None
        self._check_file()
        try:
            if os.getpid() not in self._watches:
                where = f"{self.path.as_uri()}?mode=rw"
                opened = sqlite3.connect(where, BUSY_S, uri=True, check_same_thread=False)
                self._watches[os.getpid()] = opened
            (version,) = self._watches[os.getpid()].execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise self.error(error) from None
        return int(version)

    def close(self) -> None:
        """Close all connections."""
        watch = self._watches.pop(os.getpid(), None)
        if watch is not None:
            watch.close()
        self.engine.dispose()

    def error(self, error: Exception) -> RegistryError:
        """The same failure as our error: no traceback of the driver, no password."""
        cause = getattr(error, "orig", None) or error
        text = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        password = self.engine.url.password
        if password:
            text = text.replace(str(password), "***")
        return RegistryError(text, where=f"registry {self.shown}", hint=self._hint(text))

    def _hint(self, text: str) -> str:
        if self.path is None:
            return "is the server up, does the database exist, and may this user write to it?"
        if "locked" in text:
            return f"another process held the write lock for {BUSY_S} s; try again"
        if "not a database" in text:
            return "the file is something else; name another path for the registry"
        return "is the directory there, on a local disk, and writable?"

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise self.error(error) from None

    def _check_file(self) -> None:
        """A connection to a deleted SQLite file reads well for ever; a long-lived reader must not."""
        if self.path is None:
            return
        try:
            found = self.path.stat()
        except OSError:
            identity = None
        else:
            identity = found.st_dev, found.st_ino
        self._file = self._file or identity
        if identity is None or identity != self._file:
            raise RegistryError(
                "the file was removed or replaced since it was opened",
                where=f"registry {self.shown}",
                hint="put it back, or start again to open the new one",
            )

    def _checked(self, engine: sa.Engine) -> sa.Engine:
        """The engine; after a fork without the parent's connections, which are not ours to use."""
        if os.getpid() != self._pid:
            self.engine.dispose(close=False)
            self._pid = os.getpid()
        return engine


def open_database(url: str) -> Database:
    """The database that a URL names; a SQLite file's directory is made. Connects to nothing yet.

    Raises:
        ConfigError: the URL is malformed, of another kind, or its driver is not installed.
    """
    scheme, separator, _ = url.partition("://")
    where = f"registry {scheme}://…" if separator else "registry"
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and separator:
        return _postgres(f"postgresql+psycopg{url[len(scheme) :]}", where)
    if scheme == "sqlite" and separator:
        return _sqlite(url.removeprefix("sqlite://"), where)
    raise ConfigError("is no registry URL", where=where, hint=_FORMS)


def _postgres(url: str, where: str) -> Database:
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ConfigError("cannot be parsed as an URL", where=where, hint=_FORMS) from None
    port = f":{parsed.port}" if parsed.port else ""
    shown = f"postgresql://{parsed.host or ''}{port}/{parsed.database or ''}"
    try:
        engine = sa.create_engine(
            parsed,
            pool_size=2,
            max_overflow=8,
            pool_pre_ping=True,
            connect_args={"connect_timeout": _CONNECT_S},
        )
    except ImportError:
        raise ConfigError(
            "needs the psycopg driver", where=where, hint="pip install 'fastserve[postgres]'"
        ) from None
    return Database(engine, None, shown)


def _sqlite(rest: str, where: str) -> Database:
    name = rest.removeprefix("/")  # taken as it is: a path may hold ?, # and %
    if not rest.startswith("/") or name in ("", ":memory:"):
        raise ConfigError("names no file", where=where, hint="write sqlite:////absolute/path.db")
    path = Path(name).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(
            f"cannot make the directory: {error.strerror}", where=f"registry {path}"
        ) from None
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return Database(engine, path, str(path))


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin on its own: _on_begin does
    connection.execute("PRAGMA foreign_keys=ON")


def _on_begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
