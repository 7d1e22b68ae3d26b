"""Reading features: one function per route, and the route table.

A handler returns a Response, or a future of one when the store has to be waited for. It runs on the event loop
and holds no state but the App's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from fastserve.api import wire
from fastserve.api.arrow_answer import hit_arrow, render_arrow
from fastserve.api.errors import json_error
from fastserve.api.hits import CHEAP_US, Kind, Lane, Missed
from fastserve.api.hits_py import AnswerHit
from fastserve.api.json_answer import DUMP, hit_json, json_column, known_rows, render_json
from fastserve.api.reader import Reader
from fastserve.api.router import Answer, Routes, segment_of, then
from fastserve.api.shapes import Known, KnownBodies
from fastserve.api.tensor_answer import hit_tensor, matrix_of, render_tensor
from fastserve.batch import ReadBatch
from fastserve.codec.status import Status
from fastserve.errors import FastserveError, InvalidEntityError, RequestError, StoreError
from fastserve.http.message import Request, Response
from fastserve.serving.answer_log import AnswerLog
from fastserve.serving.catalog import Catalog
from fastserve.serving.entities import check_columns, missing_column, unknown_column
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import Finish, Found, decode_columns
from fastserve.timeutil import format_timestamp

BATCH: Final = "/online-features/batch"
ONE_ENTITY: Final = "/feature-views/{name}/online-features"
MAX_LANES: Final = 64  # Accept headers of one shape
MAX_DEADLINES: Final = 256
_VIEW: Final = re.compile(r"([^@]*)(?:@v([0-9]{1,9}))?")
_JSON: Final = wire.JSON.encode()
_ARROW: Final = wire.ARROW.encode()
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


class FeatureReads:
    """The routes that read features.

    Args:
        catalog: plans.
        reader: reads them.
    """

    def __init__(self, catalog: Catalog, reader: Reader) -> None:
        self._catalog = catalog
        self._reader = reader
        self._known = KnownBodies()
        self._hits = reader.hit_path(self._known, catalog)

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {
            BATCH: ("POST", self._batch if self._reader.log is None else self._batch_or_logged),
            ONE_ENTITY: ("GET", self._one_entity),
            "/health": ("GET", self._health),
        }

    def _batch_or_logged(self, request: Request) -> Answer:
        """One that is logged goes the general way, where its columns are known; hits pay for a count."""
        log = self._reader.log
        return self._read(request, None, log=log) if log is not None and log.due() else self._batch(request)

    def _batch(self, request: Request) -> Answer:
        hits = self._hits
        known = self._matched(request.body) if hits is None else hits.answer(request)
        if isinstance(known, Response):
            return known
        if known is None or known.lane is None:
            return self._read(request, known)
        deadline_us = wire.header_deadline_us(request)
        work = partial(self._in_turn, request, known)
        return self._reader.queue(known.known.plan, known.batch, work, known.lane.form, deadline_us)

    def _in_turn(self, request: Request, known: Missed) -> Answer:
        assert self._hits is not None
        answer = self._hits.in_turn(known)
        return self._read(request, known, queued=True) if answer is None else answer

    def _matched(self, body: bytes) -> Missed | None:
        found = self._known.match(body, self._catalog.snapshot)
        return None if found is None else Missed(*found, looked=False)

    def _read(
        self, request: Request, known: Missed | None, queued: bool = False, log: AnswerLog | None = None
    ) -> Answer:
        """The general way: any body, and rows that have to be fetched; at once where it has been queued."""
        accept = deadline = None
        for name, value in request.headers:
            if name == b"accept" and accept is None:
                accept = value
            elif name == wire.DEADLINE and deadline is None:
                deadline = value
        media = wire.choose(accept)
        if media is None:
            return json_error(
                406,
                "not_acceptable",
                "none of the accepted types is offered",
                hint=f"{wire.JSON}, {wire.ARROW}, {wire.TENSOR}",
            )
        deadline_us = None if deadline is None else wire.deadline_us(deadline)
        entities: dict[str, list[Any]] = {}
        if known is None:
            plan, batch, n, entities = self._parsed(request.body)
        else:
            plan, batch, n = known.known.plan, known.batch, known.n
        if media is wire.TENSOR:
            matrix_of(plan.answered)  # refused before anything is read
        render = _RENDER[media] if log is None else log.noting(_RENDER[media], entities)
        render = plan.finishing(render, entities)
        if known is not None and self._hits is not None:
            self._learn(known.known, accept, media, deadline)
        read = self._reader.begin if queued else self._reader.read_batch
        return read(
            plan,
            batch,
            n,
            render,
            form=media,
            deadline_us=deadline_us,
            looked=known is not None and known.looked,
        )

    def _learn(self, known: Known, accept: bytes | None, media: str, deadline: bytes | None) -> None:
        """The next hit with these headers is answered in one call."""
        assert self._hits is not None
        if accept not in known.lanes and len(known.lanes) < MAX_LANES:
            plan = known.plan
            answer = _HITS[media](plan.answered)
            if answer is not None and plan.derivation is not None:
                answer = plan.derivation.hit(answer, plan)
            if answer is not None:
                known.lanes[accept] = Lane(answer, [Kind(CHEAP_US) for _ in range(64)], media)
        if deadline is not None and len(self._hits.deadlines) < MAX_DEADLINES:
            self._hits.deadlines.add(deadline)

    def _parsed(self, body: bytes) -> tuple[ReadPlan, ReadBatch, int, dict[str, list[Any]]]:
        """What any body asks for: plan, encoded keys, number of entities, and the columns that it gives."""
        asked = wire.parse_batch(body)
        try:
            plan = self._catalog.plan(asked.service, asked.features, asked.full_feature_names)
        except RequestError as error:
            error.where = error.where or ("$.feature_service" if asked.service else "$.features")
            raise
        wire.check_fingerprint(plan, asked)
        entities = wire.json_keys(plan, asked.entities)
        n = check_columns(plan, entities)
        batch = self._reader.read_path.encode(plan, entities, n)
        self._known.learn(body, plan)
        return plan, batch, n, entities

    def _one_entity(self, request: Request) -> Answer:
        name = segment_of(request.path, ONE_ENTITY)
        match = _VIEW.fullmatch(name)
        if match is None:
            raise RequestError(f"{name!r} is not a view or view@v2", where="path")
        try:
            registered = self._catalog.snapshot.view(match[1], int(match[2]) if match[2] else None)
        except RequestError as error:
            error.where = "path"
            raise
        refs = tuple(f"{name}:{feature}" for feature in registered.view.feature_names)
        plan = self._catalog.plan("", refs, False)
        return self._reader.read(
            plan,
            _query_entity(request.query, plan),
            _one_row,
            form="row",
            deadline_us=wire.header_deadline_us(request),
        )

    def _health(self, request: Request) -> Answer:
        try:
            rows = self._reader.read_path.probe()
        except StoreError as error:
            return self._health_answer(error)
        if isinstance(rows, list):
            return self._health_answer(None)
        return then(rows, lambda _: self._health_answer(None), self._health_answer)

    def _health_answer(self, error: FastserveError | None) -> Response:
        stale = self._catalog.stale_since_us
        body: dict[str, Any] = {
            "status": "ok" if error is None else "online store unreachable",
            "revision": self._catalog.snapshot.revision,
            "registry_stale_since": None if stale is None else format_timestamp(stale),
            "online_store": "ok" if error is None else error.message,
        }
        missing = self._catalog.computing.problems(self._catalog.snapshot)
        if missing:
            body["on_demand"] = missing
        return Response(200 if error is None else 503, wire.JSON, orjson.dumps(body))


def _json(found: Found) -> Response:
    return Response(200, _JSON, render_json(found))


def _arrow(found: Found) -> Response:
    return Response(200, _ARROW, render_arrow(found))


# What answers hits on a plan in each form; None where only `_RENDER` does.
_HITS: Final[dict[str, Callable[[ReadPlan], AnswerHit | None]]] = {
    wire.JSON: hit_json,
    wire.ARROW: hit_arrow,
    wire.TENSOR: hit_tensor,
}
_RENDER: Final[dict[str, Finish[Response]]] = {
    wire.JSON: _json,
    wire.ARROW: _arrow,
    wire.TENSOR: render_tensor,
}


def _one_row(found: Found) -> Response:
    """The row-shaped answer of GET /feature-views/{name}/online-features."""
    batch = decode_columns(found)
    read, decoded = batch.plan.reads[0], batch.reads[0]
    known = bool(known_rows(decoded)[0])
    event_ts = int(decoded.event_ts[0])
    columns = batch.plan.columns
    metadata: dict[str, Any] = {"revision": batch.plan.revision, "schema_fingerprint": batch.plan.fingerprint}
    if batch.unavailable:
        metadata["unavailable"] = batch.unavailable
    if batch.stale:
        metadata["stale_rows"] = batch.stale
    body = {
        "feature_view": read.view,
        "version": read.version,
        "dtypes": {c.name: c.dtype for c in columns},
        "features": {c.name: json_column(decoded.columns[c.column])[0] for c in columns},
        "statuses": {c.name: Status(int(decoded.statuses[c.column][0])).name for c in columns},
        "event_timestamp": format_timestamp(event_ts) if known else None,
        "freshness_ms": (batch.now_us - event_ts) // 1_000 if known else None,
        "metadata": metadata,
    }
    return Response(200, wire.JSON, orjson.dumps(body, option=DUMP))


def _query_entity(query: str, plan: ReadPlan) -> dict[str, list[Any]]:
    """Join keys and request columns from a query string: by name, or `entity_id` where there is just one key.

    Names and texts are UTF-8, percent-encoded or as they are; a bytes key is any bytes. A list is written as in JSON.
    """
    found: dict[str, list[Any]] = {}
    needed = {**plan.request_columns, **plan.entity_columns}
    for pair in filter(None, query.encode("latin-1").split(b"&")):
        given, _, raw = (unquote_to_bytes(part.replace(b"+", b" ")) for part in pair.partition(b"="))
        name = given.decode(errors="replace")
        if name == "entity_id" and len(plan.entity_columns) == 1:
            name = next(iter(plan.entity_columns))
        if name in found:
            raise InvalidEntityError("is given twice", where=f"?{name}", hint="ask for one entity at a time")
        if name not in needed:
            raise unknown_column(name, plan, where=f"?{name}")
        found[name] = [_query_value(name, raw, needed[name])]
    missing = [name for name in needed if name not in found]
    if missing:
        raise missing_column(missing[0], plan, where=f"?{missing[0]}")
    return found


def _query_value(name: str, raw: bytes, key_type: str) -> Any:
    if key_type == "bytes":
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidEntityError("is not UTF-8 text", where=f"?{name}") from None
    if key_type == "int64":
        if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
            hint = "an int64, in digits: 1001"
            raise InvalidEntityError(f"{text[:40]!r} is no integer key", where=f"?{name}", hint=hint)
        return int(text)
    if key_type == "bool":
        if text not in ("true", "false"):
            raise InvalidEntityError(f"{text[:40]!r} is neither true nor false", where=f"?{name}")
        return text == "true"
    if key_type.startswith("list<"):
        return wire.json_list(text, f"?{name}")
    return text
