"""The registry at one revision: immutable, in memory, what every reader works from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from fastserve.codec.layout import Layout
from fastserve.definitions import (
    Definition,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    FeatureViewProjection,
    OnDemandFeatureView,
    PushSource,
)
from fastserve.errors import RegistryError, RequestError, SchemaMismatchError, UnknownObjectError
from fastserve.types import DType, parse_dtype


@dataclass(frozen=True)
class RegisteredView:
    """One version of a feature view as the registry knows it.

    Attributes:
        view: the definition.
        view_id: unique in the registry's database, across projects, and never given twice.
        join_keys: join key name -> type, sorted by name: the canonical key order.
        layouts: every layout so far, by ascending layout id; old rows are read by the old ones.
        row_set: the online id of the row set that is served, where it is not the first; see `at`.
        sources: of an on-demand view, what it is computed from: projections with the views they mean.
    """

    view: FeatureView
    view_id: int
    join_keys: Mapping[str, str]
    layouts: tuple[Layout, ...]
    row_set: int | None = None
    sources: tuple[tuple[FeatureViewProjection, RegisteredView], ...] = ()

    @property
    def online_id(self) -> int:
        """What the keys of its served rows begin with, as far as is known here: the store has the last word."""
        return self.view_id if self.row_set is None else self.row_set

    def at(self, online_id: int) -> RegisteredView:
        """The view with the rows of another set."""
        row_set = None if online_id == self.view_id else online_id
        return self if row_set == self.row_set else replace(self, row_set=row_set)

    @cached_property
    def layout(self) -> Layout:
        """The layout that rows are written with now."""
        fields = fields_of(self.view)
        for layout in self.layouts:
            if (layout.names, layout.dtypes) == fields:
                return layout
        raise RegistryError(
            f"view id {self.view_id} has no layout for its schema", where=f"FeatureView {self.view.name!r}"
        )

    def check_stored(self, where: str = "") -> None:
        """Raise RequestError for a view without rows of its own, of which something is asked that is done with rows."""
        if not self.view.is_stored:
            raise RequestError(
                f"on-demand view {self.view.name!r} has no rows: they are computed when they are asked for",
                where=where,
                hint="name the views that it is computed from",
            )

    @cached_property
    def needs(self) -> Mapping[str, str]:
        """Column -> type that the view needs of a request or a spine: its join keys in canonical order; an on-demand
        view those columns that its sources need, and its request columns."""
        if not isinstance(self.view, OnDemandFeatureView):
            return self.join_keys
        found: dict[str, str] = {}
        for part, source in self.sources:
            found |= {part.join_key_map.get(name, name): dtype for name, dtype in source.needs.items()}
        return MappingProxyType(found | {field.name: field.dtype for field in self.view.request})

    @cached_property
    def defaults(self) -> Mapping[str, object]:
        """Feature name -> declared default, in schema order; None where there is none."""
        return MappingProxyType({f.name: f.default for f in self.view.schema})


@dataclass(frozen=True, slots=True)
class Pin:
    """What a pinned service is held to, by the training data set it is pinned to.

    Attributes:
        dataset_id: the data set.
        fingerprint: its schema fingerprint.
        full_feature_names: how its features are named.
        versions: view -> the version it used, of the views it asked for without a version.
        functions: on-demand view and version -> SHA-256 of its function's text.
    """

    dataset_id: str
    fingerprint: str
    full_feature_names: bool
    versions: Mapping[str, int]
    functions: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def applied(self, projections: Iterable[FeatureViewProjection]) -> list[FeatureViewProjection]:
        """The projections, those without a version at the data set's."""
        return [
            part if part.version is not None else replace(part, version=self.versions.get(part.view))
            for part in projections
        ]

    def check(self, fingerprint: str, *, service: str, full_feature_names: bool) -> None:
        """Raise SchemaMismatchError unless the fingerprint is the data set's."""
        if fingerprint == self.fingerprint:
            return
        hint = "train again and pin the service to the new data set, or take pinned_to away"
        if full_feature_names != self.full_feature_names:
            wanted = str(self.full_feature_names).lower()
            hint = f"ask with full_feature_names: {wanted}, as the data set is named; or {hint}"
        raise SchemaMismatchError(
            f"the service is pinned to training data set {self.dataset_id} of schema {self.fingerprint}; "
            f"this answer's would be {fingerprint}",
            where=f"feature service {service!r}",
            hint=hint,
        )


@dataclass(frozen=True)
class Snapshot:
    """All definitions of a project at one revision. Views are keyed by (name, version).

    Attributes:
        pins: name of a pinned service -> what it is held to.
    """

    registry_id: str
    project: str
    revision: int
    entities: Mapping[str, Entity]
    views: Mapping[tuple[str, int], RegisteredView]
    services: Mapping[str, FeatureService]
    push_sources: Mapping[str, PushSource]
    pins: Mapping[str, Pin] = field(default_factory=dict)
    event_sources: Mapping[str, EventSource] = field(default_factory=dict)

    def view(self, name: str, version: int | None = None) -> RegisteredView:
        """A version of a view; the newest one without `version`.

        Raises:
            UnknownObjectError: no such view, or no such version of it.
        """
        versions = self.versions(name)
        if not versions:
            raise UnknownObjectError.of("feature view", name, {n for n, _ in self.views})
        wanted = versions[-1] if version is None else version
        if wanted not in versions:
            shown = ", ".join(map(str, versions))
            raise UnknownObjectError(
                f"feature view {name!r} has no version {wanted}", hint=f"its versions: {shown}"
            )
        return self.views[name, wanted]

    def serving(self, live: Mapping[int, int | None]) -> Snapshot:
        """The same with the row sets that are served now; itself where that changes nothing.

        Args:
            live: view id -> online id, None for a view that was retired; what is not in it stays as it is.
        """
        served = {key: live.get(rv.view_id, rv.online_id) for key, rv in self.views.items()}
        views = {
            key: self.views[key].at(online_id) for key, online_id in served.items() if online_id is not None
        }
        if len(views) == len(self.views) and all(rv is self.views[key] for key, rv in views.items()):
            return self
        return replace(self, views=MappingProxyType(views))

    @property
    def stored_views(self) -> list[RegisteredView]:
        """The views that have rows, by name and version."""
        return [rv for _, rv in sorted(self.views.items()) if rv.view.is_stored]

    def online_ids(self) -> dict[int, int]:
        """View id -> online id of every view that has rows, as far as is known here."""
        return {rv.view_id: rv.online_id for rv in self.views.values() if rv.view.is_stored}

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions of a view, ascending; none for an unknown view."""
        return self._versions.get(name, ())

    def service(self, name: str) -> FeatureService:
        """A feature service; UnknownObjectError when there is none of that name."""
        found = self.services.get(name)
        if found is None:
            raise UnknownObjectError.of("feature service", name, self.services)
        return found

    def service_parts(self, name: str) -> Sequence[FeatureViewProjection]:
        """What a service reads: its projections, at the versions it is pinned to if it is."""
        parts, pin = self.service(name).features, self.pins.get(name)
        return parts if pin is None else pin.applied(parts)

    def push_source(self, name: str) -> PushSource:
        """A push source; UnknownObjectError when there is none of that name."""
        found = self.push_sources.get(name)
        if found is None:
            raise UnknownObjectError.of("push source", name, self.push_sources)
        return found

    def resolve(
        self, projections: Iterable[FeatureViewProjection]
    ) -> list[tuple[FeatureViewProjection, RegisteredView]]:
        """Each projection with the view it means.

        Raises:
            UnknownObjectError: an unknown view, version or feature; names it.
        """
        found = []
        for part in projections:
            registered = self.view(part.view, part.version)
            known = set(registered.view.feature_names)
            for feature in part.features:
                if feature not in known:
                    raise UnknownObjectError.of(f"feature of view {part.view!r}", feature, known)
            found.append((part, registered))
        return found

    def key_columns(self) -> dict[str, str]:
        """Join key or request column -> type over all views, and the columns that services map them to."""
        found = {k: t for rv in self.views.values() for k, t in rv.needs.items()}
        for service in self.services.values():
            for part in service.features:
                for key, column in part.join_key_map.items():
                    found.setdefault(column, found.get(key, "string"))
        return found

    def definitions(self) -> tuple[Definition, ...]:
        """Everything that was applied: entities, sources, views, services, each sorted by name."""
        views = (r.view for r in self.views.values())
        entities, services = self.entities.values(), self.services.values()
        return (*entities, *self.push_sources.values(), *self.event_sources.values(), *views, *services)

    @cached_property
    def _versions(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, list[int]] = {}
        for name, version in sorted(self.views):
            found.setdefault(name, []).append(version)
        return {name: tuple(versions) for name, versions in found.items()}


def with_sources(
    views: Mapping[tuple[str, int], RegisteredView],
) -> dict[tuple[str, int], RegisteredView]:
    """The views, on-demand ones with their sources."""
    newest: dict[str, int] = {}
    for name, version in views:
        newest[name] = max(newest.get(name, 0), version)
    made: dict[tuple[str, int], RegisteredView] = {}

    def of(key: tuple[str, int]) -> RegisteredView:
        if key not in made:
            rv = views[key]
            parts = rv.view.views if isinstance(rv.view, OnDemandFeatureView) else ()
            sources = tuple((p, of((p.view, p.version or newest[p.view]))) for p in parts)
            made[key] = replace(rv, sources=sources) if sources else rv
        return made[key]

    return {key: of(key) for key in views}


def fields_of(view: FeatureView) -> tuple[tuple[str, ...], tuple[DType, ...]]:
    """(names, dtypes) of a view's features in schema order: what a layout of it holds."""
    return view.feature_names, tuple(parse_dtype(f.dtype) for f in view.schema)
