"""Jobs in SQL: what was asked for, how far it is, how it ended.

    queued ──claim──▶ running ──▶ complete | failed | cancelled
       └──────────── cancel ──────────────────────▶ cancelled

Every step is one UPDATE that names the status it starts from, so that of two processes that want the same step one
gets it. A job's process holds `lock` from before its claim until after its end: a running job whose lock nobody
holds has lost its process.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import sqlalchemy as sa

from fastserve.errors import OverloadedError, RegistryConflictError, UnknownObjectError
from fastserve.registry.engine import Database
from fastserve.registry.locks import held_jobs, lock_job
from fastserve.registry.schema import jobs
from fastserve.timeutil import now_us

JobStatus: TypeAlias = Literal["queued", "running", "complete", "failed", "cancelled"]
ENDED: Final = ("complete", "failed", "cancelled")
KEEP_ENDED: Final = 1_000
"""Ended jobs that a project keeps; older ones are forgotten when new ones are submitted."""

MAX_QUEUED: Final = 1_000
"""Jobs that may wait in a project; one more is refused."""

MAX_ID: Final = 2**31 - 1
_PRUNE_EVERY: Final = 50  # ended jobs beyond KEEP_ENDED before they are deleted


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are microseconds UTC; None for what did not happen yet.

    Attributes:
        args: what its kind takes, as JSON.
        cancel_us: when somebody asked for its end.
        attempts: how many processes were started for it.
        heartbeat_us: when its process last told its progress.
        pid, pid_start, host: its process; `pid_start` tells it from a later one of the same pid.
        progress: what its process tells of itself: rows, partitions, eta_s.
        result: what it made; empty until complete.
        error: code, message, where, hint; empty unless failed.
    """

    job_id: int
    kind: str
    args: Mapping[str, Any]
    idempotency_key: str | None
    status: JobStatus
    cancel_us: int | None
    attempts: int
    submitted_us: int
    started_us: int | None
    heartbeat_us: int | None
    finished_us: int | None
    pid: int | None
    pid_start: int | None
    host: str
    progress: Mapping[str, Any]
    result: Mapping[str, Any]
    error: Mapping[str, str]

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED


Jobs: TypeAlias = list[Job]  # within JobStore `list` is a method


class JobStore:
    """The jobs of one project. Safe to share between threads; every method raises RegistryError when SQL fails."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self.project = project

    # ---- asking ----------------------------------------------------------------------------------

    def submit(self, kind: str, args: Mapping[str, Any], *, key: str | None = None) -> Job:
        """Queue a job; with a key that was used before, the job that it made then.

        Raises:
            RegistryConflictError: the key was used for another request.
            OverloadedError: MAX_QUEUED jobs wait already.
        """
        text = _dump(args)
        try:
            with self._database.write() as connection:
                found = self._by_key(connection, key)
                if found is None:
                    found = self._insert(connection, kind, text, key)
                    self._prune(connection)
        except Exception:
            found = self._lost_race(key)
            if found is None:
                raise
        job = _job(found)
        if (job.kind, _dump(job.args)) != (kind, text):
            raise RegistryConflictError(
                f"idempotency key {key!r} was used for job {job.job_id}, which is another request",
                hint="take a new key for a new request",
            )
        return job

    def _by_key(self, connection: sa.Connection, key: str | None) -> Any:
        if key is None:
            return None
        where = (jobs.c.project == self.project, jobs.c.idempotency_key == key)
        return connection.execute(sa.select(jobs).where(*where)).one_or_none()

    def _lost_race(self, key: str | None) -> Any:
        """Of two that insert one key at the same time the index refuses one: the other's job is the answer."""
        with self._database.read() as connection:
            return self._by_key(connection, key)

    def _insert(self, connection: sa.Connection, kind: str, args: str, key: str | None) -> Any:
        queued = (jobs.c.project == self.project, jobs.c.status == "queued")
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(*queued))
        if int(waiting or 0) >= MAX_QUEUED:
            raise OverloadedError(f"{waiting} jobs wait already", hint="try again when some of them are done")
        values: dict[str, Any] = {"project": self.project, "kind": kind, "args": args, "idempotency_key": key}
        values |= {"status": "queued", "attempts": 0, "submitted_us": now_us(), "host": ""}
        values |= {"progress": "{}", "result": "{}", "error": ""}
        made = connection.execute(sa.insert(jobs).values(**values)).inserted_primary_key
        assert made is not None
        return connection.execute(sa.select(jobs).where(jobs.c.job_id == made[0])).one()

    def _prune(self, connection: sa.Connection) -> None:
        ended = sa.select(jobs.c.job_id).where(jobs.c.project == self.project, jobs.c.status.in_(ENDED))
        ids = list(connection.scalars(ended.order_by(jobs.c.job_id.desc())))
        if len(ids) < KEEP_ENDED + _PRUNE_EVERY:
            return
        oldest = jobs.c.job_id <= ids[KEEP_ENDED]
        where = (jobs.c.project == self.project, jobs.c.status.in_(ENDED), oldest)
        connection.execute(sa.delete(jobs).where(*where))

    # ---- looking ---------------------------------------------------------------------------------

    def get(self, job_id: int) -> Job:
        """A job; UnknownObjectError when there is none of that number."""
        where = (jobs.c.project == self.project, jobs.c.job_id == job_id)
        row = None
        if 0 < job_id <= MAX_ID:
            with self._database.read() as connection:
                row = connection.execute(sa.select(jobs).where(*where)).one_or_none()
        if row is None:
            raise UnknownObjectError(
                f"no job {job_id}",
                hint=f"ended jobs are kept until {KEEP_ENDED} later ones have ended; GET /jobs lists them",
            )
        return _job(row)

    def list(
        self,
        *,
        status: Sequence[str] = (),
        kind: str | None = None,
        limit: int = 100,
        before: int | None = None,
        oldest_first: bool = False,
    ) -> Jobs:
        """Jobs, newest first.

        Args:
            status: only of these.
            kind: only of this kind.
            limit: at most that many.
            before: only those with a smaller number: the next page.
        """
        query = sa.select(jobs).where(jobs.c.project == self.project)
        if status:
            query = query.where(jobs.c.status.in_(status))
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        if before is not None:
            query = query.where(jobs.c.job_id < before)
        order = jobs.c.job_id if oldest_first else jobs.c.job_id.desc()
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query.order_by(order).limit(limit))]

    def counts(self) -> dict[str, int]:
        """Status -> number of jobs kept; every status is there."""
        query = sa.select(jobs.c.status, sa.func.count()).where(jobs.c.project == self.project)
        with self._database.read() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query.group_by(jobs.c.status))}
        return {status: found.get(status, 0) for status in ("queued", "running", *ENDED)}

    # ---- the life of a job -----------------------------------------------------------------------

    def lock(self, job_id: int) -> AbstractContextManager[None]:
        """Hold a job for as long as its process works on it.

        Raises:
            AlreadyRunningError: another process holds it.
        """
        return lock_job(self._database, job_id)

    def note_attempt(self, job_id: int) -> int:
        """Count a process started for a queued job; how many there were with this one, 0 if it is not queued."""
        with self._database.write() as connection:
            if not self._move(connection, job_id, "queued", attempts=jobs.c.attempts + 1):
                return 0
            query = sa.select(jobs.c.attempts).where(jobs.c.job_id == job_id)
            return int(connection.scalar(query) or 0)

    def claim(self, job_id: int, pid: int, pid_start: int) -> Job | None:
        """Begin a queued job as this process, which holds its lock; None when it is queued no more."""
        now = now_us()
        mine = {"pid": pid, "pid_start": pid_start, "host": socket.gethostname()}
        with self._database.write() as connection:
            times = {"started_us": now, "heartbeat_us": now}
            if not self._move(connection, job_id, "queued", status="running", **mine, **times):
                return None
            return _job(connection.execute(sa.select(jobs).where(jobs.c.job_id == job_id)).one())

    def heartbeat(self, job_id: int, progress: Mapping[str, Any]) -> bool:
        """Tell how far a running job is; whether it should end: somebody cancelled it, or took it away."""
        with self._database.write() as connection:
            values = {"heartbeat_us": now_us(), "progress": _dump(progress)}
            if not self._move(connection, job_id, "running", **values):
                return True
            return connection.scalar(sa.select(jobs.c.cancel_us).where(jobs.c.job_id == job_id)) is not None

    def finish(self, job_id: int, result: Mapping[str, Any]) -> bool:
        """A running job is complete; False when it no longer was running."""
        return self._end(job_id, ("running",), "complete", result=_dump(result))

    def fail(self, job_id: int, error: Mapping[str, str], *, result: Mapping[str, Any] | None = None) -> bool:
        """A running or queued job failed, or was cancelled if somebody had asked for that."""
        values = {"error": _dump(error)} | ({} if result is None else {"result": _dump(result)})
        asked = jobs.c.cancel_us.is_not(None)
        status = sa.case((asked, "cancelled"), else_="failed")
        return self._end(job_id, ("running", "queued"), status, **values)

    def cancel(self, job_id: int) -> Job:
        """Ask for a job's end: a queued one ends at once, a running one when its process has stopped.

        Raises:
            UnknownObjectError: there is no such job.
        """
        self.get(job_id)
        now = now_us()
        with self._database.write() as connection:
            ended = {"status": "cancelled", "cancel_us": now, "finished_us": now}
            if not self._move(connection, job_id, "queued", **ended):
                first = sa.func.coalesce(jobs.c.cancel_us, now)
                self._move(connection, job_id, "running", cancel_us=first)
        return self.get(job_id)

    def orphans(self) -> Jobs:
        """Running jobs whose process is gone; their lock ended with it."""
        running = self.list(status=("running",), limit=MAX_QUEUED)
        held = held_jobs(self._database, [job.job_id for job in running])
        return [job for job in running if job.job_id not in held]

    def _end(self, job_id: int, at: Sequence[str], to: Any, **values: Any) -> bool:
        with self._database.write() as connection:
            values |= {"status": to, "finished_us": now_us()}
            return sum(self._move(connection, job_id, one, **values) for one in at) > 0

    def _move(self, connection: sa.Connection, job_id: int, at: str, **values: Any) -> bool:
        where = (jobs.c.project == self.project, jobs.c.job_id == job_id, jobs.c.status == at)
        return connection.execute(sa.update(jobs).where(*where).values(**values)).rowcount == 1


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _job(row: Any) -> Job:
    values = dict(row._mapping)
    del values["project"]
    for name in ("args", "progress", "result", "error"):
        values[name] = json.loads(values[name] or "{}")
    return Job(**values)
