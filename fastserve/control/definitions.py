"""Definitions from JSON that strangers wrote: `definitions.serde` dicts with a "kind", checked before they are built.

Beside what serde writes, what is handy to write is taken too: `ttl` as text for `ttl_us`, references as text in a
service, and defaults for what the constructors of the SDK have defaults for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from fastserve.control import shapes
from fastserve.control.shapes import Shape
from fastserve.definitions import AggregatedFeatureView, Definition, Entity, merge_refs
from fastserve.definitions.aggregation import FUNCTIONS
from fastserve.definitions.inputs import format_of
from fastserve.definitions.serde import from_dict, kind_of, to_dict
from fastserve.definitions.source import RUN_TIMES, SQLSource
from fastserve.definitions.validate import label
from fastserve.errors import DefinitionError, Problem, RequestError
from fastserve.timeutil import MAX_US, parse_duration

MAX_DEFINITIONS: Final = 2_000
_MAX_VERSION: Final = 1_000_000


def _default(value: Any, where: str) -> Iterator[Problem]:
    yield from shapes.anything(value, where)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from _bytes(item, where)


def _bytes(value: dict[str, Any], where: str) -> Iterator[Problem]:
    try:
        if set(value) != {"$bytes"}:
            raise ValueError
        base64.b64decode(value["$bytes"], validate=True)
    except (ValueError, TypeError, binascii.Error):
        yield Problem(where, "is an object", 'send bytes as {"$bytes": "base64"}')


def _ttl(value: Any, where: str) -> Iterator[Problem]:
    problem = next(shapes.text(value, where), None)
    if problem is None:
        try:
            parse_duration(value if len(value) <= 100 else "")
        except ValueError:
            problem = Problem(
                where, f"{value[:100]!r} is not a duration", "write it like 90s, 15m, 2h, 30d or 1h30m"
            )
    if problem is not None:
        yield problem


def _ref(value: Any, where: str) -> Iterator[Problem]:
    try:
        version = merge_refs([value])[0].version
        yield from _VERSION(version, where)
    except (RequestError, ValueError):
        yield Problem(where, f"{value[:100]!r} is no reference", "write view:feature, or view@v2:feature")


_ABOUT: Final[dict[str, Shape]] = {
    "kind": shapes.text,
    "name": shapes.text,
    "description": shapes.text,
    "tags": shapes.mapping(shapes.text),
    "owner": shapes.text,
}
_VERSION: Final = shapes.nullable(shapes.integer(1, _MAX_VERSION))
_NAMES: Final = shapes.items(shapes.text)
_FIELD: Final = shapes.members(
    {n: s for n, s in _ABOUT.items() if n in ("name", "description", "tags")}
    | {"dtype": shapes.text, "default": _default},
    ("name", "dtype"),
)
_FILES: Final = shapes.members(
    _ABOUT
    | {
        "kind": shapes.one_of("file_source"),
        "path": shapes.text,
        "timestamp_field": shapes.text,
        "created_timestamp_column": shapes.text,
        "field_mapping": shapes.mapping(shapes.text),
        "format": shapes.text,
    },
    ("kind", "path"),
)
_TIMES: Final = {"timestamp_field": shapes.text, "created_timestamp_column": shapes.text}


def _kinds(known: Mapping[str, Shape]) -> Shape:
    """An object whose "kind" says which of the shapes it has."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(value, dict):
            yield from shapes.members({})(value, where)
        elif isinstance(kind, str) and kind in known:
            yield from known[kind](value, where)
        else:
            yield Problem(where, f"has kind {str(kind)[:100]!r}", f"use {' or '.join(known)}")

    return check


_INPUT_FILES: Final = shapes.members(
    {"kind": shapes.text, "path": shapes.text, "format": shapes.text, "columns": shapes.mapping(shapes.text)},
    ("path",),
)
_INPUT_POSTGRES: Final = shapes.members(
    {"kind": shapes.text, "url_env": shapes.text, "table": shapes.text, "query": shapes.text}, ("url_env",)
)
_INPUTS: Final = shapes.mapping(_kinds({"file": _INPUT_FILES, "postgres": _INPUT_POSTGRES}))
_QUERY: Final = shapes.members(
    _ABOUT
    | _TIMES
    | {"query": shapes.text, "inputs": _INPUTS, "parameters": shapes.mapping(shapes.anything)},
    ("kind", "query", "inputs"),
)
_TRANSFORM: Final = shapes.members(
    _ABOUT
    | _TIMES
    | {
        "function": shapes.text,
        "code": shapes.text,
        "inputs": _INPUTS,
        "arguments": shapes.items(shapes.one_of(*RUN_TIMES)),
    },
    ("kind", "name", "function", "code", "inputs"),
)
_ROWS: Final = {"file_source": _FILES, "sql_source": _QUERY, "transform_source": _TRANSFORM}
_PUSH: Final = shapes.members(
    {**_ABOUT, "kind": shapes.one_of("push_source"), "batch_source": shapes.nullable(_kinds(_ROWS))},
    ("kind", "name"),
)
_EVENTS: Final = shapes.members(
    {
        **_ABOUT,
        "kind": shapes.one_of("event_source"),
        "batch_source": shapes.nullable(_kinds(_ROWS)),
        "schema": shapes.items(_FIELD),
        "event_id": shapes.text,
        "lateness_us": shapes.integer(-MAX_US, 2 * MAX_US),
        "lateness": _ttl,
    },
    ("kind", "name"),
)
_source: Final = _kinds({**_ROWS, "push_source": _PUSH})


_PART: Final = shapes.members(
    {
        "view": shapes.text,
        "version": _VERSION,
        "features": _NAMES,
        "alias": shapes.text,
        "join_key_map": shapes.mapping(shapes.text),
    },
    ("view", "features"),
)
_VIEW: Final = shapes.members(
    _ABOUT
    | {
        "entities": _NAMES,
        "schema": shapes.items(_FIELD),
        "source": shapes.nullable(_source),
        "ttl_us": shapes.nullable(shapes.integer(-MAX_US, 2 * MAX_US)),
        "ttl": shapes.nullable(_ttl),
        "max_staleness_us": shapes.nullable(shapes.integer(-MAX_US, 2 * MAX_US)),
        "max_staleness": shapes.nullable(_ttl),
        "retention_us": shapes.nullable(shapes.integer(-MAX_US, 2 * MAX_US)),
        "retention": shapes.nullable(_ttl),
        "version": shapes.integer(-_MAX_VERSION, _MAX_VERSION),
        "online": shapes.flag,
        "offline": shapes.flag,
    },
    ("name", "schema"),
)


def _share(value: Any, where: str) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        yield Problem(where, "is not a number from 0 to 1", "send one, such as 0.95")


_AGGREGATION: Final = shapes.members(
    {
        "column": shapes.text,
        "function": shapes.one_of(*FUNCTIONS),
        "windows": _NAMES,
        "hop": shapes.nullable(shapes.text),
        "name": shapes.text,
        "n": shapes.integer(0, 1_000_000),
        "quantile": shapes.nullable(_share),
        "bound": shapes.integer(0, 1_000_000),
        "description": shapes.text,
        "tags": shapes.mapping(shapes.text),
    },
    ("column", "function", "windows"),
)


def _never(value: Any, where: str) -> Iterator[Problem]:
    if value is not False:
        yield Problem(where, "is not false", "leave it out: the history of an aggregated view is its events'")


_AGGREGATED: Final = shapes.members(
    _ABOUT
    | {
        "entities": _NAMES,
        "schema": shapes.items(_FIELD),
        "source": _kinds({"event_source": _EVENTS}),
        "aggregations": shapes.items(_AGGREGATION),
        "filter": shapes.text,
        "max_staleness_us": shapes.nullable(shapes.integer(-MAX_US, 2 * MAX_US)),
        "max_staleness": shapes.nullable(_ttl),
        "version": shapes.integer(-_MAX_VERSION, _MAX_VERSION),
        "online": shapes.flag,
        "offline": _never,
    },
    ("name", "source", "aggregations"),
)
_KINDS: Final[Mapping[str, Shape]] = {
    "entity": shapes.members({**_ABOUT, "join_keys": _NAMES, "dtypes": _NAMES}, ("name",)),
    "feature_view": _VIEW,
    "aggregated_feature_view": _AGGREGATED,
    "feature_service": shapes.members(
        {
            **_ABOUT,
            "features": shapes.items(shapes.either((dict, _PART), (str, _ref))),
            "deadline_us": shapes.nullable(shapes.integer(-MAX_US, 2 * MAX_US)),
            "deadline": shapes.nullable(_ttl),
        },
        ("name", "features"),
    ),
    "push_source": _PUSH,
    "event_source": _EVENTS,
}


def definition(value: Any, where: str) -> Iterator[Problem]:
    """The shape of one definition with its kind."""
    kind = value.get("kind") if isinstance(value, dict) else None
    shape = _KINDS.get(kind) if isinstance(kind, str) else None
    if shape is not None:
        yield from shape(value, where)
    elif kind == "on_demand_feature_view":
        yield Problem(
            where, "is an on-demand view, whose function is the repo's", "run `fastserve apply` in it"
        )
    elif isinstance(value, dict):
        yield Problem(where, f"has kind {str(kind)[:100]!r}", f'"kind" is one of {", ".join(_KINDS)}')
    else:
        yield from shapes.members({})(value, where)


def build(values: list[dict[str, Any]]) -> list[Definition]:
    """Definitions from JSON of the shape above.

    Raises:
        DefinitionError: all that is wrong with the shapes of all of them. What is wrong with their meaning, plan and
            apply say.
    """
    problems = list(shapes.items(definition, most=MAX_DEFINITIONS)(values, "$.definitions"))
    if problems:
        raise DefinitionError(problems)
    return [_built(value) for value in values]


def _built(value: dict[str, Any]) -> Definition:
    kind = value["kind"]
    data = {name: item for name, item in value.items() if name != "kind"}
    for name in ("ttl", "max_staleness", "retention", "deadline", "lateness"):
        text = data.pop(name, None)
        if text is not None:
            data[f"{name}_us"] = parse_duration(text)
    if kind == "entity":
        return Entity(data.pop("name"), data.pop("join_keys", None), data.pop("dtypes", "string"), **data)
    if kind == "feature_view":
        data = _view(data)
    elif kind == "aggregated_feature_view":
        return _aggregated(data)
    elif kind == "feature_service":
        data["features"] = [part for one in _parts(data["features"]) for part in one]
    elif data.get("batch_source"):
        data["batch_source"] = _rows(data["batch_source"])
    return from_dict(kind, data)


def _view(data: dict[str, Any]) -> dict[str, Any]:
    source = data.get("source")
    if source and source["kind"] != "push_source":
        data["source"] = _rows(source)
    elif source and source.get("batch_source"):
        data["source"] = {**source, "batch_source": _rows(source["batch_source"])}
    return data


def _aggregated(data: dict[str, Any]) -> Definition:
    """The view; a schema that is given is what follows from its aggregations, or refused."""
    source = dict(data.pop("source"))
    given, max_staleness_us = data.pop("schema", None), data.pop("max_staleness_us", None)
    if (lateness := source.pop("lateness", None)) is not None:
        source["lateness_us"] = parse_duration(lateness)
    if source.get("batch_source"):
        source["batch_source"] = _rows(source["batch_source"])
    read: Any = from_dict("aggregated_feature_view", {**data, "source": source})
    made = AggregatedFeatureView(
        read.name,
        source=read.source,
        aggregations=read.aggregations,
        entities=read.entities,
        filter=read.filter,
        max_staleness=None if max_staleness_us is None else timedelta(microseconds=max_staleness_us),
        version=read.version,
        online=read.online,
        description=read.description,
        tags=read.tags,
        owner=read.owner,
    )
    if given is not None and given != to_dict(made).get("schema", []):
        message, fix = "its schema is not what its aggregations make", "leave the schema out"
        raise DefinitionError([Problem(label(made), message, fix)])
    return made


def _rows(source: dict[str, Any]) -> dict[str, Any]:
    """A source of rows with the defaults of the SDK."""
    if source["kind"] == "file_source":
        return _files(source)
    made = {"timestamp_field": "event_timestamp", **source}
    made["inputs"] = {name: _input(given) for name, given in source["inputs"].items()}
    if source["kind"] == "sql_source":
        return {"name": SQLSource(source["query"], {}).name, **made}
    return made


def _input(given: dict[str, Any]) -> dict[str, Any]:
    return {"format": format_of(given["path"]), **given} if given["kind"] == "file" else given


def _files(source: dict[str, Any]) -> dict[str, Any]:
    path = source["path"]
    return {"name": path, "format": format_of(path), "timestamp_field": "event_timestamp", **source}


def _parts(features: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """Projections; neighbouring references into one view become one, as in the SDK."""
    refs: list[str] = []
    for item in features:
        if isinstance(item, str):
            refs.append(item)
            continue
        yield [to_dict(part) for part in merge_refs(refs)]
        refs = []
        yield [{"version": None, **item}]
    yield [to_dict(part) for part in merge_refs(refs)]


def shown(obj: Definition) -> dict[str, Any]:
    """A definition as JSON, with its kind: what `build` takes."""
    return {"kind": kind_of(obj), **to_dict(obj)}
