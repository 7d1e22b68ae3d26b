"""A feed by hand."""

from __future__ import annotations

from typing import Any

from fastserve.codec.layout import Layout
from fastserve.definitions import AggregatedFeatureView, Aggregation, Entity, EventSource, Field
from fastserve.registry import RegisteredView
from fastserve.registry.snapshot import fields_of
from fastserve.streaming.feeds import Feed, event_columns
from fastserve.timeutil import MICROS

CARD = Entity("card", "card_id", "int64")
T0 = 1_700_000_000 * MICROS


def payments(**options: Any) -> EventSource:
    schema = [Field("amount", "float64"), Field("status", "string")]
    return EventSource("payments", schema=schema, **{"event_id": "payment_id", "lateness": "1h", **options})


def spend(
    source: EventSource, name: str = "spend", filter: str = "", **options: Any
) -> AggregatedFeatureView:
    return AggregatedFeatureView(
        name,
        entities=[CARD],
        source=source,
        filter=filter,
        aggregations=[
            Aggregation("amount", "sum", windows=["5m", "1h"]),
            Aggregation("*", "count", windows=["1h"]),
            Aggregation("status", "last", windows=["1h"]),
        ],
        **options,
    )


def registered(view: AggregatedFeatureView, view_id: int = 7) -> RegisteredView:
    return RegisteredView(view, view_id, {"card_id": "int64"}, (Layout(0, *fields_of(view)),))


def feed_of(source: EventSource, *views: AggregatedFeatureView) -> Feed:
    keys = {"card_id": "int64"}
    given = views or (spend(source),)
    rvs = tuple(registered(view, 7 + i) for i, view in enumerate(given))
    return Feed("tests", source, keys, event_columns(source, keys), rvs)
