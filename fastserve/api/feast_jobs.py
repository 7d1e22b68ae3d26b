"""Feast's `POST /materialize` and `/materialize-incremental`, as jobs in processes of their own.

    sync            200 null when the job is complete
    ?async=true     202 {"status": "accepted", "feature_views": [...]} at once
    views busy      409 {"error", "feature_views"}; with ?force=true the job is queued all the same

The job goes on when the client leaves, or this server ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

import orjson

from fastserve.api.feast_errors import feast_error
from fastserve.api.router import Answer, Routes
from fastserve.config import Config
from fastserve.errors import FastserveError, MaterializeError, RegistryError, RequestError
from fastserve.http.message import Request, Response
from fastserve.jobs.materialize import KIND, materialize_args, overlapping, views_of
from fastserve.jobs.supervisor import Supervisor
from fastserve.registry import Job, Registry, Snapshot
from fastserve.serving.catalog import Catalog
from fastserve.timeutil import parse_timestamp

log = logging.getLogger(__name__)

JSON: Final = "application/json"
MAX_JOBS: Final = 2
_POLL_S: Final = 0.1
T = TypeVar("T")


class FeastJobs:
    """The routes that materialize.

    Args:
        catalog: names the views.
        registry: where jobs are.
        config: the repo they work on.
    """

    def __init__(self, catalog: Catalog, registry: Registry, config: Config) -> None:
        self._catalog = catalog
        self._jobs = registry.jobs
        self._supervisor = Supervisor(registry.jobs, config, max_jobs=MAX_JOBS)
        self._thread = ThreadPoolExecutor(1, "jobs")  # the supervisor's: it is not for two at once
        self._waiting: dict[int, asyncio.Future[Job]] = {}
        self._watcher: asyncio.Task[None] | None = None

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {
            "/materialize": ("POST", partial(self._post, incremental=False)),
            "/materialize-incremental": ("POST", partial(self._post, incremental=True)),
        }

    def close(self) -> None:
        """Stop watching; jobs that run go on."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._thread.shutdown(wait=True)
        self._supervisor.close()

    def _post(self, request: Request, *, incremental: bool) -> Answer:
        return asyncio.ensure_future(_answered(self._materialize(request, incremental)))

    async def _materialize(self, request: Request, incremental: bool) -> Response:
        snapshot = self._catalog.snapshot
        args = _args(snapshot, _object(request.body), incremental)
        query = parse_qs(request.query)
        job = await self._call(partial(self._submit, snapshot, args, _flag(query, "force")))
        if job is None:
            return _busy(snapshot, args, "is being materialized already")
        ended = self._watch(job)
        if _flag(query, "async"):
            accepted = {"status": "accepted", "feature_views": _names(snapshot, args["views"])}
            return Response(202, JSON, orjson.dumps(accepted))
        return _outcome(snapshot, await asyncio.shield(ended))

    def _submit(self, snapshot: Snapshot, args: Mapping[str, Any], force: bool) -> Job | None:
        """The job; None when its views are busy."""
        if not force:
            active = self._jobs.list(status=("queued", "running"), kind=KIND, limit=1_000)
            if overlapping(snapshot, args["views"], active):
                return None
        return self._jobs.submit(KIND, args)

    # ---- looking after the jobs of this process --------------------------------------------------

    def _call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _watch(self, job: Job) -> asyncio.Future[Job]:
        ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiting[job.job_id] = ended
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._follow())
        return ended

    async def _follow(self) -> None:
        while self._waiting:
            try:
                for job in await self._call(partial(self._round, list(self._waiting))):
                    self._waiting.pop(job.job_id).set_result(job)
            except RegistryError as error:  # it may come back; a job that runs does not need us
                log.warning("the registry does not answer, jobs wait: %s", error.message)
            except Exception:  # whoever waits for a job must not wait for ever
                log.exception("a round of the supervisor failed")
            await asyncio.sleep(_POLL_S)

    def _round(self, job_ids: list[int]) -> list[Job]:
        """Start what waits; the jobs that have ended."""
        self._supervisor.tick(only=job_ids)
        return [job for job in map(self._jobs.get, job_ids) if job.is_ended]


async def _answered(work: Coroutine[Any, Any, Response]) -> Response:
    try:
        return await work
    except FastserveError as error:
        return feast_error(error)


def _outcome(snapshot: Snapshot, job: Job) -> Response:
    if job.status == "complete":
        return Response(200, JSON, b"null")
    if job.error.get("code") == "AlreadyRunningError":
        return _busy(snapshot, job.args, job.error["message"])
    message = job.error.get("message") or f"job {job.job_id} was {job.status}"
    return feast_error(MaterializeError(message, hint=job.error.get("hint", "")))


def _busy(snapshot: Snapshot, args: Mapping[str, Any], why: str) -> Response:
    names = _names(snapshot, args["views"])
    body = {"error": f"{', '.join(names)}: {why}", "feature_views": names}
    return Response(409, JSON, orjson.dumps(body))


def _names(snapshot: Snapshot, views: list[str]) -> list[str]:
    if views:
        return list(views)
    ids = views_of(snapshot, ())
    return sorted({r.view.name for r in snapshot.views.values() if r.view_id in ids})


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}", where="$") from None
    if not isinstance(found, dict):
        raise RequestError("the body is not a JSON object", where="$")
    return found


def _args(snapshot: Snapshot, body: Mapping[str, Any], incremental: bool) -> dict[str, Any]:
    everything = not incremental and body.get("disable_event_timestamp") is True
    start = None if incremental or everything else _moment(body, "start_ts")
    end = None if everything else _moment(body, "end_ts")
    views = body.get("feature_views") or []
    if not isinstance(views, list) or not all(isinstance(name, str) for name in views):
        raise RequestError("is not a list of names", where="$.feature_views")
    version = body.get("version")
    if version is not None:
        text = str(version)[:20].removeprefix("v")
        if not (text.isascii() and text.isdecimal()) or not views:
            raise RequestError("is no version of the feature_views named", where="$.version")
        views = [f"{name}@v{text}" for name in views]
    where = "$.feature_views"
    return materialize_args(snapshot, views, start_us=start, end_us=end, incremental=incremental, where=where)


def _moment(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    try:
        if not isinstance(value, str) or len(value) > 100:
            raise ValueError
        return parse_timestamp(value)
    except (ValueError, OverflowError):
        hint = "send a time like 2013-01-01T05:00:00"
        raise RequestError("is missing or no time", where=f"$.{name}", hint=hint) from None


def _flag(query: Mapping[str, list[str]], name: str) -> bool:
    return query.get(name, [""])[-1].lower() in ("true", "1", "yes", "on", "t", "y")
