"""Plans of aggregated views: event sources register with them, and a change of meaning needs a version."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
)
from fastserve.definitions import Definition
from fastserve.errors import BreakingChangeError, DefinitionError
from fastserve.registry.planner import make_plan
from tests.unit.registry.snapshots import snapshot_of

CARD = Entity("card", "card_id", "int64")
COLUMNS = [Field("amount", "float64"), Field("status", "string")]
SUM = Aggregation("amount", "sum", windows=["5m", "1h"])
COUNT = Aggregation("*", "count", windows="1h")
FIX = "declare version=2 of the view; both are served until the old one is retired"
ABOUT = "AggregatedFeatureView 'spend'"


def events(**options: Any) -> EventSource:
    return EventSource("payments", **{"batch_source": FileSource("p.parquet"), "schema": COLUMNS} | options)


def view(*aggregations: Aggregation, **options: Any) -> AggregatedFeatureView:
    options = {"entities": [CARD], "source": events()} | options
    return AggregatedFeatureView("spend", aggregations=aggregations or (SUM, COUNT), **options)


def refused(new: Definition) -> list[tuple[str, str, str]]:
    with pytest.raises(BreakingChangeError) as caught:
        make_plan(snapshot_of([CARD, view()]), [new])
    return [(p.where, p.message, p.fix) for p in caught.value.problems]


def test_a_view_registers_its_event_source() -> None:
    plan = make_plan(snapshot_of([]), [CARD, view(), FeatureService("svc", [view()[["count_1h"]]])])
    assert [(c.action, c.kind, c.label) for c in plan.changes] == [
        ("create", "entity", "entity card"),
        ("create", "event_source", "event source payments"),
        ("create", "aggregated_feature_view", "aggregated feature view spend@v1"),
        ("create", "feature_service", "feature service svc"),
    ]
    said = {d.attribute: d.new for d in plan.changes[2].details}
    assert said["feature amount_sum_5m is"] == "sum of amount over 5m, hop 10s"
    assert said["feature count_1h is"] == "count of * over 1h, hop 1m"
    assert (said["source.event source"], said["source.column amount"]) == ("payments", "float64")
    assert said["source.batch_source.path"] == "p.parquet"


def test_what_changes_nothing_that_is_computed() -> None:
    other = view(
        SUM,
        Aggregation("*", "count", windows="60m", name="count_1h", hop="1m", description="how many"),
        source=events(
            lateness="2h", schema=[*COLUMNS, Field("more", "int64")], batch_source=FileSource("q.parquet")
        ),
        description="x",
    )
    plan = make_plan(snapshot_of([CARD, events(), view()]), [other])
    assert [(c.action, c.kind) for c in plan.changes if c.action != "keep"] == [
        ("update", "event_source"),
        ("update", "aggregated_feature_view"),
    ]


BREAKING: dict[str, tuple[Definition, list[tuple[str, str, str]]]] = {
    "window": (
        view(Aggregation("amount", "sum", windows=["5m", "2h"]), COUNT),
        [
            (
                f"{ABOUT}, feature 'amount_sum_1h'",
                "was removed (renamed to 'amount_sum_2h'?)",
                f"keep it, or {FIX}",
            ),
            (f"{ABOUT}, feature 'amount_sum_2h'", "is new, and tiles stored already lack it", FIX),
        ],
    ),
    "hop": (
        view(Aggregation("amount", "sum", windows=["5m", "1h"], hop="5m"), COUNT),
        [
            (
                f"{ABOUT}, feature 'amount_sum_5m'",
                "changed from sum of amount over 5m, hop 10s to sum of amount over 5m, hop 5m",
                FIX,
            ),
            (
                f"{ABOUT}, feature 'amount_sum_1h'",
                "changed from sum of amount over 1h, hop 1m to sum of amount over 1h, hop 5m",
                FIX,
            ),
        ],
    ),
    "order": (
        view(COUNT, SUM),
        [(ABOUT, "its aggregations are in another order, and so are tiles", f"keep the order, or {FIX}")],
    ),
    "filter": (view(filter="amount > 0"), [(ABOUT, "its filter changed from none to 'amount > 0'", FIX)]),
    "id": (
        view(source=events(event_id="id")),
        [(ABOUT, "the id of its events changed from none to 'id'", FIX)],
    ),
    "type": (
        view(source=events(schema=[Field("amount", "float32")])),
        [(ABOUT, "column 'amount' of its events changed from float64 to float32", FIX)],
    ),
    "source": (
        view(source=EventSource("others", schema=COLUMNS)),
        [(ABOUT, "its events changed from 'payments' to 'others'", FIX)],
    ),
    "kind": (
        FeatureView("spend", entities=[CARD], schema=view().schema),
        [
            (
                "FeatureView 'spend'",
                "changed from AggregatedFeatureView to FeatureView",
                FIX,
            )
        ],
    ),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_of_meaning_needs_a_version(change: str) -> None:
    new, said = BREAKING[change]
    assert refused(new) == said


def test_the_next_version_and_retirement() -> None:
    old = snapshot_of([CARD, events(), view()])
    plan = make_plan(old, [view(COUNT, version=2)])
    assert [c.label for c in plan.changes if c.action == "create"] == ["aggregated feature view spend@v2"]
    plan = make_plan(old, [CARD], prune=True)
    assert [c.kind for c in plan.changes if c.action == "retire"] == [
        "event_source",
        "aggregated_feature_view",
    ]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (view(Aggregation("amount", "sum", windows="5x")), f"{ABOUT}, "),
        (view(Aggregation("amount", "summ", windows="5m")), f"{ABOUT}, "),
        (view(Aggregation("amont", "sum", windows="5m")), f"{ABOUT}, "),
        (view(filter="statuss = 'paid'"), f"{ABOUT}, filter"),
    ],
    ids=["window", "function", "column", "filter"],
)
def test_a_slip_is_told_before_what_it_would_change(wrong: FeatureView, where: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make_plan(snapshot_of([CARD, view()]), [wrong])
    assert all(problem.where.startswith(where) for problem in caught.value.problems)
