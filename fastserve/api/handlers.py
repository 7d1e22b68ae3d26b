"""Reading features: one function per route, and the route table.

A handler returns a Response, or a future of one when the store has to be waited for. It runs on the event loop
and holds no state but the App's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import orjson

from fastserve.api import wire
from fastserve.api.errors import json_error
from fastserve.api.router import Answer, Routes, segment_of, then
from fastserve.codec.status import Status
from fastserve.errors import FastserveError, InvalidEntityError, RequestError
from fastserve.http.message import Request, Response
from fastserve.serving.catalog import Catalog
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch, ReadPath
from fastserve.timeutil import format_timestamp

Render: TypeAlias = Callable[[FeatureBatch], Response]

ONE_ENTITY: Final = "/feature-views/{name}/online-features"


class FeatureReads:
    """The routes that read features.

    Args:
        catalog: plans.
        read_path: the store behind them.
    """

    def __init__(self, catalog: Catalog, read_path: ReadPath) -> None:
        self._catalog = catalog
        self._read_path = read_path

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {
            "/online-features/batch": ("POST", self._batch),
            ONE_ENTITY: ("GET", self._one_entity),
            "/health": ("GET", self._health),
        }

    def _batch(self, request: Request) -> Answer:
        media = wire.choose(request.header(b"accept"))
        if media is None:
            return json_error(
                406,
                "not_acceptable",
                "none of the accepted types is offered",
                hint=f"{wire.JSON}, {wire.ARROW}",
            )
        asked = wire.parse_batch(request.body)
        plan = self._catalog.plan(asked.service, asked.features, asked.full_feature_names)
        wire.check_fingerprint(plan, asked)
        render = _arrow if media == wire.ARROW else _json
        return self._read(plan, wire.json_keys(plan, asked.entities), render, wire.deadline_us(request))

    def _one_entity(self, request: Request) -> Answer:
        name = segment_of(request.path, ONE_ENTITY)
        view, _, version = name.partition("@v")
        if version and not version.isdecimal():
            raise RequestError(f"{name!r} is not a view or view@v2", where="path")
        registered = self._catalog.snapshot.view(view, int(version) if version else None)
        refs = tuple(f"{name}:{feature}" for feature in registered.view.feature_names)
        plan = self._catalog.plan("", refs, False)
        return self._read(plan, _query_entity(request.query, plan), _one_row, wire.deadline_us(request))

    def _read(
        self, plan: ReadPlan, entities: dict[str, list[Any]], render: Render, deadline_us: int | None
    ) -> Answer:
        batch = self._read_path.read(plan, entities, deadline_us=deadline_us)
        if isinstance(batch, FeatureBatch):
            return render(batch)
        return then(batch, render)

    def _health(self, request: Request) -> Answer:
        rows = self._read_path.probe()
        if isinstance(rows, list):
            return self._health_answer(None)
        return then(rows, lambda _: self._health_answer(None), self._health_answer)

    def _health_answer(self, error: FastserveError | None) -> Response:
        stale = self._catalog.stale_since_us
        body = {
            "status": "ok" if error is None else "online store unreachable",
            "revision": self._catalog.snapshot.revision,
            "registry_stale_since": None if stale is None else format_timestamp(stale),
            "online_store": "ok" if error is None else error.message,
        }
        return Response(200 if error is None else 503, wire.JSON, orjson.dumps(body))


def _json(batch: FeatureBatch) -> Response:
    return Response(200, wire.JSON, wire.render_json(batch))


def _arrow(batch: FeatureBatch) -> Response:
    return Response(200, wire.ARROW, memoryview(wire.render_arrow(batch)))


def _one_row(batch: FeatureBatch) -> Response:
    """The row-shaped answer of GET /feature-views/{name}/online-features."""
    read, decoded = batch.plan.reads[0], batch.reads[0]
    known = not batch.unavailable and decoded.row_status[0] != Status.NOT_FOUND
    event_ts = int(decoded.event_ts[0])
    columns = batch.plan.columns
    body = {
        "feature_view": read.view,
        "version": read.version,
        "dtypes": {c.name: c.dtype for c in columns},
        "features": {c.name: wire.json_column(decoded.columns[c.column])[0] for c in columns},
        "statuses": {c.name: Status(int(decoded.statuses[c.column][0])).name for c in columns},
        "event_timestamp": format_timestamp(event_ts) if known else None,
        "freshness_ms": (batch.now_us - event_ts) // 1_000 if known else None,
        "metadata": {"revision": batch.plan.revision, "schema_fingerprint": batch.plan.fingerprint},
    }
    return Response(200, wire.JSON, orjson.dumps(body, option=wire.DUMP))


def _query_entity(query: str, plan: ReadPlan) -> dict[str, list[Any]]:
    """Join keys from a query string: by name, or `entity_id` where there is just one."""
    given = parse_qsl(query, keep_blank_values=True)
    found: dict[str, list[Any]] = {}
    for name, text in given:
        if name == "entity_id" and len(plan.entity_columns) == 1:
            name = next(iter(plan.entity_columns))
        if name in found:
            raise InvalidEntityError("is given twice", where=f"?{name}", hint="ask for one entity at a time")
        found[name] = [_query_value(name, text, plan.entity_columns.get(name, "string"))]
    return found


def _query_value(name: str, text: str, key_type: str) -> Any:
    if key_type == "int64":
        try:
            return int(text)
        except ValueError:
            raise InvalidEntityError(f"{text!r} is no integer", where=f"?{name}") from None
    if key_type == "bool":
        if text not in ("true", "false"):
            raise InvalidEntityError(f"{text!r} is neither true nor false", where=f"?{name}")
        return text == "true"
    return text.encode() if key_type == "bytes" else text
