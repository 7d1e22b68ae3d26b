"""Compile "these features, at this registry revision" into a frozen ReadPlan.

Everything that depends on definitions alone happens here, once per revision: key prefixes, row layouts, output
names and order, defaults, the schema fingerprint. The read path only follows the plan.

Data: a plan holds one ViewRead for each distinct (view version, join columns) and one OutputColumn for each feature
asked for, in the order asked; a column points at (read, column of that read).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder
from fastserve.definitions import FeatureViewProjection
from fastserve.definitions.fingerprint import output_fields, schema_fingerprint
from fastserve.errors import RequestError
from fastserve.registry import RegisteredView, Snapshot

DEFAULT_MAX_STALENESS_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class ViewRead:
    """One row per entity of one view version, keyed by some columns of the request.

    Attributes:
        view, version: what is read.
        key_columns: request columns in the key's canonical order; empty for an entity-less view.
        key_types: their types.
        ttl_us: how long a row holds, or None for ever.
        max_staleness_us: how long a cached row may be answered; None for the default.
        names: features decoded, in the decoder's order.
    """

    view: str
    version: int
    key_columns: tuple[str, ...]
    key_types: tuple[str, ...]
    ttl_us: int | None
    max_staleness_us: int | None
    names: tuple[str, ...]
    keys: KeyEncoder
    rows: RowDecoder


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One answered feature: its output name, declared type, and where its values come from."""

    name: str
    dtype: str
    read: int
    column: int


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How to answer one request shape at one registry revision.

    Attributes:
        service: the service's name, or '' for a list of references.
        revision: the registry revision it was compiled from.
        columns: what is answered, in order.
        reads: what is read from the store.
        entity_columns: request columns needed -> key type.
        deadline_us: the service's; None without one.
        max_ages_us: how old a cached row of each read may be; 0 for never cached.
        fingerprint: 16 hex digits that change when a name, type, view version or the order changes.
    """

    service: str
    revision: int
    columns: tuple[OutputColumn, ...]
    reads: tuple[ViewRead, ...]
    entity_columns: Mapping[str, str]
    fingerprint: str
    deadline_us: int | None = None
    max_ages_us: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        allowed = [read.max_staleness_us for read in self.reads]
        ages = tuple(DEFAULT_MAX_STALENESS_US if age is None else age for age in allowed)
        object.__setattr__(self, "max_ages_us", ages)


def compile_plan(
    snapshot: Snapshot,
    projections: Sequence[FeatureViewProjection],
    *,
    service: str = "",
    full_feature_names: bool = False,
) -> ReadPlan:
    """The plan for these projections, features in the order given.

    Raises:
        UnknownObjectError: a view, version or feature is not registered.
        RequestError: two features would be answered under one name, or one column would be two keys' types.
        SchemaMismatchError: the service is pinned to a training data set of another schema.
    """
    pin = snapshot.pins.get(service)
    resolved = snapshot.resolve(projections if pin is None else pin.applied(projections))
    fields = output_fields([(part, rv.view) for part, rv in resolved], full_feature_names=full_feature_names)
    fingerprint = schema_fingerprint(fields)
    if pin is not None:
        pin.check(fingerprint, service=service, full_feature_names=full_feature_names)
    wanted: dict[tuple[int, tuple[str, ...]], tuple[RegisteredView, list[str]]] = {}
    slots: list[tuple[tuple[int, tuple[str, ...]], str, FeatureViewProjection]] = []
    for part, registered in resolved:
        columns = tuple(part.join_key_map.get(key, key) for key in registered.join_keys)
        key = (registered.view_id, columns)
        _, names = wanted.setdefault(key, (registered, []))
        for feature in part.features:
            if feature not in names:
                names.append(feature)
            slots.append((key, feature, part))
    order = {key: i for i, key in enumerate(wanted)}
    outputs = [
        OutputColumn(
            name=field.name,
            dtype=field.dtype,
            read=order[key],
            column=wanted[key][1].index(feature),
        )
        for field, (key, feature, _) in zip(fields, slots, strict=True)
    ]
    reads = tuple(_view_read(rv, columns, names) for (_, columns), (rv, names) in wanted.items())
    _refuse_collisions(outputs, slots)
    return ReadPlan(
        service=service,
        revision=snapshot.revision,
        columns=tuple(outputs),
        reads=reads,
        entity_columns=_entity_columns(reads),
        fingerprint=fingerprint,
        deadline_us=snapshot.service(service).deadline_us if service else None,
    )


def _view_read(registered: RegisteredView, columns: tuple[str, ...], names: list[str]) -> ViewRead:
    view = registered.view
    key_types = tuple(registered.join_keys.values())
    return ViewRead(
        view=view.name,
        version=view.version,
        key_columns=columns,
        key_types=key_types,
        ttl_us=view.ttl_us,
        max_staleness_us=view.max_staleness_us,
        names=tuple(names),
        keys=KeyEncoder(registered.online_id, key_types),
        rows=RowDecoder(
            {layout.layout_id: layout for layout in registered.layouts},
            names,
            {f.name: f.default for f in view.schema if f.default is not None},
        ),
    )


def _refuse_collisions(
    outputs: Sequence[OutputColumn],
    slots: Sequence[tuple[object, str, FeatureViewProjection]],
) -> None:
    seen: dict[str, str] = {}
    for output, (_, feature, part) in zip(outputs, slots, strict=True):
        source = f"{part.output_name}:{feature}"
        if output.name in seen:
            raise RequestError(
                f"{seen[output.name]} and {source} would both be answered as {output.name!r}",
                where="$.features",
                hint="ask with full_feature_names: true, or give one view an alias in the service",
            )
        seen[output.name] = source


def _entity_columns(reads: Sequence[ViewRead]) -> dict[str, str]:
    found: dict[str, str] = {}
    for read in reads:
        for column, key_type in zip(read.key_columns, read.key_types, strict=True):
            if found.setdefault(column, key_type) != key_type:
                raise RequestError(
                    f"entity column {column!r} would be {found[column]} for one view and {key_type}"
                    f" for {read.view!r}",
                    where="$.features",
                    hint="map one of them to another column by join_key_map in a service",
                )
    return found
