"""Event sources, aggregations and aggregated views: what they are called, what they are kept as, what is refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureView,
    Field,
    FileSource,
    PushSource,
)
from fastserve.definitions import batch_source
from fastserve.definitions.serde import canonical_json, content_hash, from_dict, kind_of
from fastserve.definitions.validate import find_problems
from fastserve.errors import Problem

CARD = Entity("card", "card_id", "int64")
FILES = FileSource("payments.parquet")
COLUMNS = [
    Field("amount", "float64"),
    Field("status", "string"),
    Field("items", "int32"),
    Field("at", "timestamp"),
    Field("card_id", "int64"),
]
EVENTS = EventSource("payments", FILES, schema=COLUMNS, event_id="payment_id")
SUM = Aggregation("amount", "sum", windows=["5m", "30d"])


def view(*aggregations: Any, **options: Any) -> AggregatedFeatureView:
    options = {"entities": [CARD], "source": EVENTS} | options
    return AggregatedFeatureView("spend", aggregations=aggregations, **options)


def problems(*objects: Any) -> list[Problem]:
    return list(find_problems([CARD, *objects]))


def test_features_are_named_after_column_function_and_window() -> None:
    made = view(
        SUM,
        Aggregation("*", "count", windows="1h", hop="1m"),
        Aggregation("amount", "last_n", n=5, windows=[timedelta(hours=1)]),
        Aggregation("amount", "approx_quantile", quantile=0.95, windows=["24h"]),
        Aggregation("amount", "approx_quantile", quantile=0.999, windows=["1d"]),
        Aggregation("status", "count_distinct", windows=["1w"]),
        Aggregation("items", "max", windows=["1d"], name="most"),
        Aggregation("items", "sum", windows=["1d", "2d"], name="all"),
    )
    assert [(f.name, f.dtype, f.default) for f in made.schema] == [
        ("amount_sum_5m", "float64", None),
        ("amount_sum_30d", "float64", None),
        ("count_1h", "int64", 0),
        ("amount_last_5_1h", "list<float64>", None),
        ("amount_p95_24h", "float64", None),
        ("amount_p99_9_1d", "float64", None),
        ("status_count_distinct_1w", "int64", 0),
        ("most", "int32", None),
        ("all_1d", "int64", None),
        ("all_2d", "int64", None),
    ]
    assert not problems(made)
    assert (made.ttl_us, made.offline, batch_source(made.source)) == (None, False, FILES)


def test_they_survive_json() -> None:
    made = view(
        SUM,
        Aggregation("*", "count", windows="1h", hop=0, description="how many", tags={"a": "b"}),
        filter="status = 'paid'",
        max_staleness="5s",
        version=2,
        online=False,
    )
    for obj in (made, EVENTS, EventSource("bare", lateness="0s")):
        assert from_dict(kind_of(obj), json.loads(canonical_json(obj))) == obj
    assert kind_of(made) == "aggregated_feature_view"
    assert content_hash(made) != content_hash(view(SUM))


def test_what_is_left_out_is_not_hashed() -> None:
    text = canonical_json(view(Aggregation("*", "count", windows="1h"), source=EventSource("e", FILES)))
    assert text == (
        '{"aggregations":[{"column":"*","function":"count","windows":["1h"]}],"entities":["card"],"name":"spend",'
        '"offline":false,"schema":[{"default":0,"dtype":"int64","name":"count_1h"}],"source":{"batch_source":'
        '{"kind":"file_source","name":"payments.parquet","path":"payments.parquet",'
        '"timestamp_field":"event_timestamp"},"kind":"event_source","name":"e"}}'
    )


ABOUT = "AggregatedFeatureView 'spend'"
NAMES = "amount, status, items, at, card_id"
# aggregation -> where, message, the fix's beginning
AGGREGATIONS: dict[str, tuple[Any, str, str, str]] = {
    "column": (
        Aggregation("amout", "sum", windows="1h"),
        "(sum of amout)",
        "unknown column 'amout'",
        f"did you mean 'amount'? the schema of source 'payments' lists {NAMES}",
    ),
    "function": (
        Aggregation("amount", "avg", windows="1h"),
        "(avg of amount)",
        "unknown function 'avg'",
        "one of count, sum, mean",
    ),
    "type": (
        Aggregation("status", "sum", windows="1h"),
        "(sum of status)",
        "sum does not take string",
        "it takes int32, int64, float32, float64",
    ),
    "all of nothing": (
        Aggregation("*", "max", windows="1h"),
        "(max of *)",
        "max needs a column",
        "name one; only count takes '*'",
    ),
    "join key": (
        Aggregation("card_id", "count_distinct", windows="1h"),
        "(count_distinct of card_id)",
        "'card_id' is a join key of the view",
        "it is the same in all events of an entity",
    ),
    "no n": (Aggregation("amount", "last_n", windows="1h"), "(last_n of amount)", "n is 0", "say how many"),
    "n": (Aggregation("amount", "last", n=2, windows="1h"), "(last of amount)", "last takes no n", "n is"),
    "no quantile": (
        Aggregation("amount", "approx_quantile", windows="1h"),
        "(approx_quantile of amount)",
        "quantile is None",
        "give one from 0 to 1",
    ),
    "quantile": (
        Aggregation("amount", "sum", quantile=0.5, windows="1h"),
        "(sum of amount)",
        "sum takes no quantile",
        "quantile is of approx_quantile",
    ),
    "bound": (
        Aggregation("amount", "count_distinct", bound=2, windows="1h"),
        "(count_distinct of amount)",
        "bound is 2",
        "from 3 to 65536",
    ),
    "no window": (Aggregation("amount", "sum", windows=[]), "(sum of amount)", "has no window", "name one"),
    "window": (
        Aggregation("amount", "sum", windows=["an hour"]),
        "(sum of amount), window 'an hour'",
        "'an hour' is not a duration; write it like 90s, 15m, 2h, 30d or 1h30m",
        "write it so",
    ),
    "empty window": (
        Aggregation("amount", "sum", windows="0s"),
        "(sum of amount), window '0s'",
        "is empty",
        "up to 3650d",
    ),
    "hop": (
        Aggregation("amount", "sum", windows="1h", hop="x"),
        "(sum of amount), hop",
        "'x' is not a duration; write it like 90s, 15m, 2h, 30d or 1h30m",
        "or 0 for exact windows, or leave it out",
    ),
    "long hop": (
        Aggregation("amount", "sum", windows="1h", hop="2h"),
        "(sum of amount), window '1h'",
        "hop 2h is longer than the window",
        "a window is up to a hop longer than it says",
    ),
    "odd hop": (
        Aggregation("amount", "sum", windows="1h", hop="7m"),
        "(sum of amount), window '1h'",
        "hop 7m does not divide 1h",
        "give it a hop that divides it",
    ),
    "short hop": (
        Aggregation("amount", "sum", windows="30d", hop="1s"),
        "(sum of amount), window '30d'",
        "hop 1s makes 2,592,000 tiles",
        "at most 100,000: a hop of 26s or more; or 0",
    ),
}


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_what_is_wrong_with_an_aggregation(rule: str) -> None:
    aggregation, where, message, fix = AGGREGATIONS[rule]
    (found,) = [p for p in problems(view(SUM, aggregation)) if "aggregation 2" in p.where]
    assert (found.where, found.message) == (f"{ABOUT}, aggregation 2 {where}", message)
    assert found.fix.startswith(fix)


EVENT_RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "name": ({"schema": [Field("a b", "int64")]}, ", column 'a b'", "is not a usable column name"),
    "time": (
        {"schema": [Field("event_timestamp", "timestamp")]},
        ", column 'event_timestamp'",
        "is not a usable column name",
    ),
    "twice": ({"schema": [Field("a", "int64")] * 2}, ", column 'a'", "is declared twice"),
    "list": ({"schema": [Field("a", "list<int64>")]}, ", column 'a'", "has type 'list<int64>'"),
    "default": ({"schema": [Field("a", "int64", default=1)]}, ", column 'a'", "has a default"),
    "lateness": ({"lateness": "31d"}, "", "lateness is 31d"),
    "batch source": (
        {"batch_source": FileSource("x", "", name="x")},
        "",
        "has no timestamp_field",
    ),
}


@pytest.mark.parametrize("rule", EVENT_RULES)
def test_what_is_wrong_with_an_event_source(rule: str) -> None:
    options, where, message = EVENT_RULES[rule]
    source = EventSource("e", **options)
    assert [(p.where, p.message) for p in problems(source)] == [(f"EventSource 'e'{where}", message)]
    inside = view(Aggregation("*", "count", windows="1h"), source=source)
    assert (f"{ABOUT}, source 'e'{where}", message) in [(p.where, p.message) for p in problems(inside)]


def test_all_problems_at_once() -> None:
    bad = view(
        Aggregation("s", "summ", windows=["1x", "0s"]),
        Aggregation("amount", "sum", windows=["1h", "1h"], name="a b"),
        filter="amout > 1 and status = 2 % 3",
        entities=["card", "shop"],
    )
    found = [p.message for p in problems(bad)]
    assert found == [
        "refers to entity 'shop', which is not declared",
        "unknown function 'summ'",
        "unknown column 's'",
        "'1x' is not a duration; write it like 90s, 15m, 2h, 30d or 1h30m",
        "is empty",
        "unknown column 'amout'",
        "2 % 3 is not for filters",
        "is not a usable feature name",
        "is not a usable feature name",
        "is declared twice",
    ]


def test_views_and_their_sources_must_fit() -> None:
    rows: Any = PushSource("p")
    wrong = AggregatedFeatureView("spend", entities=[CARD], source=rows, aggregations=[SUM])
    assert [p.message for p in problems(wrong)] == [
        "its source is a PushSource, and aggregations are of events"
    ]
    plain = FeatureView("v", entities=[CARD], schema=[Field("a", "int64")], source=EVENTS)
    assert [p.message for p in problems(plain)] == ["has rows, and 'payments' has events"]
    assert [p.message for p in problems(view())] == ["has no aggregations"]
    assert [p.message for p in problems(EVENTS, EventSource("payments"))] == [
        "is declared twice, differently"
    ]
