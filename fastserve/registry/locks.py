"""One run per view, one rewrite of its files, one process per job, everywhere. Locks end with their process.

SQLite: `flock` on a file beside the database. PostgreSQL: a session advisory lock on a connection of its own
(behind a pooler that shares sessions, such as pgbouncer in transaction mode, such a lock holds nothing).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa
from sqlalchemy import exc

from fastserve.errors import AlreadyRunningError, RegistryError
from fastserve.registry.engine import Database
from fastserve.timeutil import MICROS, format_timestamp, now_us

_VIEWS: Final = 0x66617374  # "fast": keeps our advisory locks apart from those of other programs
_REWRITES: Final = 0x72657772  # "rewr"
_JOBS: Final = 0x6A6F6273  # "jobs"
_SETS: Final = 0x73657473  # "sets"
_HELD: Final = sa.text(
    "SELECT l.objid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 "
    "AND l.classid = :space AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_HOLDER: Final = sa.text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = :space AND l.objid = :id "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_held: Final[set[int]] = set()  # descriptors that the locks of this process hang on


@contextlib.contextmanager
def lock_view(database: Database, view_id: int) -> Iterator[None]:
    """Hold a view; AlreadyRunningError when somebody else does."""
    with _lock(database, _VIEWS, "view", view_id):
        yield


def is_view_held(database: Database, view_id: int) -> bool:
    """Whether some living process holds a view."""
    if database.path is not None:
        return _is_locked(Path(f"{database.path}.view-{view_id}.lock"))
    with database.read() as connection:
        return view_id in {int(found) for found in connection.scalars(_HELD, {"space": _VIEWS})}


@contextlib.contextmanager
def lock_rewrite(database: Database, view_id: int) -> Iterator[None]:
    """Hold the files of a view's offline table; AlreadyRunningError when somebody else does.

    Apart from `lock_view`: rows are added while files are joined.
    """
    with _lock(database, _REWRITES, "rewrite", view_id):
        yield


@contextlib.contextmanager
def _lock(database: Database, space: int, what: str, number: int) -> Iterator[None]:
    if database.path is not None:
        with _flock(Path(f"{database.path}.{what}-{number}.lock"), what, number):
            yield
    else:
        with _advisory(database, space, what, number):
            yield


@contextlib.contextmanager
def lock_sets(database: Database, view_id: int) -> Iterator[None]:
    """Hold the row sets of a view; AlreadyRunningError when somebody else does."""
    if database.path is not None:
        with _flock(Path(f"{database.path}.sets-{view_id}.lock"), "view", view_id):
            yield
    else:
        with _advisory(database, _SETS, "view", view_id):
            yield


@contextlib.contextmanager
def lock_job(database: Database, job_id: int) -> Iterator[None]:
    """Hold a job; AlreadyRunningError when another process does."""
    path = _job_path(database, job_id)
    if path is None:
        with _advisory(database, _JOBS, "job", job_id):
            yield
        return
    with _flock(path, "job", job_id):
        yield
        path.unlink(missing_ok=True)  # a job is over for good: nobody will want this name again


def held_jobs(database: Database, job_ids: Iterable[int]) -> set[int]:
    """Those of the jobs that some living process holds."""
    wanted = set(job_ids)
    if not wanted:
        return set()
    if database.path is None:
        with database.read() as connection:
            return wanted & {int(found) for found in connection.scalars(_HELD, {"space": _JOBS})}
    return {job_id for job_id in wanted if _is_locked(_job_path(database, job_id))}


def _job_path(database: Database, job_id: int) -> Path | None:
    return None if database.path is None else Path(f"{database.path}.job-{job_id}.lock")


def _is_locked(path: Path | None) -> bool:
    assert path is not None
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file: nobody ever held it, or it is over
        return False
    return False


@contextlib.contextmanager
def _flock(path: Path, what: str, number: int) -> Iterator[None]:
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RegistryError(f"cannot make the lock file: {error.strerror}", where=str(path)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already(what, number, _written(file)) from None
        _held.add(file.fileno())
        try:
            _write(file, json.dumps(_me()))
            yield
        finally:
            _held.discard(file.fileno())
            _write(file, "")  # the file itself stays: removing it would let two hold one name


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _written(file: IO[str]) -> tuple[str, str, int] | None:
    """(pid, host, since in seconds) from a lock file; None when its holder is just writing it."""
    file.seek(0)
    try:
        found = json.loads(file.read())
        return str(found["pid"]), str(found["host"]), int(found["since"])
    except (ValueError, KeyError, TypeError):
        return None


def _forget_after_fork() -> None:
    """A forked child shares its parent's descriptors and would keep the locks alive, or end them.

    They are replaced, not closed: their owners in the child still count on the numbers.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def _advisory(database: Database, space: int, what: str, number: int) -> Iterator[None]:
    connection = database.dedicated()
    raw = connection.connection.dbapi_connection
    assert raw is not None
    descriptor = raw.pgconn.socket
    try:
        holder = _acquire(database, connection, space, number)
        if holder is not None:
            raise _already(what, number, _named(holder))
        _held.add(descriptor)
        yield
    finally:
        _held.discard(descriptor)
        with contextlib.suppress(exc.SQLAlchemyError):
            connection.close()  # ends the session, and with it the lock


def _acquire(database: Database, connection: sa.Connection, space: int, number: int) -> str | None:
    """Take the lock; or the application name of the session that has it ('' when it is gone again)."""
    me = _me()
    name = f"fastserve:{me['pid']}:{me['since']}:{me['host']}"[:63]  # PostgreSQL cuts there
    try:
        connection.execute(sa.select(sa.func.set_config("application_name", name, False)))
        connection.execute(sa.select(sa.func.set_config("idle_session_timeout", "0", False)))
        got = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(space, number)))
        return None if got else connection.scalar(_HOLDER, {"space": space, "id": number}) or ""
    except exc.SQLAlchemyError as error:
        raise database.error(error) from None


def _named(name: str | None) -> tuple[str, str, int] | None:
    parts = (name or "").split(":", 3)
    if len(parts) != 4 or parts[0] != "fastserve" or not parts[2].isdigit():
        return None
    return parts[1], parts[3], int(parts[2])


def _me() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now_us() // MICROS}


def _already(what: str, number: int, holder: tuple[str, str, int] | None) -> AlreadyRunningError:
    text = f"another run holds the {what}'s lock"
    if holder:
        pid, host, since = holder
        text = f"{text}: pid {pid} on {host}, since {format_timestamp(since * MICROS)}"
    return AlreadyRunningError(
        text, where=f"{what} id {number}", hint="wait for it, or stop it: the lock ends with its process"
    )
