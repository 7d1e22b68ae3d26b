"""Compile "these features, at this registry revision" into a frozen ReadPlan.

Everything that depends on definitions alone happens here, once per revision: key prefixes, row layouts, output
names and order, defaults, the schema fingerprint, what on-demand views need. The read path only follows the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.fold import Folder
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.definitions import (
    AggregatedFeatureView,
    FeatureViewProjection,
    OnDemandFeatureView,
    RequestSource,
)
from fastserve.definitions.fingerprint import output_fields, schema_fingerprint
from fastserve.errors import RequestError
from fastserve.offline.schema import feature_types
from fastserve.registry import RegisteredView, Snapshot
from fastserve.serving.computing import Computing
from fastserve.serving.derive import Derivation, Step, Stored
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.types import DType

Key = tuple[int, tuple[str, ...]]
Renamed = Callable[[str], str]


def compile_plan(
    snapshot: Snapshot,
    projections: Sequence[FeatureViewProjection],
    *,
    service: str = "",
    full_feature_names: bool = False,
    computing: Computing | None = None,
) -> ReadPlan:
    """The plan for these projections, features in the order given.

    Args:
        computing: of on-demand views; without it they are UNAVAILABLE.

    Raises:
        UnknownObjectError: a view, version or feature is not registered.
        RequestError: two features would be answered under one name, or one column would be of two types.
        SchemaMismatchError: the service is pinned to a training data set of another schema.
    """
    pin = snapshot.pins.get(service)
    resolved = snapshot.resolve(projections if pin is None else pin.applied(projections))
    fields = output_fields([(part, rv.view) for part, rv in resolved], full_feature_names=full_feature_names)
    fingerprint = schema_fingerprint(fields)
    if pin is not None:
        pin.check(fingerprint, service=service, full_feature_names=full_feature_names)
    needs = _Needs(snapshot, computing or Computing(None))
    answered: dict[Key, list[str]] = {}
    slots: list[tuple[Key, str, FeatureViewProjection]] = []
    for part, rv in resolved:
        key = needs.add(rv, _renaming(part))
        names = answered.setdefault(key, [])
        for feature in part.features:
            if feature not in names:
                names.append(feature)
            slots.append((key, feature, part))
    order = {key: i for i, key in enumerate(answered)}
    outputs = tuple(
        OutputColumn(f.name, f.dtype, order[key], answered[key].index(feature))
        for f, (key, feature, _) in zip(fields, slots, strict=True)
    )
    _refuse_collisions(outputs, slots, needs.request_columns)
    made = ReadPlan(
        service=service,
        revision=snapshot.revision,
        columns=outputs,
        reads=tuple(needs.view_read(key, names) for key, names in answered.items()),
        entity_columns=needs.entity_columns,
        fingerprint=fingerprint,
        deadline_us=snapshot.service(service).deadline_us if service else None,
        request_columns=needs.request_columns,
        parts=tuple(replace(part, version=rv.view.version) for part, rv in resolved),
        full_feature_names=full_feature_names,
    )
    folds = needs.folds()
    return needs.planned(made, answered, folds) if needs.steps or folds else made


@dataclass(slots=True)
class _Needs:
    """What has to be read and computed for the features asked for, each once.

    Attributes:
        stored: what is read from the store, in the order of first need.
        steps: what is computed, in an order in which each comes after what it needs.
        entity_columns, request_columns: column of the request -> type.
    """

    snapshot: Snapshot
    computing: Computing
    stored: dict[Key, RegisteredView] = field(default_factory=dict)
    steps: dict[Key, tuple[RegisteredView, Step]] = field(default_factory=dict)
    entity_columns: dict[str, str] = field(default_factory=dict)
    request_columns: dict[str, str] = field(default_factory=dict)

    def add(self, rv: RegisteredView, renamed: Renamed) -> Key:
        """One view, read or computed, with its columns under the request's names."""
        columns = tuple(renamed(column) for column in rv.needs)
        key = rv.view_id, columns
        if isinstance(rv.view, OnDemandFeatureView):
            if key not in self.steps:
                self.steps[key] = rv, self._step(rv, rv.view, renamed)
        elif key not in self.stored:
            self.stored[key] = rv
            for column, key_type in zip(columns, rv.join_keys.values(), strict=True):
                self._column(self.entity_columns, column, key_type, rv.view.name)
        return key

    def _step(self, rv: RegisteredView, view: OnDemandFeatureView, renamed: Renamed) -> Step:
        stored: list[Stored] = []
        computed: list[tuple[int, str, DType, str]] = []
        request: list[tuple[str, str]] = []
        inputs: dict[int, list[tuple[str, str]]] = {}
        for name, source, feature in view.inputs():
            inputs.setdefault(id(source), []).append((name, feature))
        for source in view.sources:
            pairs = inputs.get(id(source), [])
            if isinstance(source, RequestSource):
                for field_ in source.schema:
                    self._column(self.request_columns, renamed(field_.name), field_.dtype, view.name)
                request += [(renamed(column), name) for name, column in pairs]
                continue
            ((part, other),) = self.snapshot.resolve([source])
            key = self.add(other, _after(renamed, _renaming(part)))
            if key in self.steps:
                number = list(self.steps).index(key)
                types = feature_types(other, [feature for _, feature in pairs])
                computed += [(number, feature, types[feature], name) for name, feature in pairs]
            else:
                rows = _decoder(other, [feature for _, feature in pairs])
                stored.append(Stored(list(self.stored).index(key), rows, tuple(name for name, _ in pairs)))
        keys = KeyEncoder(rv.online_id, ())
        run = self.computing.of(view)
        return Step(run, tuple(stored), tuple(computed), tuple(request), keys, RowEncoder(rv.layout))

    def _column(self, columns: dict[str, str], column: str, dtype: str, view: str) -> None:
        for known in (self.entity_columns, self.request_columns):
            if known.get(column, dtype) != dtype:
                raise RequestError(
                    f"column {column!r} of the request would be {known[column]} for one view and {dtype}"
                    f" for {view!r}",
                    where="$.features",
                    hint="map one of them to another column by join_key_map in a service",
                )
        columns[column] = dtype

    def view_read(self, key: Key, names: Sequence[str]) -> ViewRead:
        """What is read of a view, or computed: the features that are answered."""
        computed = key in self.steps
        rv = self.steps[key][0] if computed else self.stored[key]
        return ViewRead(
            view=rv.view.name,
            version=rv.view.version,
            key_columns=() if computed else key[1],
            key_types=tuple(rv.join_keys.values()),
            ttl_us=rv.view.ttl_us,
            max_staleness_us=rv.view.max_staleness_us,
            names=tuple(names),
            keys=KeyEncoder(rv.online_id, tuple(rv.join_keys.values())),
            rows=_decoder(rv, names),
            computed=computed,
        )

    def folds(self) -> tuple[tuple[int, Folder], ...]:
        """(number of a read from the store, what folds its tile rows) of the aggregated views."""
        return tuple(
            (i, Folder(compile_program(rv.view), rv.layout))
            for i, rv in enumerate(self.stored.values())
            if isinstance(rv.view, AggregatedFeatureView)
        )

    def planned(
        self,
        plan: ReadPlan,
        answered: Mapping[Key, Sequence[str]],
        folds: tuple[tuple[int, Folder], ...],
    ) -> ReadPlan:
        """The plan of what is read from the store, and of what is made of it.

        Args:
            plan: of the answer.
            answered: what its reads are of, and the features of each.
        """
        stored, steps = list(self.stored), list(self.steps)
        parts = tuple(
            (False, stored.index(key)) if key in self.stored else (True, steps.index(key)) for key in answered
        )
        return replace(
            plan,
            reads=tuple(self.view_read(key, answered.get(key, ())) for key in stored),
            derivation=Derivation(plan, parts, folds, tuple(step for _, step in self.steps.values())),
        )


def _renaming(part: FeatureViewProjection) -> Renamed:
    return lambda column: part.join_key_map.get(column, column)


def _after(outer: Renamed, inner: Renamed) -> Renamed:
    return lambda column: outer(inner(column))


def _decoder(rv: RegisteredView, names: Sequence[str]) -> RowDecoder:
    return RowDecoder({layout.layout_id: layout for layout in rv.layouts}, list(names), rv.defaults)


def _refuse_collisions(
    outputs: Sequence[OutputColumn],
    slots: Sequence[tuple[object, str, FeatureViewProjection]],
    request_columns: Mapping[str, str],
) -> None:
    seen = dict.fromkeys(request_columns, "the request's column")
    for output, (_, feature, part) in zip(outputs, slots, strict=True):
        source = f"{part.output_name}:{feature}"
        if output.name in seen:
            raise RequestError(
                f"{seen[output.name]} and {source} would both be answered as {output.name!r}",
                where="$.features",
                hint="ask with full_feature_names: true, or give one view an alias in the service",
            )
        seen[output.name] = source
