"""The rules that on-demand views must obey beside those of every view; part of validate.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from fastserve.definitions.on_demand import OnDemandFeatureView, RequestSource, columns_of
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.errors import Problem
from fastserve.timeutil import format_duration
from fastserve.types import parse_dtype

Find = Callable[[FeatureViewProjection], FeatureView | None]
Keys = Callable[[FeatureView], Mapping[str, str]]

_LEAST_BUDGET_US, _MOST_BUDGET_US = 100, 1_000_000


def check_on_demand(
    where: str,
    view: OnDemandFeatureView,
    keys: Keys,
    find: Find,
    check_part: Callable[[str, FeatureViewProjection, FeatureView], Iterable[Problem]],
) -> Iterator[Problem]:
    """What is wrong with one on-demand view, but for its name and features.

    Args:
        keys: join key -> type of a stored view.
        find: the view that a projection means, None where there is none.
        check_part: what is wrong with a projection of a view that is there.
    """
    yield from _check_function(where, view)
    for part in view.views:
        source = find(part)
        if source is None:
            shown = part.view if part.version is None else f"{part.view}@v{part.version}"
            yield Problem(where, f"refers to feature view {shown!r}, which is not declared", "declare it")
        else:
            yield from check_part(where, part, source)
    for given in view.sources:
        if isinstance(given, RequestSource):
            yield from _check_request(where, given)
    yield from _check_inputs(where, view)
    if _is_in_circle(view, find):
        yield Problem(where, "is computed from itself", "take it, or what needs it, out of the sources")
    else:
        yield from _check_columns(where, view, keys, find)


def _check_function(where: str, view: OnDemandFeatureView) -> Iterator[Problem]:
    if not view.sources:
        yield Problem(where, "has no sources", "name what it is computed from: views, or a RequestSource")
    module, _, name = view.function.partition(":")
    if not (module.isidentifier() and name.isidentifier()):
        fix = "write it at the top level of a file of the repo, under @on_demand_feature_view"
        yield Problem(where, f"function {view.function!r} is no MODULE:NAME", fix)
    if not _LEAST_BUDGET_US <= view.budget_us <= _MOST_BUDGET_US:
        shown = format_duration(view.budget_us) if view.budget_us > 0 else str(view.budget_us)
        yield Problem(where, f"budget is {shown}", "from 100us to 1s, or leave it out for the default")
    for field in view.schema:
        if field.default is not None:
            fix = "leave it out: let the function give a value for every row"
            yield Problem(f"{where}, feature {field.name!r}", "has a default", fix)


def _check_request(where: str, source: RequestSource) -> Iterator[Problem]:
    place = f"{where}, RequestSource {source.name!r}"
    if not source.schema:
        yield Problem(place, "has no columns", "list at least one Field in schema=")
    for field in source.schema:
        if not isinstance(field.name, str) or not field.name.isidentifier():
            yield Problem(place, f"{field.name!r} is not a usable column name", "use letters, digits and _")
        try:
            parse_dtype(field.dtype)
        except ValueError as error:
            yield Problem(f"{place}, column {field.name!r}", str(error), "use a type of fastserve.types")
        if field.default is not None:
            fix = "leave it out: the request says null where there is no value"
            yield Problem(f"{place}, column {field.name!r}", "has a default", fix)


def _check_inputs(where: str, view: OnDemandFeatureView) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, source, _ in view.inputs():
        of = source.name if isinstance(source, RequestSource) else source.output_name
        if name in seen:
            fix = "give one of the views an alias by with_name(): its inputs are then named alias__feature"
            yield Problem(where, f"{seen[name]!r} and {of!r} would both give the input {name!r}", fix)
        seen[name] = of


def _check_columns(where: str, view: OnDemandFeatureView, keys: Keys, find: Find) -> Iterator[Problem]:
    """A column of the request has one type, and no feature has its name."""
    types: dict[str, tuple[str, str]] = {}
    for column, dtype, reader in columns_of(view, keys, find):
        other, first = types.setdefault(column, (dtype, reader))
        if other != dtype:
            fix = "rename the request column, or map the view to another by with_join_key_map()"
            yield Problem(
                where, f"column {column!r} is {other} for {first!r} and {dtype} for {reader!r}", fix
            )
    for feature in view.feature_names:
        if feature in types:
            fix = "rename the feature: columns of the request are always in the answer"
            yield Problem(f"{where}, feature {feature!r}", "has the name of a column that it needs", fix)


def _is_in_circle(view: OnDemandFeatureView, find: Find) -> bool:
    todo: list[FeatureView] = [view]
    seen: set[tuple[str, int]] = set()
    while todo:
        one = todo.pop()
        for part in one.views if isinstance(one, OnDemandFeatureView) else ():
            source = find(part)
            if source is None or (source.name, source.version) in seen:
                continue
            if (source.name, source.version) == (view.name, view.version):
                return True
            seen.add((source.name, source.version))
            todo.append(source)
    return False
