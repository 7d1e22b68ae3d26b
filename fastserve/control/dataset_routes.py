"""Training data sets over REST: have one made (a job), list them, look at one."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from aiohttp import web

from fastserve.control import shapes
from fastserve.control.answers import json_answer
from fastserve.control.job_routes import submit
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import query_of, read_json
from fastserve.errors import UnknownObjectError
from fastserve.registry import TrainingDataset
from fastserve.timeutil import format_timestamp

_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,200}")
_SHAPE: Final = shapes.members(
    {
        "name": shapes.text,
        "spine": shapes.text,
        "service": shapes.nullable(shapes.text),
        "features": shapes.nullable(shapes.items(shapes.text)),
        "cutoff": shapes.nullable(shapes.text),
        "full_feature_names": shapes.flag,
        "timestamp_column": shapes.text,
        "allow_incomplete": shapes.flag,
        "author": shapes.text,
        "output": shapes.nullable(shapes.text),
    },
    ("name", "spine"),
)


class DatasetRoutes:
    """The routes of training data sets."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.post("/training-datasets", self._create),
            web.get("/training-datasets", self._list),
            web.get("/training-datasets/{id}", self._get),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        query_of(request, {})
        args = await read_json(request, _SHAPE)
        return await submit(self._plane, request, "training_dataset", args)

    async def _list(self, request: web.Request) -> web.Response:
        given = query_of(request, {"view": _name, "service": _name})
        found = await self._plane.call(partial(self._plane.registry.training_datasets, **given))
        return json_answer({"items": [_shown(one) for one in found]})

    async def _get(self, request: web.Request) -> web.Response:
        query_of(request, {})
        name = request.match_info["id"]
        if not _NAME.fullmatch(name):
            raise UnknownObjectError(f"unknown training data set {name[:200]!r}", where="path")
        found = await self._plane.call(partial(self._plane.registry.training_dataset, name))
        return json_answer({**_shown(found), "manifest": found.manifest})


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("is no name")
    return text


def _shown(one: TrainingDataset) -> dict[str, Any]:
    return {
        "id": one.dataset_id,
        "name": one.name,
        "feature_service": one.service or None,
        "schema_fingerprint": one.fingerprint,
        "uri": one.uri,
        "rows": one.rows,
        "created_at": format_timestamp(one.created_us),
        "author": one.author,
    }
