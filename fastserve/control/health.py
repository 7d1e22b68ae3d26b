"""Is this process alive, and has it all it needs?"""

from __future__ import annotations

import asyncio

from aiohttp import web

from fastserve.control.answers import json_answer
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import query_of
from fastserve.errors import FastserveError


class HealthRoutes:
    """The routes for orchestrators and load balancers."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [web.get("/health/live", self._live), web.get("/health/ready", self._ready)]

    async def _live(self, request: web.Request) -> web.Response:
        query_of(request, {})
        return json_answer({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        """200 when everything answers; 503 says what does not, and why."""
        query_of(request, {})
        registry, store = await asyncio.gather(self._registry(), self._online_store())
        checks = {"registry": registry, "online_store": store}
        ready = all(text == "ok" for text in checks.values())
        return json_answer({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def _registry(self) -> str:
        try:
            await asyncio.wait_for(self._plane.call(self._plane.registry.revision), 2.0)
        except TimeoutError:
            return "did not answer in 2 s"
        except FastserveError as error:
            return error.message
        return "ok"

    async def _online_store(self) -> str:
        try:
            await self._plane.probe_store()
        except FastserveError as error:
            return error.message
        except TimeoutError:
            return "did not answer in 2 s"
        return "ok"
