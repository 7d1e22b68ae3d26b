"""A definition as flat attributes, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.definitions import (
    AggregatedFeatureView,
    Definition,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    FeatureViewProjection,
    Field,
    FileSource,
    OnDemandFeatureView,
    PushSource,
    Source,
)
from fastserve.definitions.serde import to_dict
from fastserve.registry.aggregated import aggregation_text
from fastserve.registry.plan import AttributeChange
from fastserve.timeutil import format_duration


def compare(old: Definition | None, new: Definition) -> tuple[AttributeChange, ...]:
    """The attributes that differ, in the order people declare them; all that are set when `old` is None."""
    before = flatten(old) if old is not None else {}
    after = flatten(new)
    names = [*after, *(name for name in before if name not in after)]
    changes = [
        AttributeChange(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name) and (old is not None or after[name] not in (None, "", []))
    ]
    if old is not None:
        changes += _reordered(old, new)
    return tuple(changes)


def flatten(obj: Definition) -> dict[str, Any]:
    """Attribute -> JSON value, in the words users write: ``ttl: "2h"``, ``feature x: "int64"``."""
    flat: dict[str, Any] = {}
    if isinstance(obj, Entity):
        for key, dtype in zip(obj.join_keys, obj.dtypes, strict=False):
            flat[f"join key {key}"] = dtype
    elif isinstance(obj, OnDemandFeatureView):
        flat |= _on_demand(obj)
    elif isinstance(obj, FeatureView):
        flat |= _view(obj)
    elif isinstance(obj, FeatureService):
        flat["features"] = [ref_text(part) for part in obj.features]
        flat["pinned to"] = obj.pinned_to or None
        flat["deadline"] = ttl_text(obj.deadline_us)
    else:
        flat |= _source("", obj)
    return flat | _common(obj)


def ref_text(part: FeatureViewProjection) -> str:
    """``stats@v2[a, b] as alias (user_id -> buyer_id)``."""
    version = f"@v{part.version}" if part.version is not None else ""
    alias = f" as {part.alias}" if part.alias else ""
    keys = ", ".join(f"{key} -> {column}" for key, column in part.join_key_map.items())
    return f"{part.view}{version}[{', '.join(part.features)}]{alias}{f' ({keys})' if keys else ''}"


def default_text(field: Field) -> str:
    """``default 0``, or ``no default``."""
    return "no default" if field.default is None else f"default {field.default!r}"


def _reordered(old: Definition, new: Definition) -> list[AttributeChange]:
    if isinstance(old, FeatureView) and isinstance(new, FeatureView):
        what, before, after = "feature order", old.feature_names, new.feature_names
    elif isinstance(old, Entity) and isinstance(new, Entity):
        what, before, after = "join key order", old.join_keys, new.join_keys
    else:
        return []
    same = sorted(before) == sorted(after) and before != after
    return [AttributeChange(what, list(before), list(after))] if same else []


def _on_demand(view: OnDemandFeatureView) -> dict[str, Any]:
    flat = _fields(view)
    flat["sources"] = [ref_text(part) for part in view.views]
    flat |= {f"request column {field.name}": field.dtype for field in view.request}
    flat["function"] = view.function
    flat["code"] = view.code_sha256[:12]
    flat["arguments"] = list(view.arguments)
    flat["budget"] = format_duration(view.budget_us)
    return flat


def _fields(view: FeatureView) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in view.schema:
        flat[f"feature {field.name}"] = f"{field.dtype}, {default_text(field)}"
        if field.description:
            flat[f"feature {field.name} description"] = field.description
        flat |= {f"feature {field.name} tag {tag}": value for tag, value in field.tags.items()}
    return flat


def _view(view: FeatureView) -> dict[str, Any]:
    flat: dict[str, Any] = {"entities": list(view.entities), **_fields(view)}
    if isinstance(view, AggregatedFeatureView):
        for aggregation in view.aggregations:
            for name, window in aggregation.features():
                flat[f"feature {name} is"] = aggregation_text(aggregation, window)
        flat["filter"] = view.filter or None
    flat["ttl"] = ttl_text(view.ttl_us)
    flat["max staleness"] = ttl_text(view.max_staleness_us)
    flat["retention"] = ttl_text(view.retention_us)
    flat |= _source("source", view.source)
    flat["online"] = view.online
    flat["offline"] = view.offline
    return flat


def ttl_text(ttl_us: int | None) -> str | None:
    """``2h``; None for a view whose rows hold for ever."""
    return None if ttl_us is None else format_duration(ttl_us)


def _source(prefix: str, source: Source | None) -> dict[str, Any]:
    if source is None:
        return {}
    dot = f"{prefix}." if prefix else ""
    if isinstance(source, PushSource):
        flat: dict[str, Any] = {f"{dot}push source": source.name} if prefix else {}
        return flat | _source(f"{dot}batch_source", source.batch_source)
    if isinstance(source, EventSource):
        named: dict[str, Any] = {f"{dot}event source": source.name} if prefix else {}
        named |= {f"{dot}column {column.name}": column.dtype for column in source.schema}
        named |= {f"{dot}event id": source.event_id or None, f"{dot}lateness": ttl_text(source.lateness_us)}
        return named | _source(f"{dot}batch_source", source.batch_source)
    found = to_dict(source)
    if isinstance(source, FileSource):
        found["format"] = source.format
        if source.name == source.path:
            del found["name"]
    for name, given in found.pop("inputs", {}).items():
        about = ", ".join(f"{key} {_plain(value)}" for key, value in given.items() if key != "kind")
        found[f"input {name}"] = f"{given['kind']}: {about}"
    return {f"{dot}{name}": _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [f"{key} -> {name}" for key, name in value.items()]
    return value


def _common(obj: Definition) -> dict[str, Any]:
    tags = {f"tag {tag}": value for tag, value in obj.tags.items()}
    return {"description": obj.description or None, **tags, "owner": obj.owner or None}
