"""Row sets over REST: have a view's online rows built anew, or go back to those before; each a job."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from fastserve.control import shapes
from fastserve.control.job_routes import submit
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import query_of, read_json
from fastserve.jobs.materialize import find_view
from fastserve.online.live import MIN_KEEP_US
from fastserve.timeutil import MICROS

_MOST_S: Final = 31_536_000
_KEEP: Final = {"keep_s": shapes.integer(MIN_KEEP_US // MICROS, _MOST_S)}
_REFRESH: Final = shapes.members({**_KEEP, "carry": shapes.nullable(shapes.flag), "allow_fewer": shapes.flag})
_ROLLBACK: Final = shapes.members(_KEEP)


class SetRoutes:
    """The routes of row sets."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.post("/feature-views/{name}/refresh", self._refresh),
            web.post("/feature-views/{name}/rollback", self._rollback),
        ]

    async def _refresh(self, request: web.Request) -> web.Response:
        return await self._submit(request, "refresh", _REFRESH)

    async def _rollback(self, request: web.Request) -> web.Response:
        return await self._submit(request, "rollback", _ROLLBACK)

    async def _submit(self, request: web.Request, kind: str, shape: shapes.Shape) -> web.Response:
        query_of(request, {})
        args: dict[str, Any] = await read_json(request, shape)
        name = request.match_info["name"]
        find_view(await self._plane.snapshot(), name, "path")
        if "keep_s" in args:
            args["keep_us"] = args.pop("keep_s") * MICROS
        return await submit(self._plane, request, kind, {"view": name, **args})
