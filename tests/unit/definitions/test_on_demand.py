"""On-demand views as definitions: what is refused, what a change means, what crosses a process' border."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from fastserve import Entity, FeatureService, FeatureView, Field, RequestSource
from fastserve.definitions import Definition, OnDemandFeatureView
from fastserve.definitions.validate import find_problems
from fastserve.errors import BreakingChangeError, DefinitionError
from fastserve.registry import open_registry

CARD = Entity("card", "card_id", "int64")
SHOP = Entity("shop", "shop_id")
STATS = FeatureView("stats", entities=[CARD], schema=[Field("mean", "float64"), Field("count", "int64")])
SHOPS = FeatureView("shops", entities=[SHOP], schema=[Field("mean", "float64")])
TRIP = RequestSource("trip", [Field("amount", "float64")])


def on_demand(name: str = "ratio", sources: Any = (STATS, TRIP), **more: Any) -> OnDemandFeatureView:
    given = {"function": "features:ratio", "code": "def ratio", "schema": [Field("share", "float64")], **more}
    return OnDemandFeatureView(name, sources=sources, **given)


def problems(*objects: Definition) -> list[str]:
    return [f"{p.where}: {p.message}" for p in find_problems([CARD, SHOP, STATS, SHOPS, *objects])]


def test_what_it_needs_and_how_its_inputs_are_named():
    view = on_demand(sources=[STATS[["mean"]], SHOPS.with_name("shop"), TRIP, "stats:count"])
    assert [name for name, _, _ in view.inputs()] == ["mean", "shop__mean", "amount", "count"]
    assert view.is_stored is False and (view.entities, view.source, view.online) == ((), None, False)
    assert problems(view) == []


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (on_demand(sources=[]), "has no sources"),
        (on_demand(function="features:<lambda>"), "function 'features:<lambda>' is no MODULE:NAME"),
        (on_demand(budget="2s"), "budget is 2s"),
        (on_demand(budget="0s"), "budget is 0"),
        (on_demand(sources=["other:x"]), "refers to feature view 'other', which is not declared"),
        (on_demand(sources=["stats:x"]), "view 'stats' has no feature 'x'"),
        (on_demand(sources=["stats@v3:mean"]), "refers to feature view 'stats@v3', which is not declared"),
        (on_demand(sources=[STATS, SHOPS]), "'stats' and 'shops' would both give the input 'mean'"),
        (on_demand(sources=[STATS.with_join_key_map({"x": "y"})]), "join_key_map names 'x'"),
        (on_demand(sources=[RequestSource("r", [])]), "RequestSource 'r': has no columns"),
        (on_demand(sources=[RequestSource("r", [Field("a", "float")])]), "column 'a': unknown type 'float'"),
        (on_demand(sources=[RequestSource("r", [Field("a b", "int64")])]), "'a b' is not a usable column"),
        (on_demand(sources=[RequestSource("r", [Field("a", "int64", default=1)])]), "column 'a': has a default"),
        (
            on_demand(sources=[STATS, RequestSource("r", [Field("card_id", "string")])]),
            "column 'card_id' is int64 for 'stats' and string for 'ratio'",
        ),
        (on_demand(schema=[Field("amount", "float64")]), "has the name of a column that it needs"),
        (on_demand(schema=[Field("card_id", "int64")]), "has the name of a column that it needs"),
        (on_demand(schema=[Field("share", "float64", default=1.0)]), "feature 'share': has a default"),
        (on_demand(schema=[]), "has no features"),
    ],
)  # fmt: skip
def test_what_is_refused(view, said):
    found = problems(view)
    assert len(found) == 1 and said in found[0] and "OnDemandFeatureView 'ratio'" in found[0]


def test_a_request_column_may_be_a_join_key_of_the_same_type():
    assert problems(on_demand(sources=[STATS, RequestSource("r", [Field("card_id", "int64")])])) == []


def test_chains_are_right_and_circles_are_not():
    first = on_demand("first")
    second = on_demand("second", [first.with_join_key_map({"card_id": "other", "amount": "sum"})])
    assert problems(first, second) == []
    service = FeatureService("s", [second.with_join_key_map({"other": "third", "sum": "total"})])
    assert problems(first, second, service) == []
    wrong = FeatureService("s", [second.with_join_key_map({"card_id": "third"})])
    assert problems(first, second, wrong) == [
        "FeatureService 's': join_key_map names 'card_id', which is no join key of 'second'"
    ]
    one, other = on_demand("one", ["other:share"]), on_demand("other", ["one:share"])
    assert [p for p in problems(one, other) if "is computed from itself" in p] == [
        "OnDemandFeatureView 'one': is computed from itself",
        "OnDemandFeatureView 'other': is computed from itself",
    ]
    assert any("computed from itself" in p for p in problems(on_demand("me", ["me:share"])))


def test_a_service_reads_a_column_as_one_type():
    view = FeatureView("v", entities=["amounts"], schema=STATS.schema)
    service = FeatureService("s", [on_demand(), view])
    found = problems(Entity("amounts", "amount", "int64"), on_demand(), view, service)
    assert "FeatureService 's': reads column 'amount' as float64 for 'ratio' and as int64 for 'v'" in found


def test_a_view_keeps_its_kind_and_its_features(tmp_path):
    with open_registry(f"sqlite:///{tmp_path}/registry.db", "tests") as registry:
        registry.apply([CARD, STATS, on_demand()])
        stored = registry.snapshot()
        assert stored.view("ratio").view == on_demand()
        assert dict(stored.view("ratio").needs) == {"card_id": "int64", "amount": "float64"}
        assert stored.view("ratio").sources[0][1].view == STATS
        with pytest.raises(BreakingChangeError, match="changed from OnDemandFeatureView to FeatureView"):
            registry.apply([FeatureView("ratio", schema=on_demand().schema)])
        with pytest.raises(BreakingChangeError, match="changed its type"):
            registry.apply([on_demand(schema=[Field("share", "int64")])])
        with pytest.raises(DefinitionError, match="not declared"):
            registry.apply([CARD, on_demand()], prune=True)
        again = on_demand(code="def ratio: other")
        (change,) = registry.plan([again]).effective
        assert change.label == "on-demand feature view ratio@v1"
        assert [detail.attribute for detail in change.details] == ["code"]
        assert "computed in another way from now on" in change.notes[0]
        more = on_demand(sources=[STATS, TRIP, RequestSource("more", [Field("note", "string")])])
        (change,) = registry.plan([more]).effective
        assert change.notes[-1] == "requests and spines have to give note too, from now on"
        assert registry.apply([again]).snapshot.view("ratio").view == again
        both = registry.apply([on_demand(version=2, schema=[Field("share", "int64")])]).snapshot
        assert both.versions("ratio") == (1, 2)
        assert list(both.online_ids()) == [both.view("stats").view_id]


def test_two_kinds_of_one_name_are_declared_twice():
    other = FeatureView("ratio", schema=on_demand().schema)
    assert "FeatureView 'ratio': is declared twice, differently" in problems(on_demand(), other)


def test_the_function_stays_where_it_is():
    made = on_demand(call=print)
    assert made == on_demand() and hash(made) == hash(on_demand())
    crossed = pickle.loads(pickle.dumps(made))
    assert crossed == made and crossed.call is None


def test_it_is_shown_in_a_notebook():
    shown = on_demand()._repr_html_()
    assert "computed by features:ratio from mean, count, amount" in shown and "share" in shown
