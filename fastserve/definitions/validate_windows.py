"""The rules that event sources and aggregations must obey; part of validate.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.definitions.aggregation import EVERY, FUNCTIONS, Aggregation
from fastserve.definitions.event_source import EventSource
from fastserve.definitions.field import RESERVED
from fastserve.errors import DefinitionError, Problem, guess
from fastserve.timeutil import DAY_US, format_duration, parse_duration
from fastserve.types import SCALARS

MAX_WINDOW_US: Final = 3_650 * DAY_US
MAX_TILES: Final = 100_000
MAX_LAST_N: Final = 1_000
DISTINCT_BOUNDS: Final = (3, 65_536)
MAX_LATENESS_US: Final = 30 * DAY_US


def check_events(where: str, source: EventSource) -> Iterator[Problem]:
    """What is wrong with an event source, beside its name and its batch source."""
    seen: set[str] = set()
    for column in source.schema:
        place = f"{where}, column {column.name!r}"
        if not isinstance(column.name, str) or not column.name.isidentifier() or column.name in RESERVED:
            fix = f"letters, digits and _, and none of {', '.join(RESERVED)}; field_mapping renames a file's"
            yield Problem(place, "is not a usable column name", fix)
        if column.name in seen:
            yield Problem(place, "is declared twice", "keep one of them")
        seen.add(column.name)
        if column.dtype not in SCALARS:
            yield Problem(place, f"has type {column.dtype!r}", f"events have scalars: {', '.join(SCALARS)}")
        if column.default is not None:
            yield Problem(place, "has a default", "leave it out: a value that is missing is null")
    if not isinstance(source.event_id, str):
        yield Problem(where, f"event_id is a {type(source.event_id).__name__}", "name a column")
    if not 0 <= source.lateness_us <= MAX_LATENESS_US:
        yield Problem(
            where,
            f"lateness is {format_duration(source.lateness_us)}"
            if source.lateness_us > 0
            else "lateness is negative",
            f"from 0s to {format_duration(MAX_LATENESS_US)}",
        )


def check_aggregated(
    where: str, view: AggregatedFeatureView, join_keys: Mapping[str, str]
) -> Iterator[Problem]:
    """What is wrong with an aggregated view, beside what any view may have wrong."""
    source = view.source
    if not isinstance(source, EventSource):
        kind = type(source).__name__
        fix = 'wrap it: EventSource("name", batch_source, schema=[…])'
        yield Problem(where, f"its source is a {kind}, and aggregations are of events", fix)
        return
    if not view.aggregations:
        yield Problem(where, "has no aggregations", "list at least one Aggregation")
    for number, aggregation in enumerate(view.aggregations):
        place = f"{where}, aggregation {number + 1}"
        if not isinstance(aggregation, Aggregation):
            yield Problem(place, f"is a {type(aggregation).__name__}", "give an Aggregation")
            continue
        place += f" ({aggregation.function} of {aggregation.column})"
        yield from _check_column(place, aggregation, source, join_keys)
        yield from _check_arguments(place, aggregation)
        yield from _check_windows(place, aggregation)
    if source.event_id in join_keys:
        fix = "name a column that differs from event to event"
        yield Problem(where, f"the event id {source.event_id!r} is a join key", fix)
    if not isinstance(view.filter, str):
        yield Problem(where, f"filter is a {type(view.filter).__name__}", "write an SQL condition as text")
    elif view.filter:
        yield from _check_filter(f"{where}, filter", view.filter, source, join_keys)


def _check_column(
    where: str, aggregation: Aggregation, source: EventSource, join_keys: Mapping[str, str]
) -> Iterator[Problem]:
    function, name = aggregation.function, aggregation.column
    if function not in FUNCTIONS:
        fix = f"{guess(str(function), FUNCTIONS)}one of {', '.join(FUNCTIONS)}"
        yield Problem(where, f"unknown function {function!r}", fix)
    if name == EVERY:
        if function in FUNCTIONS and function != "count":
            yield Problem(where, f"{function} needs a column", "name one; only count takes '*'")
        return
    column = source.column(name)
    if column is None:
        known = [c.name for c in source.schema]
        lists = f"the schema of source {source.name!r} lists {', '.join(known) or 'no columns'}"
        fix = guess(str(name), known) + lists
        yield Problem(where, f"unknown column {name!r}", fix)
    elif function in FUNCTIONS and column.dtype in SCALARS and column.dtype not in FUNCTIONS[function]:
        takes = ", ".join(FUNCTIONS[function])
        yield Problem(where, f"{function} does not take {column.dtype}", f"it takes {takes}")
    if name in join_keys:
        yield Problem(
            where, f"{name!r} is a join key of the view", "it is the same in all events of an entity"
        )


def _check_arguments(where: str, aggregation: Aggregation) -> Iterator[Problem]:
    function, n, quantile = aggregation.function, aggregation.n, aggregation.quantile
    if function == "last_n":
        if not _whole(n) or not 1 <= n <= MAX_LAST_N:
            yield Problem(where, f"n is {n!r}", f"say how many values are kept: n=1 … {MAX_LAST_N}")
    elif n != 0:
        yield Problem(where, f"{function} takes no n", "n is of last_n")
    if function == "approx_quantile":
        number = isinstance(quantile, (int, float)) and not isinstance(quantile, bool)
        if not number or not 0 <= quantile <= 1:  # type: ignore[operator]
            yield Problem(where, f"quantile is {quantile!r}", "give one from 0 to 1, such as quantile=0.95")
    elif quantile is not None:
        yield Problem(where, f"{function} takes no quantile", "quantile is of approx_quantile")
    least, most = DISTINCT_BOUNDS
    if not _whole(aggregation.bound) or not least <= aggregation.bound <= most:
        yield Problem(where, f"bound is {aggregation.bound!r}", f"from {least} to {most}")


def _check_windows(where: str, aggregation: Aggregation) -> Iterator[Problem]:
    if not aggregation.windows:
        yield Problem(where, "has no window", 'name one or more: windows=["1h", "30d"]')
    hop_us = None
    if aggregation.hop is not None:
        try:
            hop_us = parse_duration(aggregation.hop)
        except ValueError as error:
            yield Problem(f"{where}, hop", str(error), "or 0 for exact windows, or leave it out")
            return
    for window in aggregation.windows:
        try:
            window_us = parse_duration(window)
        except ValueError as error:
            yield Problem(f"{where}, window {window!r}", str(error), "write it so")
            continue
        if not 0 < window_us <= MAX_WINDOW_US:
            what = "is empty" if window_us <= 0 else "is too long"
            yield Problem(f"{where}, window {window!r}", what, f"up to {format_duration(MAX_WINDOW_US)}")
        elif hop_us:
            yield from _check_hop(f"{where}, window {window!r}", window_us, hop_us)


def _check_hop(where: str, window_us: int, hop_us: int) -> Iterator[Problem]:
    hop, window = format_duration(hop_us), format_duration(window_us)
    if hop_us > window_us:
        fix = "a window is up to a hop longer than it says: give it a hop no longer than itself"
        yield Problem(where, f"hop {hop} is longer than the window", fix)
    elif window_us % hop_us:
        fix = "give it a hop that divides it, or leave the hop out"
        yield Problem(where, f"hop {hop} does not divide {window}", fix)
    elif window_us // hop_us > MAX_TILES:
        least = format_duration(-(-window_us // MAX_TILES // 1_000_000) * 1_000_000)
        fix = f"at most {MAX_TILES:,}: a hop of {least} or more; or 0, which keeps every event"
        yield Problem(where, f"hop {hop} makes {window_us // hop_us:,} tiles", fix)


def _check_filter(
    where: str, text: str, source: EventSource, join_keys: Mapping[str, str]
) -> Iterator[Problem]:
    from fastserve.definitions.filters import compile_filter  # noqa: PLC0415  (Arrow and sqlglot)

    types = {c.name: c.dtype for c in source.schema if c.dtype in SCALARS and c.name not in join_keys}
    try:
        compile_filter(text, types, where)
    except DefinitionError as error:
        yield from error.problems


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
