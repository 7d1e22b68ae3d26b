"""Plans: what is created, updated, kept, retired; what is refused, and what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from fastserve.definitions import Definition
from fastserve.errors import BreakingChangeError, DefinitionError
from fastserve.registry import Plan
from fastserve.registry.planner import make_plan
from tests.unit.registry.snapshots import snapshot_of

USER = Entity("user", "user_id", "int64")
ITEM = Entity("item", "item_id", "string")
A, B = Field("a", "int64"), Field("b", "float64", default=0.0)


def view(name: str = "stats", **options: Any) -> FeatureView:
    options = {
        "entities": [USER],
        "schema": [A, B],
        "ttl": "2h",
        "source": FileSource("s.parquet"),
    } | options
    return FeatureView(name, **options)


def plan_of(old: list[Definition], new: list[Definition], *, prune: bool = False) -> Plan:
    return make_plan(snapshot_of(old), new, prune=prune)


def problems_of(old: list[Definition], new: list[Definition]) -> list[tuple[str, str, str]]:
    with pytest.raises(BreakingChangeError) as caught:
        plan_of(old, new)
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)
    return [(p.where, p.message, p.fix) for p in caught.value.problems]


# ---- actions -------------------------------------------------------------------------------------


def test_actions() -> None:
    old = [USER, ITEM, view("same"), view("changed"), view("kept")]
    new = [USER, view("same"), view("changed", ttl="3h"), view("made"), FileSource("loose.parquet")]
    found = [(c.action, c.kind, c.name, c.version) for c in plan_of(old, new).changes]
    assert found == [
        ("keep", "entity", "item", None),
        ("unchanged", "entity", "user", None),
        ("update", "feature_view", "changed", 1),
        ("keep", "feature_view", "kept", 1),
        ("create", "feature_view", "made", 1),
        ("unchanged", "feature_view", "same", 1),
    ]


def test_an_empty_set_changes_nothing_unless_pruned() -> None:
    old: list[Definition] = [USER, view()]
    assert plan_of(old, []).is_empty
    assert [c.action for c in plan_of(old, [], prune=True).changes] == ["retire", "retire"]


def test_objects_are_told_apart_by_kind() -> None:
    """An entity, a view and a service may share a name."""
    same = view("user")
    plan = plan_of([], [USER, same, FeatureService("user", [same])])
    assert [c.kind for c in plan.changes] == ["entity", "feature_view", "feature_service"]


def test_two_declarations_of_one_object_are_a_problem() -> None:
    with pytest.raises(DefinitionError, match="declared twice, differently"):
        plan_of([], [USER, view(ttl="1h"), view(ttl="3h")])


def test_a_kept_service_must_still_find_its_features() -> None:
    """An entity or view of this set must not break what other teams registered."""
    old = [USER, view(), FeatureService("svc", ["stats:a"])]  # a ref without version means the newest
    with pytest.raises(DefinitionError, match="FeatureService 'svc': view 'stats' has no feature 'a'"):
        plan_of(old, [view(version=2, schema=[B])])


def test_push_sources_inside_views_are_registered() -> None:
    push = PushSource("p", FileSource("s.parquet"))
    plan = plan_of([], [USER, view(source=push), view("b", source=push)])
    assert [(c.kind, c.name) for c in plan.changes][1] == ("push_source", "p")
    assert plan.changes == plan_of([], [USER, push, view(source=push), view("b", source=push)]).changes
    assert plan_of([USER, view(source=push), push], [USER, view(source=push)], prune=True).is_empty
    with pytest.raises(DefinitionError, match="PushSource 'p': is declared twice, differently"):
        plan_of([], [USER, view(source=push), view("b", source=PushSource("p"))])


def test_old_problems_block_nobody() -> None:
    """A rule that came with an upgrade does not stop others from applying; a new problem does."""
    old: list[Definition] = [USER, view("bad", version=0), view()]
    assert plan_of(old, [view(ttl="3h")]).of("update")
    with pytest.raises(DefinitionError) as caught:
        plan_of(old, [view("worse", schema=[])])
    assert [p.where for p in caught.value.problems] == ["FeatureView 'worse'"]


# ---- details and notes ---------------------------------------------------------------------------

UPDATES: dict[str, tuple[FeatureView, FeatureView, list[str], list[str]]] = {
    "longer ttl": (
        view(ttl="2h"),
        view(ttl="1d"),
        ["ttl: 2h -> 1d"],
        ["ttl 2h -> 1d: rows already dropped come back with the next materialization"],
    ),
    "no ttl": (
        view(ttl="2h"),
        view(ttl=None),
        ["ttl: 2h -> none"],
        ["ttl 2h -> none: rows already dropped come back with the next materialization"],
    ),
    "shorter ttl": (
        view(ttl=None),
        view(ttl="90m"),
        ["ttl: 1h30m"],
        ["ttl none -> 1h30m: older rows read as OUTSIDE_MAX_AGE from now on"],
    ),
    "new field": (
        view(),
        view(schema=[A, B, Field("x", "int64", default=0)]),
        ["feature x: int64, default 0"],
        [
            "new layout 2: +field x (default 0); rows of older layouts stay readable; those already stored "
            "get no value for it: a new version of the view would"
        ],
    ),
    "field order": (
        view(),
        view(schema=[B, A]),
        ["feature order: a, b -> b, a"],
        ["new layout 2: fields in another order; rows of older layouts stay readable"],
    ),
    "default": (
        view(),
        view(schema=[A, Field("b", "float64", default=1.0)]),
        ["feature b: float64, default 0.0 -> float64, default 1.0"],
        ["default of b: takes effect at once where no row, or one older than it, applies"],
    ),
    "source": (
        view(),
        view(source=FileSource("t.parquet")),
        ["source.path: s.parquet -> t.parquet"],
        ["source changed: rows already stored stay until they are materialized again"],
    ),
    "source gone": (
        view(),
        view(source=None),
        [
            "source.path: s.parquet -> none",
            "source.timestamp_field: event_timestamp -> none",
            "source.format: parquet -> none",
        ],
        ["source changed: rows already stored stay until they are materialized again"],
    ),
    "push source": (
        view(source=PushSource("p", FileSource("s.parquet"))),
        view(source=PushSource("q", FileSource("s.parquet"))),
        ["source.push source: p -> q"],
        ["source changed: rows already stored stay until they are materialized again"],
    ),
    "online off": (
        view(),
        view(online=False),
        ["online: true -> false"],
        ["online off: rows already online stay; materialization no longer refreshes them"],
    ),
    "online on": (
        view(online=False),
        view(),
        ["online: false -> true"],
        ["online on: empty until the next materialization"],
    ),
    "for people": (
        view(),
        view(description="d", owner="o", tags={"k": "v"}, schema=[Field("a", "int64", description="x"), B]),
        ["feature a description: x", "description: d", "tag k: v", "owner: o"],
        [],
    ),
}


@pytest.mark.parametrize("case", UPDATES)
def test_details_and_notes(case: str) -> None:
    before, after, details, notes = UPDATES[case]
    (change,) = plan_of([USER, before], [after]).of("update")
    assert [str(d) for d in change.details] == details
    assert list(change.notes) == notes


def test_a_further_version_says_so() -> None:
    (change,) = plan_of([USER, view()], [view(version=2)]).of("create")
    assert change.notes == (
        "a further version: v1 is served beside it; refs without a version mean the newest",
    )


def test_entity_and_service_details() -> None:
    old = [USER, view(), FeatureService("svc", [view()])]
    new = [
        Entity("user", "user_id", "int64", description="who"),
        FeatureService("svc", [view()["a"].with_name("s").with_join_key_map({"user_id": "buyer"})]),
    ]
    details = [str(d) for c in plan_of(old, new).of("update") for d in c.details]
    assert details == [
        "description: who",
        "features: stats@v1[a, b] -> stats@v1[a] as s (user_id -> buyer)",
    ]


# ---- text and JSON -------------------------------------------------------------------------------


def test_text() -> None:
    old = [USER, view("old"), view("kept"), view("changed")]
    plan = plan_of(old, [USER, view("changed", owner="me"), view("made", source=None)])
    assert str(plan) == (
        "project demo, revision 1: 1 to create, 1 to update; 1 unchanged, 2 kept\n"
        "~ feature view changed@v1\n"
        "    owner: me\n"
        "+ feature view made@v1\n"
        "    entities: user\n"
        "    feature a: int64, no default\n"
        "    feature b: float64, default 0.0\n"
        "    ttl: 2h\n"
        "    online: true\n"
        "    offline: true\n"
        "  kept, not in this set: feature view kept@v1, feature view old@v1"
    )


def test_text_of_retired_and_unchanged() -> None:
    assert str(plan_of([USER, ITEM], [USER], prune=True)) == (
        "project demo, revision 1: 1 to retire; 1 unchanged\n- entity item"
    )
    assert str(plan_of([USER], [USER])) == "project demo, revision 1: no changes; 1 unchanged"
    assert str(plan_of([], [])) == "project demo, revision 1: no changes"


def test_json() -> None:
    odd = view(
        "odd", schema=[Field("raw", "bytes", default=b"\xff"), Field("list", "list<int64>", default=[1])]
    )
    plan = plan_of([USER, view()], [view(ttl="3h"), odd])
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["project"] == "demo"
    assert data["revision"] == 1
    assert data["empty"] is False
    assert data["summary"] == plan.summary == "1 to create, 1 to update; 1 kept"
    (update,) = [c for c in data["changes"] if c["action"] == "update"]
    assert update == {
        "action": "update",
        "kind": "feature_view",
        "name": "stats",
        "version": 1,
        "details": [{"attribute": "ttl", "old": "2h", "new": "3h"}],
        "notes": ["ttl 2h -> 3h: rows already dropped come back with the next materialization"],
    }


# ---- breaking changes ----------------------------------------------------------------------------

VERSION = "declare version=2 of the view; both are served until the old one is retired"


def test_type_change() -> None:
    assert problems_of([USER, view()], [view(schema=[Field("a", "int32"), B])]) == [
        ("FeatureView 'stats', feature 'a'", "changed its type from int64 to int32", VERSION)
    ]


def test_removal() -> None:
    assert problems_of([USER, view()], [view(schema=[A])]) == [
        ("FeatureView 'stats', feature 'b'", "was removed", f"keep it, or {VERSION}")
    ]


def test_rename() -> None:
    new = view(schema=[A, Field("c", "float64")])
    assert problems_of([USER, view()], [new]) == [
        ("FeatureView 'stats', feature 'b'", "was removed (renamed to 'c'?)", f"keep it, or {VERSION}")
    ]


def test_a_removal_is_not_blamed_on_services() -> None:
    old = [USER, view(), FeatureService("svc", [view()])]
    assert len(problems_of(old, [view(schema=[A])])) == 1


def test_entities_change() -> None:
    assert problems_of([USER, view()], [ITEM, view(entities=[USER, ITEM])]) == [
        (
            "FeatureView 'stats'",
            "changed its entities from user to user, item",
            "declare version=2 of the view",
        )
    ]


def test_the_order_of_entities_does_not_matter() -> None:
    plan = plan_of([USER, ITEM, view(entities=[USER, ITEM])], [view(entities=[ITEM, USER])])
    assert [c.action for c in plan.changes if c.kind == "feature_view"] == ["update"]


@pytest.mark.parametrize(
    ("entity", "after"),
    [
        (Entity("user", "user_id", "string"), "user_id string"),
        (Entity("user", "uid", "int64"), "uid int64"),
        (Entity("user", ["user_id", "tenant"], "int64"), "tenant int64, user_id int64"),
    ],
)
def test_keys_changed_through_the_entity(entity: Entity, after: str) -> None:
    """Also in a view that this set does not name."""
    ((where, message, fix),) = problems_of([USER, view()], [entity])
    assert where == "FeatureView 'stats'"
    assert message == f"its join keys changed from user_id int64 to {after} through entity user"
    assert "declare the new keys as another Entity and version=2 of the view on it" in fix


def test_the_order_of_join_keys_does_not_matter() -> None:
    pair, swapped = Entity("p", ["x", "y"], "int64"), Entity("p", ["y", "x"], "int64")
    plan = plan_of([pair, view(entities=[pair])], [swapped, view(entities=[swapped])])
    assert [c.action for c in plan.changes] == ["update", "unchanged"]
    assert [str(d) for d in plan.changes[0].details] == ["join key order: x, y -> y, x"]


def test_the_next_free_version_is_named() -> None:
    old = [USER, view(), view(version=4)]
    ((_, _, fix),) = problems_of(old, [view(schema=[A])])
    assert "version=5" in fix


def test_the_fix_works() -> None:
    plan = plan_of([USER, view()], [view(), view(version=2, schema=[Field("a", "string")])])
    assert [(c.action, c.version) for c in plan.changes if c.kind == "feature_view"] == [
        ("unchanged", 1),
        ("create", 2),
    ]


def test_all_at_once() -> None:
    old = [USER, view("one"), view("two")]
    new = [view("one", schema=[A]), view("two", schema=[B]), Entity("user", "user_id", "bytes")]
    assert [where for where, _, _ in problems_of(old, new)] == [
        "FeatureView 'one', feature 'b'",
        "FeatureView 'one'",
        "FeatureView 'two', feature 'a'",
        "FeatureView 'two'",
    ]


# ---- prune ---------------------------------------------------------------------------------------


def test_pruning_a_used_view_is_refused() -> None:
    old = [USER, view("a"), view("b")]
    service = FeatureService("svc", ["a:a", "b:a"])
    with pytest.raises(DefinitionError) as caught:
        plan_of(old, [USER, service], prune=True)
    assert [p.message for p in caught.value.problems] == [
        "uses FeatureView 'a', which prune would retire",
        "uses FeatureView 'b', which prune would retire",
    ]


def test_pruning_may_retire_an_older_version() -> None:
    old = [USER, view(), view(version=2)]
    plan = plan_of(old, [USER, view(version=2), FeatureService("svc", ["stats:a"])], prune=True)
    assert [(c.name, c.version) for c in plan.of("retire")] == [("stats", 1)]


def test_pruning_allows_breaking_what_goes() -> None:
    """A view that is retired in the same apply cannot be broken by it."""
    user = Entity("user", "user_id", "string")
    plan = plan_of([USER, view()], [user, view(version=2, entities=[user])], prune=True)
    assert [(c.action, c.version) for c in plan.changes] == [
        ("update", None),
        ("retire", 1),
        ("create", 2),
    ]


@pytest.mark.parametrize("thing", ["v", Field("x", "int64"), [USER]])
def test_what_is_no_definition_is_named(thing: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        plan_of([], [USER, thing])
    (problem,) = caught.value.problems
    assert problem.where == repr(thing) and problem.message == f"is a {type(thing).__name__}, no definition"
