"""Reconciliations over REST: compare a view's online rows with its history, and put them right; a job."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from fastserve.control import shapes
from fastserve.control.job_routes import submit
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import query_of, read_json
from fastserve.errors import RequestError
from fastserve.jobs.materialize import find_view
from fastserve.jobs.reconcile import DIFFERENCES, KIND, MAX_SAMPLE, SAMPLE
from fastserve.timeutil import MICROS

_MEMBERS: Final = {
    "sample": shapes.integer(1, MAX_SAMPLE),
    "all": shapes.flag,
    "seed": shapes.integer(0, 2**32 - 1),
    "repair": shapes.flag,
    "prune": shapes.flag,
    "ignore": shapes.items(shapes.one_of(*DIFFERENCES), most=len(DIFFERENCES)),
    "grace_s": shapes.integer(0, 31_536_000),
}
_VIEW: Final = shapes.members(_MEMBERS)
_VIEWS: Final = shapes.members({**_MEMBERS, "views": shapes.items(shapes.text, most=1_000)})


class ReconcileRoutes:
    """The routes of reconciliations."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.post("/feature-views/{name}/reconcile", self._view),
            web.post("/reconcile", self._views),
        ]

    async def _view(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _VIEW)
        return await self._submit(request, [request.match_info["name"]], body, "path")

    async def _views(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _VIEWS)
        return await self._submit(request, body.pop("views", []), body, "$.views")

    async def _submit(
        self, request: web.Request, views: list[str], body: dict[str, Any], where: str
    ) -> web.Response:
        everything = body.pop("all", False)
        if everything and "sample" in body:
            raise RequestError("sample and all exclude each other", where="$.sample", hint="drop one of them")
        if body.get("prune") and not body.get("repair"):
            raise RequestError("prune is a way to repair", where="$.prune", hint='add "repair": true')
        snapshot = await self._plane.snapshot()
        for name in views:
            find_view(snapshot, name, where)
        if "grace_s" in body:
            body["grace_us"] = body.pop("grace_s") * MICROS
        sample = None if everything else body.pop("sample", SAMPLE)
        return await submit(self._plane, request, KIND, {"views": views, "sample": sample, **body})
