"""Aggregated views in plans: what an aggregation says, and which changes make other values of the same features."""

from __future__ import annotations

from collections.abc import Iterator

from fastserve.aggregations.compile import compile_program
from fastserve.definitions import AggregatedFeatureView, Aggregation, EventSource, FeatureView
from fastserve.definitions.validate import label
from fastserve.errors import Problem
from fastserve.timeutil import format_duration, parse_duration


def aggregation_text(aggregation: Aggregation, window: str) -> str:
    """``sum of amount over 30d, hop 1d``; of one that is not valid, as far as it can be told."""
    arguments = {
        "last_n": f"last {aggregation.n}",
        "approx_quantile": f"approximate quantile {aggregation.quantile}",
        "count_distinct": f"count of distinct values, exact to {aggregation.bound - 1},",
    }
    what = arguments.get(aggregation.function, aggregation.function)
    try:
        window_us = parse_duration(window)
        hop_us = aggregation.hop_us(window_us)
    except ValueError:
        return f"{what} of {aggregation.column} over {window}"
    hop = "exact" if hop_us == 1 else f"hop {format_duration(hop_us)}"
    return f"{what} of {aggregation.column} over {format_duration(window_us)}, {hop}"


def changed_meaning(old: FeatureView, new: FeatureView, following: int) -> Iterator[Problem]:
    """What makes rows of tiles that are stored already mean something else; a new version starts empty."""
    if not isinstance(old, AggregatedFeatureView) or not isinstance(new, AggregatedFeatureView):
        return
    where = label(new)
    fix = f"declare version={following} of the view; both are served until the old one is retired"
    before, now = _features(old), _features(new)
    for name, text in now.items():
        if name not in before:
            yield Problem(f"{where}, feature {name!r}", "is new, and tiles stored already lack it", fix)
        elif before[name] != text:
            yield Problem(f"{where}, feature {name!r}", f"changed from {before[name]} to {text}", fix)
    if old.filter != new.filter:
        yield Problem(where, f"its filter changed from {_quoted(old)} to {_quoted(new)}", fix)
    if isinstance(new.source, EventSource):
        yield from _changed_events(where, old, new, fix)


def _changed_events(
    where: str, old: AggregatedFeatureView, new: AggregatedFeatureView, fix: str
) -> Iterator[Problem]:
    if old.events.name != new.events.name:
        yield Problem(where, f"its events changed from {old.events.name!r} to {new.events.name!r}", fix)
    if old.events.event_id != new.events.event_id:
        what = (repr(source.event_id) if source.event_id else "none" for source in (old.events, new.events))
        yield Problem(where, "the id of its events changed from {} to {}".format(*what), fix)
    for column in compile_program(old).columns:
        now = new.events.column(column.name)
        if now is not None and now.dtype != column.dtype:
            message = f"column {column.name!r} of its events changed from {column.dtype} to {now.dtype}"
            yield Problem(where, message, fix)
    same_features = _features(old) == _features(new) and old.feature_names != new.feature_names
    if same_features:
        yield Problem(
            where, "its aggregations are in another order, and so are tiles", f"keep the order, or {fix}"
        )


def _features(view: AggregatedFeatureView) -> dict[str, str]:
    return {
        name: aggregation_text(aggregation, window)
        for aggregation in view.aggregations
        for name, window in aggregation.features()
    }


def _quoted(view: AggregatedFeatureView) -> str:
    return repr(view.filter) if view.filter else "none"
