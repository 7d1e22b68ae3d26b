"""Every rule that definitions must obey, checked over the whole set: all problems at once.

Each `_check_*` yields Problem(where, what is wrong, the fix); none of them stops at the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from fastserve.definitions import Definition
from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.definitions.defaults import default_problem
from fastserve.definitions.entity import Entity
from fastserve.definitions.event_source import EventSource
from fastserve.definitions.field import RESERVED
from fastserve.definitions.on_demand import OnDemandFeatureView, columns_of
from fastserve.definitions.service import FeatureService
from fastserve.definitions.source import BatchSource, FileSource, PushSource, Source, SQLSource
from fastserve.definitions.validate_on_demand import check_on_demand
from fastserve.definitions.validate_sources import check_source
from fastserve.definitions.validate_windows import check_aggregated, check_events
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.errors import DefinitionError, Problem
from fastserve.timeutil import DAY_US, MAX_US, format_duration
from fastserve.types import KEY_TYPES, parse_dtype

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ALIAS: Final = re.compile(NAME.pattern + r"(@v[0-9]+)?")  # refs to a version are named after it
_NAME_FIX: Final = "use letters, digits and _, starting with a letter or _, at most 128 characters"


def check(objects: Sequence[Definition]) -> None:
    """Raise DefinitionError with every problem in this set of definitions; return when there is none."""
    problems = list(find_problems(objects))
    if problems:
        raise DefinitionError(problems)


def find_problems(objects: Sequence[Definition]) -> Iterator[Problem]:
    """Every problem, in the order of the objects. References must resolve within the set."""
    entities = {o.name: o for o in objects if isinstance(o, Entity)}
    views = {(o.name, o.version): o for o in objects if isinstance(o, FeatureView)}
    yield from _check_unique(objects)
    for obj in objects:
        where = label(obj)
        yield from _check_name(where, obj)
        yield from _check_about(where, obj)
        if isinstance(obj, Entity):
            yield from _check_entity(where, obj)
        elif isinstance(obj, FeatureView):
            yield from _check_view(where, obj, entities)
            if isinstance(obj, OnDemandFeatureView):
                yield from _check_on_demand(where, obj, views, entities)
        elif isinstance(obj, FeatureService):
            yield from _check_service(where, obj, views, entities)
        else:
            yield from _check_source(where, obj)


def label(obj: Definition) -> str:
    """How messages name an object: ``FeatureView 'stats'``, ``FeatureView 'stats@v2'``."""
    version = getattr(obj, "version", 1)
    return f"{type(obj).__name__} '{obj.name}{f'@v{version}' if version != 1 else ''}'"


def join_keys_of(view: FeatureView, entities: dict[str, Entity]) -> dict[str, str]:
    """Join key name -> type, sorted by name: the canonical key order of a view."""
    keys: dict[str, str] = {}
    for name in view.entities:
        entity = entities.get(name)
        if entity:
            keys.update(zip(entity.join_keys, entity.dtypes, strict=False))
    return dict(sorted(keys.items()))


def columns_needed(
    view: FeatureView, entities: dict[str, Entity], views: dict[tuple[str, int], FeatureView]
) -> dict[str, str]:
    """Column -> type that a view needs of a request or a spine: its join keys; of an on-demand view those of all that
    it is computed from, and request columns."""
    if not isinstance(view, OnDemandFeatureView):
        return join_keys_of(view, entities)
    found = columns_of(view, lambda v: join_keys_of(v, entities), lambda part: resolve(part, views))
    return {column: dtype for column, dtype, _ in found}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    near = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_unique(objects: Sequence[Definition]) -> Iterator[Problem]:
    seen: dict[tuple[str, str, int], Definition] = {}
    for obj in objects:
        kind = "source" if isinstance(obj, (BatchSource, PushSource, EventSource)) else type(obj).__name__
        kind = "view" if isinstance(obj, FeatureView) else kind  # views of all kinds share their names
        key = (kind, obj.name, getattr(obj, "version", 1))
        if key in seen and seen[key] != obj:
            yield Problem(
                label(obj), "is declared twice, differently", "rename one, or keep only one of them"
            )
        seen.setdefault(key, obj)


def _check_name(where: str, obj: Definition) -> Iterator[Problem]:
    if isinstance(obj, (FileSource, SQLSource)):  # named by path or query unless the user says otherwise
        if not obj.name:
            yield Problem(where, "has no name", "give it a path or a name")
        return
    if not _usable(obj.name):
        yield Problem(where, f"{obj.name!r} is not a usable name", _NAME_FIX)


def _usable(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _check_about(where: str, obj: Definition) -> Iterator[Problem]:
    """What is for people is stored as text."""
    for attribute in ("description", "owner"):
        value = getattr(obj, attribute)
        if not isinstance(value, str):
            yield Problem(where, f"{attribute} is a {type(value).__name__}", f"write {attribute} as text")
    for tag, value in obj.tags.items():
        if not isinstance(tag, str) or not isinstance(value, str):
            yield Problem(where, f"tag {tag!r} is {value!r}", "write tags and their values as text")


def _check_entity(where: str, entity: Entity) -> Iterator[Problem]:
    if len(entity.dtypes) != len(entity.join_keys):
        yield Problem(
            where,
            f"has {len(entity.join_keys)} join keys but {len(entity.dtypes)} types",
            "give one type for all, or one per join key",
        )
    for key, dtype in zip(entity.join_keys, entity.dtypes, strict=False):
        if not _usable(key) or key in RESERVED:
            yield Problem(where, f"join key {key!r} is not a usable column name", "rename it")
        if dtype not in KEY_TYPES:
            yield Problem(
                where,
                f"join key {key!r} has type {dtype!r}",
                f"a join key is one of {', '.join(KEY_TYPES)}",
            )
    if len(set(entity.join_keys)) != len(entity.join_keys):
        yield Problem(where, "names a join key twice", "name each join key once")


def _check_view(where: str, view: FeatureView, entities: dict[str, Entity]) -> Iterator[Problem]:
    for name in view.entities:
        if name not in entities:
            yield Problem(
                where,
                f"refers to entity {name!r}, which is not declared",
                f"declare Entity({name!r}){did_you_mean(name, entities)}",
            )
    yield from _check_key_types(where, view, entities)
    if not isinstance(view.version, int) or view.version < 1:
        yield Problem(where, f"version is {view.version!r}", "versions count from 1")
    if view.ttl_us is not None and not 0 < view.ttl_us <= MAX_US:
        problem = "is not positive" if view.ttl_us <= 0 else "is longer than time itself"
        yield Problem(where, f"ttl {problem}", "leave ttl out for rows that hold for ever")
    yield from _check_limit(where, "max_staleness", view.max_staleness_us, 0)
    yield from _check_retention(where, view)
    join_keys = join_keys_of(view, entities)
    if isinstance(view, AggregatedFeatureView):
        yield from check_aggregated(where, view, join_keys)
    elif not view.schema:
        yield Problem(where, "has no features", "list at least one Field in schema=")
    elif isinstance(view.source, EventSource):
        fix = "declare an AggregatedFeatureView, or give the view the event source's batch source"
        yield Problem(where, f"has rows, and {view.source.name!r} has events", fix)
    yield from _check_fields(where, view, join_keys)
    if view.source is not None:
        place = f"{where}, source {view.source.name!r}"
        yield from _check_name(place, view.source)
        yield from _check_source(place, view.source)


def _check_source(where: str, source: Source) -> Iterator[Problem]:
    yield from check_source(where, source)
    if isinstance(source, EventSource):
        yield from check_events(where, source)


def _check_on_demand(
    where: str,
    view: OnDemandFeatureView,
    views: dict[tuple[str, int], FeatureView],
    entities: dict[str, Entity],
) -> Iterator[Problem]:
    def check_part(where: str, part: FeatureViewProjection, source: FeatureView) -> Iterator[Problem]:
        return _check_part(where, part, source, columns_needed(source, entities, views))

    yield from check_on_demand(
        where, view, lambda v: join_keys_of(v, entities), lambda part: resolve(part, views), check_part
    )


def _check_retention(where: str, view: FeatureView) -> Iterator[Problem]:
    """A row that may still be the answer must not be removed."""
    kept, ttl = view.retention_us, view.ttl_us
    if kept is None:
        return
    if not 0 < kept <= MAX_US:
        problem = "is not positive" if kept <= 0 else "is longer than time itself"
        yield Problem(where, f"retention {problem}", "leave retention out to keep rows for ever")
    elif ttl is None:
        yield Problem(
            where,
            "has a retention but no ttl, so that its rows hold for ever",
            f"give it a ttl of at most {format_duration(kept)}, or leave retention out",
        )
    elif kept < ttl:
        yield Problem(
            where,
            f"retention {format_duration(kept)} is shorter than ttl {format_duration(ttl)}",
            "keep rows at least as long as they hold",
        )


def _check_limit(where: str, name: str, value_us: int | None, least_us: int) -> Iterator[Problem]:
    if value_us is None or least_us <= value_us <= DAY_US:
        return
    what = f"{name} is {format_duration(value_us)}" if value_us > 0 else f"{name} is not positive"
    yield Problem(where, what, f"from {format_duration(least_us)} to a day, or leave it out for the default")


def _check_key_types(where: str, view: FeatureView, entities: dict[str, Entity]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in view.entities:
        entity = entities.get(name)
        for key, dtype in zip(entity.join_keys, entity.dtypes, strict=False) if entity else ():
            if seen.setdefault(key, dtype) != dtype:
                yield Problem(
                    where,
                    f"join key {key!r} is {seen[key]} in one entity and {dtype} in another",
                    "give the join key one type in all entities",
                )


def _check_fields(where: str, view: FeatureView, join_keys: dict[str, str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for field in view.schema:
        place = f"{where}, feature {field.name!r}"
        if not _usable(field.name) or field.name in RESERVED or field.name[:2] == "__":
            yield Problem(
                place,
                "is not a usable feature name",
                f"use letters, digits and _; not starting with __, not one of {', '.join(RESERVED)}",
            )
        if field.name in join_keys:
            yield Problem(place, "has the name of a join key", "drop it: join keys are always in the answer")
        if field.name in seen:
            yield Problem(place, "is declared twice", "keep one of them")
        seen.add(field.name)
        try:
            dtype = parse_dtype(field.dtype)
        except ValueError as error:
            yield Problem(place, str(error), "use a type of fastserve.types")
        else:
            complaint = default_problem(field.default, dtype)
            if complaint:
                yield Problem(place, complaint, f"give a default of type {dtype}, or none")


def _check_service(
    where: str,
    service: FeatureService,
    views: dict[tuple[str, int], FeatureView],
    entities: dict[str, Entity],
) -> Iterator[Problem]:
    yield from _check_limit(where, "deadline", service.deadline_us, 1_000)
    if not isinstance(service.pinned_to, str):
        kind = type(service.pinned_to).__name__
        yield Problem(where, f"pinned_to is a {kind}", "write the id of a training data set as text")
    if not service.features:
        yield Problem(where, "has no features", "list views, view[[…]] or 'view:feature' refs")
    seen: set[tuple[str, str]] = set()
    columns: dict[str, tuple[str, str]] = {}
    for part in service.features:
        view = resolve(part, views)
        if view is None:
            name = part.view if part.version is None else f"{part.view}@v{part.version}"
            yield Problem(
                where,
                f"refers to feature view {name!r}, which is not declared",
                "declare it" + did_you_mean(part.view, (n for n, _ in views)),
            )
            continue
        needed = columns_needed(view, entities, views)
        yield from _check_part(where, part, view, needed)
        yield from _check_columns(where, part, needed, columns)
        for feature in part.features:
            if (part.output_name, feature) in seen:
                yield Problem(
                    where,
                    f"names {part.output_name}:{feature} twice",
                    "drop one, or give one view an alias by with_name()",
                )
            seen.add((part.output_name, feature))


def _check_part(
    where: str, part: FeatureViewProjection, view: FeatureView, needed: Mapping[str, str]
) -> Iterator[Problem]:
    if not part.features:
        yield Problem(where, f"takes no feature of view {view.name!r}", "name at least one, or drop the view")
    if not _ALIAS.fullmatch(part.output_name):
        yield Problem(where, f"with_name({part.alias!r}) is not a usable name", _NAME_FIX)
    for feature in part.features:
        if view.field(feature) is None:
            yield Problem(
                where,
                f"view {view.name!r} has no feature {feature!r}",
                "name one of its features" + did_you_mean(feature, view.feature_names),
            )
    for key in part.join_key_map:
        if key not in needed:
            yield Problem(
                where,
                f"join_key_map names {key!r}, which is no join key of {view.name!r}",
                f"its join keys are {', '.join(needed) or 'none'}",
            )


def _check_columns(
    where: str,
    part: FeatureViewProjection,
    needed: Mapping[str, str],
    columns: dict[str, tuple[str, str]],
) -> Iterator[Problem]:
    """A column of the request has one type. `columns`: column -> (type, view that reads it so), filled here."""
    for key, dtype in needed.items():
        column = part.join_key_map.get(key, key)
        other, view = columns.setdefault(column, (dtype, part.output_name))
        if other != dtype:
            yield Problem(
                where,
                f"reads column {column!r} as {other} for {view!r} and as {dtype} for {part.output_name!r}",
                f"give {part.output_name!r} a column of its own by with_join_key_map()",
            )


def resolve(part: FeatureViewProjection, views: dict[tuple[str, int], FeatureView]) -> FeatureView | None:
    """The view a projection means: its version, or the newest one."""
    if part.version is not None:
        return views.get((part.view, part.version))
    versions = [version for name, version in views if name == part.view]
    return views[part.view, max(versions)] if versions else None
