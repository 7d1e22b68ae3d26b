"""Definitions as canonical JSON, and their content hash.

Canonical: keys sorted, no white space, attributes at their default left out (so an attribute added to
fastserve later does not change the hash of what was declared before it).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from fastserve.definitions import Definition
from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.definitions.aggregation import Aggregation
from fastserve.definitions.entity import Entity
from fastserve.definitions.event_source import EventSource
from fastserve.definitions.field import Field
from fastserve.definitions.freeze import freeze, frozen_tags
from fastserve.definitions.inputs import FileInput, PostgresInput
from fastserve.definitions.on_demand import OnDemandFeatureView, RequestSource
from fastserve.definitions.service import FeatureService
from fastserve.definitions.source import FileSource, PushSource, SQLSource, TransformSource
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.errors import RegistryError

KINDS: Final[dict[str, type]] = {
    "entity": Entity,
    "file_source": FileSource,
    "sql_source": SQLSource,
    "transform_source": TransformSource,
    "push_source": PushSource,
    "event_source": EventSource,
    "feature_view": FeatureView,
    "aggregated_feature_view": AggregatedFeatureView,
    "on_demand_feature_view": OnDemandFeatureView,
    "feature_service": FeatureService,
}
_KIND_OF: Final = {cls: kind for kind, cls in KINDS.items()}
_INPUTS: Final[dict[str, type]] = {"file": FileInput, "postgres": PostgresInput}
_INPUT_KIND: Final = {cls: kind for kind, cls in _INPUTS.items()}
_PARTS: Final = {"schema": Field, "features": FeatureViewProjection, "aggregations": Aggregation}
_ON_DEMAND: Final[dict[str, type]] = {"view": FeatureViewProjection, "request": RequestSource}
_ON_DEMAND_KIND: Final = {cls: kind for kind, cls in _ON_DEMAND.items()}
_BYTES: Final = "$bytes"


def kind_of(obj: Definition) -> str:
    """The registry's word for the class of a definition."""
    return _KIND_OF[type(obj)]


def to_dict(obj: Any) -> dict[str, Any]:
    """JSON-ready attributes of a definition or a part of one; defaults left out."""
    found = {}
    for spec in dataclasses.fields(obj):
        if spec.metadata.get("transient"):
            continue
        value = getattr(obj, spec.name)
        default = spec.default
        if spec.default_factory is not dataclasses.MISSING:
            default = spec.default_factory()
        # 0 == False == 0.0: a default of another type is a value of its own.
        if value != default or (spec.name == "default" and value is not None):
            found[spec.name] = _on_demand(value) if spec.name == "sources" else _plain(value)
    return found


def from_dict(kind: str, data: Mapping[str, Any]) -> Definition:
    """The definition that `to_dict` described.

    Raises:
        RegistryError: for a kind or an attribute this release does not know.
    """
    if kind not in KINDS:
        raise RegistryError(
            f"unknown kind of definition {kind!r}",
            hint="it was written by a newer fastserve; upgrade",
        )
    made: Definition = _build(KINDS[kind], data)
    return made


def canonical_json(obj: Definition) -> str:
    """The text that is stored and hashed."""
    return json.dumps(to_dict(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(obj: Definition) -> str:
    """SHA-256 of kind and canonical JSON, in hex."""
    return hashlib.sha256(f"{kind_of(obj)}:{canonical_json(obj)}".encode()).hexdigest()


def _on_demand(sources: Any) -> list[dict[str, Any]]:
    return [{"kind": _ON_DEMAND_KIND[type(source)], **to_dict(source)} for source in sources]


def _plain(value: Any) -> Any:
    if isinstance(value, (FileSource, SQLSource, TransformSource, PushSource, EventSource)):
        return {"kind": kind_of(value), **to_dict(value)}
    if isinstance(value, (FileInput, PostgresInput)):
        return {"kind": _INPUT_KIND[type(value)], **to_dict(value)}
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    return value


def _build(cls: type, data: Mapping[str, Any]) -> Any:
    known = {spec.name for spec in dataclasses.fields(cls) if not spec.metadata.get("transient")}
    unknown = set(data) - known
    if unknown:  # it may change what is computed: dropping it would be a silent lie
        raise RegistryError(
            f"{cls.__name__} {data.get('name', '')!r} has unknown attributes: {', '.join(sorted(unknown))}",
            hint="it was written by a newer fastserve; upgrade",
        )
    obj: Any = object.__new__(cls)
    for spec in dataclasses.fields(cls):
        if spec.name in data:
            value = _revive(spec.name, data[spec.name])
        elif spec.default_factory is not dataclasses.MISSING:
            value = _revive(spec.name, spec.default_factory())
        else:
            value = spec.default
        freeze(obj, **{spec.name: value})
    return obj


def _revive(name: str, value: Any) -> Any:
    if name in _PARTS and isinstance(value, list) and (not value or isinstance(value[0], dict)):
        return tuple(_build(_PARTS[name], item) for item in value)
    if name in ("source", "batch_source") and value is not None:
        return _build_kind(KINDS, value)
    if name == "sources":
        return tuple(_build_kind(_ON_DEMAND, item) for item in value)
    if name == "inputs" and isinstance(value, dict):
        return frozen_tags({k: _build_kind(_INPUTS, v) for k, v in value.items()})
    if name == "default":
        return _revive_default(value)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return frozen_tags(value)
    return value


def _build_kind(classes: Mapping[str, type], data: Mapping[str, Any]) -> Any:
    kind = data["kind"]
    if kind not in classes:
        raise RegistryError(
            f"unknown kind of source or input {kind!r}", hint="it was written by a newer fastserve; upgrade"
        )
    return _build(classes[kind], {k: v for k, v in data.items() if k != "kind"})


def _revive_default(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {_BYTES}:
        return base64.b64decode(value[_BYTES])
    if isinstance(value, list):
        return tuple(_revive_default(item) for item in value)
    return value
