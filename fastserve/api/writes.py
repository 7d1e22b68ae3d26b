"""Writing features, in Feast's words: POST /push, of rows or of events, and POST /write-to-online-store.

Any content type is taken; members that are not ours (`allow_registry_cache`, `transform_on_write`) are ignored.
The body is parsed in the pusher's thread, so that a large push does not hold up those who read.
"""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from fastserve.api.feast_errors import feast_error
from fastserve.api.router import Answer, Routes
from fastserve.errors import FastserveError, InvalidDataError, RequestError
from fastserve.http.message import Request, Response
from fastserve.registry import RegisteredView
from fastserve.serving.catalog import Catalog
from fastserve.serving.push import TARGETS, Push, Pusher, view_named, views_of
from fastserve.streaming.feeds import feeds_of
from fastserve.streaming.pushes import EventPusher, Events
from fastserve.timeutil import MAX_US, MICROS, MIN_US, format_timestamp
from fastserve.types import parse_dtype

log = logging.getLogger(__name__)

_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_NULL_TIME: Final = -(2**63)
"""Feast's client has no other word for a null timestamp."""
_EXAMPLE: Final = (
    '{"push_source_name": "clicks", "to": "online", '
    '"df": {"user_id": [1], "clicks": [3], "event_timestamp": ["2026-01-01T00:00:00Z"]}}'
)


class FeatureWrites:
    """The routes that write features.

    Args:
        catalog: definitions.
        pusher: what writes rows.
        events: what sends events.
    """

    def __init__(self, catalog: Catalog, pusher: Pusher, events: EventPusher) -> None:
        self._catalog = catalog
        self._pusher = pusher
        self._events = events

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {
            "/push": ("POST", self._push),
            "/write-to-online-store": ("POST", self._write_online),
        }

    def _push(self, request: Request) -> Answer:
        body = request.body

        async def push() -> None:
            if not (
                self._may_be_events(body)
                and await self._events.submit(lambda: self._parse_events(body), len(body))
            ):
                await self._pusher.submit(lambda: self._parse_push(body), len(body))

        return self._answer(push, Response(200, "", b""))

    def _write_online(self, request: Request) -> Answer:
        body = request.body

        async def push() -> None:
            await self._pusher.submit(lambda: self._parse_write(body), len(body))

        return self._answer(push, Response(200, "application/json", b"null"))

    def _answer(self, push: Callable[[], Awaitable[None]], done: Response) -> Answer:
        async def write() -> Response:
            try:
                await push()
            except Exception as error:
                if not isinstance(error, FastserveError):
                    log.exception("a push failed")
                return feast_error(error)
            return done

        return asyncio.ensure_future(write())

    def _may_be_events(self, body: bytes) -> bool:
        """Whether it is worth a look: the body names an event source somewhere. Names are plain ASCII."""
        return any(name.encode() in body for name in self._catalog.snapshot.event_sources)

    def _parse_events(self, body: bytes) -> Events | None:
        """The events of a push; None when its source is none of events."""
        data, snapshot = _object(body), self._catalog.snapshot
        name = _name(data, "push_source_name")
        if name not in snapshot.event_sources:
            return None
        _target(data)
        feeds = feeds_of(snapshot, name)
        return Events(
            feeds, _columns(data, {column: dtype.item for column, dtype in feeds[0].columns.items()})
        )

    def _parse_push(self, body: bytes) -> Push:
        data = _object(body)
        views = views_of(self._catalog.snapshot, _name(data, "push_source_name"))
        return Push(views, _columns(data, _items(views)), _target(data))

    def _parse_write(self, body: bytes) -> Push:
        data = _object(body)
        view = view_named(self._catalog.snapshot, _name(data, "feature_view_name"))
        return Push([view], _columns(data, _items([view])), "online")


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        data = _with_nan(body)
        if data is None:
            raise RequestError(f"the body is not valid JSON: {error}", where="$", hint=_EXAMPLE) from None
    if not isinstance(data, dict):
        raise RequestError("the body is not a JSON object", where="$", hint=_EXAMPLE)
    return data


def _with_nan(body: bytes) -> Any:
    """The body with NaN and Infinity as Python's own JSON, and so Feast's client, writes them; else None."""
    if b"NaN" not in body and b"Infinity" not in body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _name(data: dict[str, Any], member: str) -> str:
    name = data.get(member)
    if not isinstance(name, str) or not name:
        raise RequestError("is missing or not a name", where=f"$.{member}", hint=_EXAMPLE)
    return name


def _target(data: dict[str, Any]) -> str:
    to = data.get("to", "online")
    if not isinstance(to, str) or to not in TARGETS:
        raise RequestError(f"{to!r} is no target", where="$.to", hint=f"one of {', '.join(TARGETS)}")
    return to


def _items(views: list[RegisteredView]) -> dict[str, str]:
    """Column -> scalar type, of its items if it is a list."""
    items: dict[str, str] = {}
    for rv in views:
        items |= {field.name: parse_dtype(field.dtype).item for field in rv.view.schema}
        items |= rv.join_keys
    return items


def _columns(data: dict[str, Any], items: Mapping[str, str]) -> dict[str, Any]:
    """The columns, values in the JSON form of types.SCALARS decoded: base64 bytes, floats that have names."""
    df = data.get("df")
    if not isinstance(df, dict):
        raise RequestError("is missing or not an object of columns", where="$.df", hint=_EXAMPLE)
    return {name: _column(name, values, items.get(name, "")) for name, values in df.items()}


def _column(name: str, values: Any, item: str) -> Any:
    if not isinstance(values, list):
        raise InvalidDataError("is not a list of values", where=f"column {name!r}", hint=_EXAMPLE)
    if item == "bytes":
        return [_each(value, _unbase64, name, i) for i, value in enumerate(values)]
    if item in ("float32", "float64"):
        return [_each(value, _named_float, name, i) for i, value in enumerate(values)]
    if item == "timestamp":
        return [_each(value, _seconds, name, i) for i, value in enumerate(values)]
    return values


def _each(value: Any, decode: Callable[[Any, str], Any], name: str, i: int) -> Any:
    if value.__class__ is float or value is None:
        return value
    place = f"column {name!r}, row {i}"
    return [decode(one, place) for one in value] if isinstance(value, list) else decode(value, place)


def _named_float(value: Any, place: str) -> Any:
    return _FLOATS.get(value, value) if isinstance(value, str) else value


def _seconds(value: Any, place: str) -> Any:
    """Whole seconds since 1970, as Feast's client sends the timestamps of features, as text; the rest as it is."""
    if value.__class__ is not int:
        return value
    if value == _NULL_TIME:
        return None
    if not MIN_US <= value * MICROS <= MAX_US:
        raise InvalidDataError(
            "the time is outside the years 1 to 9999", where=place, hint="seconds since 1970"
        )
    return format_timestamp(value * MICROS)


def _unbase64(value: Any, place: str) -> Any:
    if value is None:
        return None
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise InvalidDataError("is not base64 text", where=place, hint="bytes are base64 in JSON") from None
