"""Definitions over REST: list, get, search, plan, apply, history."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from fastserve.control import shapes
from fastserve.control.answers import json_answer
from fastserve.control.definitions import MAX_DEFINITIONS, build, shown
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import moment, number, query_of, read_json
from fastserve.control.search import search
from fastserve.definitions import Definition
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.jobs.materialize import find_view
from fastserve.offline.sources import check_sources
from fastserve.registry import ApplyResult, Interval, Plan, RegisteredView, Registry, Snapshot
from fastserve.timeutil import format_timestamp

_PLAN: Final = {"definitions": shapes.items(shapes.mapping(shapes.anything), most=MAX_DEFINITIONS)}
_PLAN_SHAPE: Final = shapes.members({**_PLAN, "prune": shapes.flag}, ("definitions",))
_APPLY_SHAPE: Final = shapes.members(
    {
        **_PLAN,
        "prune": shapes.flag,
        "author": shapes.text,
        "expect_revision": shapes.nullable(shapes.integer(0, 2**31 - 1)),
    },
    ("definitions",),
)


class CatalogRoutes:
    """The routes of definitions."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.get("/entities", partial(self._list, "entities")),
            web.get("/entities/{name}", partial(self._get, "entities", "entity")),
            web.get("/feature-views", self._list_views),
            web.post("/feature-views", self._register),
            web.get("/feature-views/{name}", self._get_view),
            web.get("/feature-views/{name}/statistics", self._statistics),
            web.get("/feature-services", partial(self._list, "services")),
            web.get("/feature-services/{name}", partial(self._get, "services", "feature service")),
            web.get("/push-sources", partial(self._list, "push_sources")),
            web.get("/push-sources/{name}", partial(self._get, "push_sources", "push source")),
            web.get("/event-sources", partial(self._list, "event_sources")),
            web.get("/event-sources/{name}", partial(self._get, "event_sources", "event source")),
            web.get("/search", self._search),
            web.post("/plan", self._plan),
            web.post("/apply", self._apply),
            web.get("/revisions", self._revisions),
        ]

    async def _list(self, attribute: str, request: web.Request) -> web.Response:
        query_of(request, {})
        snapshot = await self._plane.snapshot()
        found = getattr(snapshot, attribute)
        return _items(snapshot, [shown(found[name]) for name in sorted(found)])

    async def _get(self, attribute: str, kind: str, request: web.Request) -> web.Response:
        query_of(request, {})
        snapshot = await self._plane.snapshot()
        found: Mapping[str, Any] = getattr(snapshot, attribute)
        name = request.match_info["name"]
        if name not in found:
            raise UnknownObjectError.of(kind, name[:200], found, where="path")
        return json_answer({"revision": snapshot.revision, **shown(found[name])})

    async def _list_views(self, request: web.Request) -> web.Response:
        query_of(request, {})
        snapshot = await self._plane.snapshot()
        return _items(snapshot, [_view(snapshot.views[key]) for key in sorted(snapshot.views)])

    async def _get_view(self, request: web.Request) -> web.Response:
        query_of(request, {})
        snapshot = await self._plane.snapshot()
        registered = find_view(snapshot, request.match_info["name"], "path")
        materialized = await self._plane.call(partial(_materialized, self._plane.registry, registered))
        more = {"versions": list(snapshot.versions(registered.view.name)), "materialized": materialized}
        return json_answer({"revision": snapshot.revision, **_view(registered), **more})

    async def _statistics(self, request: web.Request) -> web.Response:
        given = query_of(request, {"start": moment, "end": moment})
        snapshot = await self._plane.snapshot()
        registered = find_view(snapshot, request.match_info["name"], "path")
        start_us, end_us = given.get("start"), given.get("end")
        within = (start_us, None if end_us is None else end_us + 1)
        found = await self._plane.call(partial(self._plane.registry.statistics, registered.view_id, *within))
        about = {"view": registered.view.name, "version": registered.view.version}
        return json_answer({**about, "statistics": None if found is None else found.to_dict()})

    async def _search(self, request: web.Request) -> web.Response:
        given = query_of(request, {"q": _words, "limit": number(1, 1_000)})
        if "q" not in given:
            raise RequestError("is missing", where="?q", hint="say what to search for: /search?q=clicks")
        snapshot = await self._plane.snapshot()
        return _items(snapshot, search(snapshot, given["q"], given.get("limit", 50)))

    async def _revisions(self, request: web.Request) -> web.Response:
        given = query_of(request, {"limit": number(1, 1_000)})
        found = await self._plane.call(partial(self._plane.registry.history, given.get("limit", 50)))
        lines = [
            {
                "revision": one.revision,
                "applied_at": format_timestamp(one.applied_us),
                "author": one.author,
                "summary": one.summary,
            }
            for one in found
        ]
        return json_answer({"revision": lines[0]["revision"] if lines else 0, "items": lines})

    # ---- changing --------------------------------------------------------------------------------

    async def _plan(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _PLAN_SHAPE)
        objects = build(body["definitions"])
        prune = body.get("prune", False)

        def planned() -> Plan:
            check_sources(objects, self._plane.registry, self._plane.config)
            return self._plane.registry.plan(objects, prune=prune)

        plan = await self._plane.call(planned)
        return json_answer(plan.to_dict())

    async def _apply(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, _APPLY_SHAPE)
        objects = build(body.pop("definitions"))
        return await self._applied(objects, **body)

    async def _register(self, request: web.Request) -> web.Response:
        query_of(request, {})
        body = await read_json(request, shapes.mapping(shapes.anything))
        if body.get("kind", "feature_view") != "feature_view":
            raise RequestError("is no feature_view", where="$.kind", hint="POST /apply takes other kinds")
        objects = build([{"kind": "feature_view", **body}])
        return await self._applied(objects)

    async def _applied(self, objects: list[Definition], **options: Any) -> web.Response:
        def applied() -> ApplyResult:
            check_sources(objects, self._plane.registry, self._plane.config)
            return self._plane.registry.apply(objects, **options)

        result = await self._plane.call(applied)
        return json_answer({**result.plan.to_dict(), "revision": result.snapshot.revision})


def _items(snapshot: Snapshot, items: list[dict[str, Any]]) -> web.Response:
    return json_answer({"revision": snapshot.revision, "items": items})


def _view(registered: RegisteredView) -> dict[str, Any]:
    view = registered.view
    about = {
        **shown(view),
        "version": view.version,
        "view_id": registered.view_id,
        "join_keys": dict(registered.join_keys),
    }
    return about if view.is_stored else about | {"needs": dict(registered.needs)}


def _materialized(registry: Registry, registered: RegisteredView) -> dict[str, list[dict[str, Any]]]:
    return {
        "offline": [_interval(i) for i in registry.intervals(registered.view_id, "offline")],
        "online": [_interval(i) for i in registry.intervals(registered.view_id, "online")],
    }


def _interval(interval: Interval) -> dict[str, Any]:
    start = interval.start_us
    return {
        "start": None if start is None else format_timestamp(start),
        "end": format_timestamp(interval.end_us),
        "rows": interval.rows,
        "finished_at": format_timestamp(interval.finished_us),
    }


def _words(text: str) -> str:
    if not text.split() or len(text) > 500:
        raise ValueError("is not 1 to 500 characters of words")
    return text
