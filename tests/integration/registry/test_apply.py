"""Apply, upsert, prune, versions, layouts, history: on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from fastserve import Entity, FeatureView, Field, PushSource
from fastserve.errors import (
    BreakingChangeError,
    DefinitionError,
    RegistryConflictError,
    RegistryError,
    UnknownObjectError,
)
from fastserve.registry import Registry, open_registry
from fastserve.registry.schema import layouts, metadata, objects
from tests.integration.registry.objects import CLICKS, SPEND, USER, service, view


def _rows(registry: Registry, table: sa.Table) -> int:
    with registry._database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def test_empty(registry: Registry) -> None:
    snapshot = registry.snapshot()
    assert registry.revision() == snapshot.revision == 0
    assert snapshot.definitions() == ()
    assert registry.history() == []
    assert snapshot.registry_id == registry.registry_id


def test_apply_and_read_back(registry: Registry) -> None:
    stats = view()
    push = PushSource("clicks_push", stats.source)  # type: ignore[arg-type]
    result = registry.apply([USER, stats, push, service(stats)], author="ana")
    assert result.snapshot == registry.snapshot()
    snapshot = registry.snapshot()
    assert snapshot.revision == registry.revision() == 1
    registered = snapshot.view("stats")
    assert registered.view == stats
    assert dict(registered.join_keys) == {"user_id": "int64"}
    assert (registered.layout.layout_id, registered.layout.names) == (1, ("clicks", "spend"))
    assert [str(d) for d in registered.layout.dtypes] == ["int64", "float64"]
    assert dict(registered.defaults) == {"clicks": None, "spend": 0.0}
    assert snapshot.service("ranking") == service(stats)
    assert snapshot.push_source("clicks_push") == push
    assert snapshot.entities == {"user": USER}


def test_join_keys_are_in_canonical_order(registry: Registry) -> None:
    pair = Entity("pair", ["z", "a"], ["int64", "string"])
    registry.apply([pair, view(entities=[pair])])
    assert list(registry.snapshot().view("stats").join_keys.items()) == [("a", "string"), ("z", "int64")]


def test_no_change_is_no_revision(registry: Registry) -> None:
    objects_ = [USER, view(), service(view())]
    registry.apply(objects_)
    before = _rows(registry, objects)
    for _ in range(5):
        result = registry.apply(objects_)
        assert result.plan.is_empty
        assert [c.action for c in result.plan.changes] == ["unchanged"] * 3
    assert registry.revision() == 1
    assert _rows(registry, objects) == before
    assert len(registry.history()) == 1


def test_each_change_is_one_row(registry: Registry) -> None:
    """Bounded growth: an apply writes what changed, not everything again."""
    others = [view(f"v{i}") for i in range(20)]
    registry.apply([USER, *others])
    before = _rows(registry, objects)
    for ttl in ("3h", "4h", "5h"):
        registry.apply([USER, *others[1:], view("v0", ttl=ttl)])
    assert _rows(registry, objects) == before + 3
    assert _rows(registry, layouts) == 20


@pytest.mark.parametrize("ttl", [None, "1h", "3h", "1ms"])
def test_a_ttl_change_is_applied(registry: Registry, ttl: str | None) -> None:
    registry.apply([USER, view(ttl="2h")])
    registry.apply([view(ttl=ttl)])
    assert registry.snapshot().view("stats").view.ttl_us == view(ttl=ttl).ttl_us
    registry.apply([view(ttl="2h")])
    assert registry.snapshot().view("stats").view == view(ttl="2h")


def test_absent_objects_stay(registry: Registry) -> None:
    registry.apply([USER, view("mine")])
    result = registry.apply([USER, view("theirs")])
    assert set(registry.snapshot().views) == {("mine", 1), ("theirs", 1)}
    assert [(c.kind, c.name) for c in result.plan.of("keep")] == [("feature_view", "mine")]


def test_a_service_may_use_what_is_registered(registry: Registry) -> None:
    stats = view()
    registry.apply([USER, stats])
    registry.apply([service(stats)])
    assert registry.snapshot().service("ranking") == service(stats)


def test_the_union_must_hold_together(registry: Registry) -> None:
    with pytest.raises(DefinitionError, match="entity 'user', which is not declared"):
        registry.apply([view(), service(view())])
    assert registry.revision() == 0


def test_prune_retires_what_is_absent(registry: Registry) -> None:
    registry.apply([USER, view("a"), view("b"), service(view("b"))])
    result = registry.apply([USER, view("a")], prune=True)
    assert [(c.kind, c.name) for c in result.plan.of("retire")] == [
        ("feature_view", "b"),
        ("feature_service", "ranking"),
    ]
    assert set(registry.snapshot().views) == {("a", 1)}
    assert not registry.snapshot().services


def test_prune_spares_views_in_use(registry: Registry) -> None:
    registry.apply([USER, view("a"), view("b")])
    with pytest.raises(DefinitionError, match=r"uses FeatureView 'b', which prune would retire"):
        registry.apply([USER, view("a"), service(view("b"))], prune=True)
    assert registry.revision() == 1


def test_a_retired_view_comes_back_under_a_new_id(registry: Registry) -> None:
    registry.apply([USER, view()])
    first = registry.snapshot().view("stats")
    registry.apply([USER], prune=True)
    registry.apply([view(fields=(Field("other", "string"),))])  # incompatible: it is another view
    second = registry.snapshot().view("stats")
    assert second.view_id > first.view_id
    assert [layout.layout_id for layout in second.layouts] == [1]
    assert registry.snapshot(1).view("stats") == first


def test_versions_live_side_by_side(registry: Registry) -> None:
    registry.apply([USER, view()])
    registry.apply([view(version=2, fields=(Field("clicks", "string"),))])
    snapshot = registry.snapshot()
    assert snapshot.versions("stats") == (1, 2)
    one, two = snapshot.view("stats", 1), snapshot.view("stats")
    assert one.view == view()
    assert two.view.version == 2
    assert one.view_id != two.view_id
    assert two.layout.layout_id == 1


def test_additive_fields_make_layouts(registry: Registry) -> None:
    extra = Field("extra", "string", default="none")
    registry.apply([USER, view()])
    result = registry.apply([view(fields=(CLICKS, SPEND, extra))])
    registered = registry.snapshot().view("stats")
    assert [(x.layout_id, x.names) for x in registered.layouts] == [
        (1, ("clicks", "spend")),
        (2, ("clicks", "spend", "extra")),
    ]
    assert registered.layout is registered.layouts[-1]
    assert "new layout 2: +field extra (default 'none')" in str(result.plan)
    assert [x.layout_id for x in registry.snapshot(1).view("stats").layouts] == [1]


def test_an_earlier_field_order_is_the_earlier_layout(registry: Registry) -> None:
    registry.apply([USER, view(fields=(CLICKS, SPEND))])
    registry.apply([view(fields=(SPEND, CLICKS))])
    assert registry.snapshot().view("stats").layout.layout_id == 2
    registry.apply([view(fields=(CLICKS, SPEND))])
    registered = registry.snapshot().view("stats")
    assert registered.layout.layout_id == 1
    assert len(registered.layouts) == 2


def test_attributes_do_not_make_layouts(registry: Registry) -> None:
    registry.apply([USER, view()])
    changed = view(
        fields=(CLICKS, Field("spend", "float64", default=1.0, description="EUR")),
        description="d",
        owner="o",
        tags={"a": "b"},
        online=False,
        offline=False,
        source=None,
        ttl=None,
    )
    registry.apply([changed])
    registered = registry.snapshot().view("stats")
    assert registered.view == changed
    assert len(registered.layouts) == 1


def test_breaking_changes_are_listed_and_nothing_is_written(registry: Registry) -> None:
    registry.apply([USER, view(), view("other")])
    before = {table.name: _rows(registry, table) for table in metadata.tables.values()}
    user = Entity("user", "user_id", "string")
    with pytest.raises(BreakingChangeError) as caught:
        registry.apply([user, view(fields=(Field("clicks", "float64"), Field("cost", "float64")))])
    places = [(p.where, p.message.split(" from ")[0]) for p in caught.value.problems]
    assert places == [
        ("FeatureView 'other'", "its join keys changed"),
        ("FeatureView 'stats', feature 'clicks'", "changed its type"),
        ("FeatureView 'stats', feature 'spend'", "was removed (renamed to 'cost'?)"),
        ("FeatureView 'stats'", "its join keys changed"),
    ]
    assert all("version=2" in p.fix for p in caught.value.problems)
    assert {table.name: _rows(registry, table) for table in metadata.tables.values()} == before
    assert registry.snapshot().view("stats").view == view()


def test_past_revisions_stay_exact(registry: Registry) -> None:
    states = [registry.snapshot()]
    for objects_, prune in (
        ([USER, view()], False),
        ([view(ttl="1d")], False),
        ([view("b"), service(view())], False),
        ([USER, view("b")], True),
        ([view(), service(view("b"))], False),
    ):
        states.append(registry.apply(objects_, prune=prune).snapshot)
    assert [s.revision for s in states] == [0, 1, 2, 3, 4, 5]
    assert [registry.snapshot(r) for r in range(6)] == states


@pytest.mark.parametrize("revision", [-1, 1, 99])
def test_an_unknown_revision_is_an_error(registry: Registry, revision: int) -> None:
    with pytest.raises(RegistryError, match=f"no revision {revision}"):
        registry.snapshot(revision)


def test_history(registry: Registry) -> None:
    registry.apply([USER], author="ana")
    registry.apply([view()], author="bo")
    newest, oldest = registry.history()
    assert (newest.revision, newest.author, newest.summary) == (2, "bo", "1 to create; 1 kept")
    assert (oldest.revision, oldest.author) == (1, "ana")
    assert newest.applied_us >= oldest.applied_us > 0
    assert registry.history(1) == [newest]


def test_compare_and_swap(registry: Registry) -> None:
    plan = registry.plan([USER])
    registry.apply([USER, view()])
    with pytest.raises(RegistryConflictError, match="plan again"):
        registry.apply([view("b")], expect_revision=plan.revision)
    assert registry.revision() == 1
    assert registry.apply([view("b")], expect_revision=1).snapshot.revision == 2


def test_plan_writes_nothing(registry: Registry) -> None:
    plan = registry.plan([USER, view()])
    assert [c.action for c in plan.changes] == ["create", "create"]
    assert plan.revision == registry.revision() == 0


def test_projects_share_only_the_id_space(url: str) -> None:
    with open_registry(url, "one") as one, open_registry(url, "two") as two:
        one.apply([USER, view()])
        assert two.revision() == 0
        two.apply([USER, view(ttl=None), view("b")])
        ids = [r.view_id for s in (one.snapshot(), two.snapshot()) for r in s.views.values()]
        assert len(set(ids)) == 3
        assert one.registry_id == two.registry_id
        assert one.snapshot().view("stats").view.ttl_us is not None
        assert (one.revision(), two.revision()) == (1, 1)


def test_unknown_names_offer_the_nearest(registry: Registry) -> None:
    registry.apply([USER, view(), service(view())])
    snapshot = registry.snapshot()
    with pytest.raises(UnknownObjectError, match="did you mean 'stats'"):
        snapshot.view("stat")
    with pytest.raises(UnknownObjectError, match="did you mean 'ranking'"):
        snapshot.service("rankin")
    with pytest.raises(UnknownObjectError, match="no version 7"):
        snapshot.view("stats", 7)


def test_text_survives(registry: Registry) -> None:
    odd = FeatureView(
        "odd",
        entities=[USER],
        schema=[Field("x", "string", default="ü\x00'\"\\%s{}"), Field("y", "bytes", default=b"\x00\xff")],
        description="naïve — 💥 'quoted' -- ;",
    )
    registry.apply([USER, odd])
    assert registry.snapshot().view("odd").view == odd
    assert registry.apply([odd]).plan.is_empty
