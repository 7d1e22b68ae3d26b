"""Jobs over REST: ask for one, look at it, cancel it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from fastserve.control import shapes
from fastserve.control.answers import json_answer
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import (
    idempotency_key,
    number,
    path_id,
    query_of,
    read_json,
    word,
)
from fastserve.errors import Problem
from fastserve.jobs.kinds import KINDS
from fastserve.jobs.materialize import BACKFILL, KIND, backfill_args, materialize_args
from fastserve.registry import Job
from fastserve.registry.jobs import ENDED, MAX_ID
from fastserve.timeutil import format_timestamp, now_us, parse_timestamp


def _moment(value: Any, where: str) -> Iterator[Problem]:
    problem = next(shapes.text(value, where), None)
    if problem is None:
        try:
            parse_timestamp(value if len(value) <= 100 else "")
        except (ValueError, OverflowError):
            fix = "write it like 2013-01-01 or 2013-01-01T05:00:00Z"
            problem = Problem(where, f"{value[:100]!r} is not a time", fix)
    if problem is not None:
        yield problem


MAX_WORKERS: Final = 64
_DATES: Final = {
    "start": shapes.nullable(_moment),
    "end": shapes.nullable(_moment),
    "target": shapes.nullable(shapes.one_of("online", "offline", "both")),
}
_BACKFILL_SHAPE: Final = shapes.members(
    {**_DATES, "workers": shapes.integer(1, MAX_WORKERS), "again": shapes.flag}
)
_WINDOW: Final = {**_DATES, "incremental": shapes.flag}
_VIEW_SHAPE: Final = shapes.members(_WINDOW)
_VIEWS_SHAPE: Final = shapes.members({**_WINDOW, "views": shapes.items(shapes.text, most=1_000)})


class JobRoutes:
    """The routes of jobs."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.post("/feature-views/{name}/materialize", self._materialize_view),
            web.post("/feature-views/{name}/backfill", self._backfill),
            web.post("/materialize", self._materialize),
            web.get("/jobs", self._list),
            web.get("/jobs/{id}", self._get),
            web.post("/jobs/{id}/cancel", self._cancel),
        ]

    async def _materialize_view(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _VIEW_SHAPE)
        body["views"] = [request.match_info["name"]]
        return await self._submit_materialize(request, body, "path")

    async def _materialize(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _VIEWS_SHAPE)
        return await self._submit_materialize(request, body, "$.views")

    async def _submit_materialize(
        self, request: web.Request, body: dict[str, Any], where: str
    ) -> web.Response:
        args = materialize_args(
            await self._plane.snapshot(),
            body.get("views", ()),
            incremental=body.get("incremental", False),
            target=body.get("target"),
            where=where,
            **_times(body),
        )
        return await submit(self._plane, request, KIND, args)

    async def _backfill(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _BACKFILL_SHAPE)
        options: dict[str, Any] = {n: body[n] for n in ("target", "workers", "again") if n in body}
        snapshot = await self._plane.snapshot()
        args = backfill_args(snapshot, request.match_info["name"], **options | _times(body))
        return await submit(self._plane, request, BACKFILL, args)

    async def _list(self, request: web.Request) -> web.Response:
        given = query_of(
            request,
            {
                "status": word("queued", "running", *ENDED),
                "kind": word(*KINDS),
                "limit": number(1, 1_000),
                "before": number(1, MAX_ID),
            },
        )
        status = (given.pop("status"),) if "status" in given else ()
        found = await self._plane.call(partial(self._plane.jobs.list, status=status, **given))
        return json_answer({"items": [job_json(job) for job in found]})

    async def _get(self, request: web.Request) -> web.Response:
        query_of(request, {})
        job = await self._plane.call(partial(self._plane.jobs.get, path_id(request)))
        return json_answer(job_json(job))

    async def _cancel(self, request: web.Request) -> web.Response:
        query_of(request, {})
        job = await self._plane.call(partial(self._plane.jobs.cancel, path_id(request)))
        self._plane.wake()
        return json_answer(job_json(job), 200 if job.is_ended else 202)


def _times(body: Mapping[str, Any]) -> dict[str, int]:
    return {f"{n}_us": parse_timestamp(body[n]) for n in ("start", "end") if body.get(n) is not None}


async def submit(
    plane: ControlPlane, request: web.Request, kind: str, args: Mapping[str, Any]
) -> web.Response:
    """Queue a job: 202, with the job and its place."""
    key = idempotency_key(request)
    job = await plane.call(lambda: plane.jobs.submit(kind, args, key=key))
    plane.wake()
    return json_answer(job_json(job), 202, location=f"/jobs/{job.job_id}")


def job_json(job: Job) -> dict[str, Any]:
    """A job as clients see it."""
    end = job.finished_us or now_us()
    return {
        "id": job.job_id,
        "kind": job.kind,
        "status": job.status,
        "args": job.args,
        "progress": job.progress,
        "rows": job.progress.get("rows"),
        "eta_s": None if job.is_ended else job.progress.get("eta_s"),
        "result": job.result or None,
        "error": job.error or None,
        "cancel_requested": job.cancel_us is not None,
        "attempts": job.attempts,
        "submitted_at": format_timestamp(job.submitted_us),
        "started_at": _time(job.started_us),
        "heartbeat_at": _time(job.heartbeat_us),
        "finished_at": _time(job.finished_us),
        "seconds": None if job.started_us is None else round((end - job.started_us) / 1e6, 3),
        "process": None if job.pid is None else {"pid": job.pid, "host": job.host},
    }


def _time(us: int | None) -> str | None:
    return None if us is None else format_timestamp(us)
