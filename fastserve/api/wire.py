"""Requests from JSON, and what kind of answer they want. Pure functions: no I/O, no clock."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from fastserve.errors import InvalidEntityError, RequestError, SchemaMismatchError, TooLargeError
from fastserve.http.message import Request
from fastserve.serving.plan import ReadPlan

MAX_ENTITIES: Final = 10_000
JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
TENSOR: Final = "application/vnd.fastserve.tensor"
DEADLINE: Final = b"fastserve-deadline-ms"
_KEYS: Final = ("feature_service", "features", "entities", "full_feature_names", "expect_fingerprint")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A parsed `POST /online-features/batch`; exactly one of service and features is set.

    Attributes:
        expect_fingerprint: the schema fingerprint the caller was trained with; '' for any.
    """

    service: str
    features: tuple[str, ...]
    entities: dict[str, list[Any]]
    full_feature_names: bool
    expect_fingerprint: str = ""


def parse_batch(body: bytes) -> BatchRequest:
    """Check shape and JSON types; names and key types are the plan's business.

    Raises:
        RequestError: malformed JSON or a wrong shape; `where` is a JSON path.
        TooLargeError: more than MAX_ENTITIES entities.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"the body is not valid JSON: {error}",
            where="$",
            hint='send {"feature_service": "name", "entities": {"key": [...]}}',
        ) from None
    if not isinstance(data, dict):
        raise RequestError(f"the body is a JSON {json_kind(data)}, not an object", where="$")
    for name in data:
        if name not in _KEYS:
            raise RequestError(f"unknown member {name!r}", where="$", hint=f"members: {', '.join(_KEYS)}")
    service, features = _targets(data)
    full = data.get("full_feature_names", False)
    if not isinstance(full, bool):
        raise RequestError(f"is a {json_kind(full)}, not true or false", where="$.full_feature_names")
    entities = parse_entities(data.get("entities", {}))
    return BatchRequest(service, features, entities, full, _fingerprint(data))


def _fingerprint(data: dict[str, Any]) -> str:
    expected = data.get("expect_fingerprint")
    if expected is None:
        return ""
    if not isinstance(expected, str) or not _FINGERPRINT.fullmatch(expected):
        shown = repr(expected) if isinstance(expected, str) else f"a {json_kind(expected)}"
        raise RequestError(
            f"is {shown}, not a schema fingerprint",
            where="$.expect_fingerprint",
            hint="16 hex digits: `schema_fingerprint` of an answer or of a training data set's manifest",
        )
    return expected


def check_fingerprint(plan: ReadPlan, asked: BatchRequest) -> None:
    """Raise SchemaMismatchError when the caller expects another schema than the plan's."""
    if asked.expect_fingerprint and asked.expect_fingerprint != plan.fingerprint:
        names = ", ".join(f"{c.name} {c.dtype}" for c in plan.columns[:8])
        raise SchemaMismatchError(
            f"the answer would have schema {plan.fingerprint}, not {asked.expect_fingerprint}",
            where="$.expect_fingerprint",
            hint=f"it would answer {names}{', …' if len(plan.columns) > 8 else ''}; "
            "pin the service to the model's training data set, or train again",
        )


def _targets(data: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    service, features = data.get("feature_service"), data.get("features")
    if (service is None) == (features is None):
        which = "neither" if service is None else "both"
        raise RequestError(
            f"{which} of feature_service and features given",
            where="$",
            hint='name one: "feature_service": "name", or "features": ["view:feature", ...]',
        )
    if service is not None:
        if not isinstance(service, str) or not service:
            raise RequestError(f"is a {json_kind(service)}, not a name", where="$.feature_service")
        return service, ()
    if not isinstance(features, list) or not features:
        raise RequestError("is not a list of references", where="$.features", hint='["view:feature", ...]')
    for i, ref in enumerate(features):
        if not isinstance(ref, str):
            raise RequestError(f"is a {json_kind(ref)}, not 'view:feature'", where=f"$.features[{i}]")
    return "", tuple(features)


def parse_entities(value: Any) -> dict[str, list[Any]]:
    """Columns of a request: name -> list, none longer than MAX_ENTITIES.

    Raises:
        InvalidEntityError, TooLargeError: they are not.
    """
    if not isinstance(value, dict):
        raise InvalidEntityError(
            f"is a JSON {json_kind(value)}, not an object",
            where="$.entities",
            hint='send columns: {"user_id": [1, 2, 3]}',
        )
    for name, column in value.items():
        if not isinstance(column, list):
            raise InvalidEntityError(
                f"is a JSON {json_kind(column)}, not a list", where=f"$.entities.{name}", hint="[value, ...]"
            )
        if len(column) > MAX_ENTITIES:
            raise TooLargeError(
                f"{len(column):,} entities in one request; the limit is {MAX_ENTITIES:,}",
                where=f"$.entities.{name}",
                hint="send several requests",
            )
    return value


def header_deadline_us(request: Request) -> int | None:
    """The wait the request allows, by its header `fastserve-deadline-ms`; None without one.

    Raises:
        RequestError: as deadline_us.
    """
    text = request.header(DEADLINE)
    return None if text is None else deadline_us(text)


def deadline_us(text: bytes) -> int:
    """A deadline from its header.

    Raises:
        RequestError: it is not a whole number of milliseconds, 1 or more.
    """
    if not (text.isdigit() and len(text) <= 9 and int(text)):
        raise RequestError(
            f"{text.decode('latin-1')!r} is no deadline",
            where=f"header {DEADLINE.decode()}",
            hint="milliseconds as a whole number, 1 or more: 250",
        )
    return int(text) * 1_000


def json_keys(plan: ReadPlan, entities: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns of a request with bytes decoded from base64; the same dict where there are none.

    Raises:
        InvalidEntityError: a bytes key, or a value of a bytes column, is not base64.
    """
    keys, others = plan.entity_columns, plan.request_columns
    if "bytes" not in keys.values() and "bytes" not in others.values():
        return entities
    return {
        name: [_unbase64(v, f"$.entities.{name}[{i}]") for i, v in enumerate(column)]
        if keys.get(name) == "bytes"
        else [v if v is None else _unbase64(v, f"$.entities.{name}[{i}]") for i, v in enumerate(column)]
        if others.get(name) == "bytes"
        else column
        for name, column in entities.items()
    }


def json_list(text: str, where: str) -> list[Any]:
    """A list in JSON.

    Raises:
        InvalidEntityError: it is none.
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise InvalidEntityError(f"{text[:40]!r} is no list in JSON", where=where, hint="[1.5,2]")
    return found


def _unbase64(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise InvalidEntityError("is not base64 text", where=where, hint="bytes keys are base64") from None


def json_kind(value: Any) -> str:
    """What JSON calls a parsed value."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


@lru_cache(maxsize=64)  # clients say the same each time
def choose(accept: bytes | None, offered: tuple[str, ...] = (JSON, ARROW, TENSOR)) -> str | None:
    """The media type to answer with, by the Accept header; None when none is acceptable.

    Enough of RFC 9110 section 12.5.1 for the types offered: q-values order, wildcards take the first that is not
    refused by name (q=0).
    """
    if not accept:
        return offered[0]
    ranked: list[tuple[float, int, str]] = []
    for position, part in enumerate(accept.decode("latin-1").split(",")):
        name, *params = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for param in params:
            if param.startswith("q="):
                try:
                    quality = float(param[2:])
                except ValueError:
                    quality = 0.0
        ranked.append((-quality, position, name))
    refused = {name for quality, _, name in ranked if not quality}
    for quality, _, name in sorted(ranked):
        if not quality:
            continue
        for media in (media for media in offered if media not in refused):
            if name in (media, "*/*", media.split("/")[0] + "/*"):
                return media
    return None
