"""The read path against hand-written expectations: values, statuses, order, errors."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fastserve import Entity
from fastserve.codec.status import Status
from fastserve.errors import InvalidEntityError, RequestError, StoreUnavailableError, UnknownObjectError
from fastserve.online.live import RowSets, look, move
from fastserve.serving.read_path import FeatureBatch, ReadPath, decode_columns
from tests.support import NOW_US, HandStore, put
from tests.unit.serving.world import World


def read(
    world: World, features: list[str], entities: dict[str, list[Any]], *, full: bool = False
) -> FeatureBatch:
    plan = world.catalog.plan("", tuple(features), full)
    batch = world.read_path.read(plan, entities, decode_columns)
    assert isinstance(batch, FeatureBatch), "an embedded store answers at once"
    return batch


def values(batch: FeatureBatch) -> dict[str, list[Any]]:
    return {c.name: batch.reads[c.read].columns[c.column].to_pylist() for c in batch.plan.columns}


def statuses(batch: FeatureBatch) -> dict[str, list[str]]:
    return {
        c.name: [Status(int(s)).name for s in batch.reads[c.read].statuses[c.column]]
        for c in batch.plan.columns
    }


def test_present_null_expired_and_absent_are_four_things(world: World) -> None:
    batch = read(world, ["kinds:big", "kinds:small"], {"user_id": [1, 2, 3, 4]})
    assert values(batch) == {"big": [2**53 + 1, None, 7, 7], "small": [-5, 3, None, None]}
    assert statuses(batch)["big"] == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert statuses(batch)["small"] == ["PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]


def test_features_come_in_the_order_asked_for(world: World) -> None:
    batch = read(
        world,
        ["kinds:text", "places:people", "kinds:big"],
        {"city": ["a|b"], "user_id": [1], "country": ["%"]},
    )
    assert list(values(batch).items()) == [("text", ["zażółć"]), ("people", [12]), ("big", [2**53 + 1])]
    assert len(batch.plan.reads) == 2, "a view asked for twice is read once"


def test_a_service_reads_aliases_and_global_views(world: World) -> None:
    plan = world.catalog.plan("mixed", (), True)
    entities = {"user_id": [1, 9], "home_city": ["a|b", "x"], "home_country": ["%", "y"]}
    batch = world.read_path.read(plan, entities, decode_columns)
    assert isinstance(batch, FeatureBatch)
    assert values(batch) == {
        "kinds__big": [2**53 + 1, 7],
        "kinds__text": ["zażółć", "none"],
        "home__people": [12, None],
        "global_stats__total": [99, 99],
    }


def test_an_entity_less_view_needs_no_entities(world: World) -> None:
    batch = read(world, ["global_stats:total"], {})
    assert (batch.n, values(batch)) == (1, {"total": [99]})


def test_no_entities_are_no_rows(world: World) -> None:
    batch = read(world, ["kinds:big"], {"user_id": []})
    assert (batch.n, values(batch)) == (0, {"big": []})


def test_one_output_name_for_two_features_is_refused(world: World) -> None:
    with pytest.raises(RequestError, match=r"kinds:flag and places:flag would both be answered as 'flag'"):
        world.catalog.plan("", ("kinds:flag", "places:flag"), False)
    assert [c.name for c in world.catalog.plan("", ("kinds:flag", "places:flag"), True).columns] == [
        "kinds__flag",
        "places__flag",
    ]


@pytest.mark.parametrize(
    ("entities", "error", "where"),
    [
        ({}, InvalidEntityError, "$.entities"),
        ({"user_id": [1], "userid": [1]}, UnknownObjectError, "$.entities"),
        ({"user_id": [1, None]}, InvalidEntityError, "$.entities.user_id[1]"),
        ({"user_id": ["1"]}, InvalidEntityError, "$.entities.user_id[0]"),
        ({"user_id": [1.0]}, InvalidEntityError, "$.entities.user_id[0]"),
        ({"user_id": [True]}, InvalidEntityError, "$.entities.user_id[0]"),
        ({"user_id": [2**63]}, InvalidEntityError, "$.entities.user_id[0]"),
        ({"user_id": [[1]]}, InvalidEntityError, "$.entities.user_id[0]"),
    ],
)
def test_wrong_entities_name_the_place(
    world: World, entities: dict[str, list[Any]], error: type[Exception], where: str
) -> None:
    with pytest.raises(error) as caught:
        read(world, ["kinds:big"], entities)
    assert caught.value.where == where  # type: ignore[attr-defined]
    assert caught.value.hint  # type: ignore[attr-defined]


def test_ragged_entities_name_both_columns(world: World) -> None:
    with pytest.raises(InvalidEntityError, match="has 1 values, but 'city' has 2") as caught:
        read(world, ["places:people"], {"city": ["a", "b"], "country": ["c"]})
    assert caught.value.where == "$.entities.country"


async def test_a_new_revision_is_served_without_touching_the_old_plan(world: World) -> None:
    from fastserve import Field
    from tests.unit.serving.world import KINDS, OBJECTS, FeatureView

    before = world.catalog.plan("", ("kinds:big",), False)
    grown = FeatureView(
        "kinds", entities=["user"], schema=[*KINDS.schema, Field("added", "int32", default=5)], ttl="1h"
    )
    world.registry.apply([grown if o is KINDS else o for o in OBJECTS])
    assert world.catalog.refresh()
    assert not world.catalog.refresh()
    batch = read(world, ["kinds:added", "kinds:big"], {"user_id": [1, 4]})
    assert values(batch) == {"added": [5, 5], "big": [2**53 + 1, 7]}
    assert statuses(batch)["added"] == ["PRESENT", "NOT_FOUND"]
    assert world.catalog.plan("", ("kinds:big",), False).fingerprint == before.fingerprint
    old = world.read_path.read(before, {"user_id": [1]}, decode_columns)
    assert isinstance(old, FeatureBatch) and values(old) == {"big": [2**53 + 1]}


async def test_where_nothing_was_written_the_revision_is_not_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastserve import Field
    from tests.unit.serving.world import OBJECTS, FeatureView

    world.catalog.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(type(world.registry), "revision", lambda _: 1 / 0)
        assert not world.catalog.refresh()
        more = FeatureView("more", entities=["user"], schema=[Field("n", "int32")])
        world.registry.apply([*OBJECTS, more])
        with pytest.raises(ZeroDivisionError):
            world.catalog.refresh()
    assert world.catalog.refresh(), "what failed is tried again"


async def test_two_versions_are_served_side_by_side(world: World) -> None:
    from fastserve import Field
    from tests.unit.serving.world import OBJECTS, FeatureView

    second = FeatureView("kinds", entities=["user"], schema=[Field("big", "string")], version=2)
    snapshot = world.registry.apply([*OBJECTS, second]).snapshot
    await put(world.store, snapshot.view("kinds", 2), [{"user_id": 1, "big": "new"}])
    world.catalog.refresh()
    assert values(read(world, ["kinds:big"], {"user_id": [1]})) == {"big": ["new"]}
    both = read(world, ["kinds@v1:big", "kinds@v2:big"], {"user_id": [1]}, full=True)
    assert values(both) == {"kinds@v1__big": [2**53 + 1], "kinds@v2__big": ["new"]}


async def test_at_the_deadline_everything_is_unavailable(world: World) -> None:
    store = HandStore()
    path = ReadPath(store, lambda: NOW_US, deadline_us=1_000)  # type: ignore[arg-type]
    answer = path.read(world.catalog.plan("", ("kinds:big",), False), {"user_id": [1, 2]}, decode_columns)
    assert isinstance(answer, asyncio.Future)
    batch = await answer
    assert statuses(batch) == {"big": ["UNAVAILABLE"] * 2}
    assert values(batch) == {"big": [None, None]}, "a default never stands in for a failure"
    assert "in time" in batch.unavailable and store.asked[0][0].abandoned


async def test_a_request_may_wait_for_less_but_not_for_more(world: World) -> None:
    store = HandStore()
    plan = world.catalog.plan("", ("kinds:big",), False)
    patient = ReadPath(store, lambda: NOW_US, deadline_us=3_600_000_000)  # type: ignore[arg-type]
    answer = patient.read(plan, {"user_id": [1]}, decode_columns, deadline_us=1_000)
    assert isinstance(answer, asyncio.Future)
    assert statuses(await asyncio.wait_for(answer, 20)) == {"big": ["UNAVAILABLE"]}
    hasty = ReadPath(store, lambda: NOW_US, deadline_us=1_000)  # type: ignore[arg-type]
    answer = hasty.read(plan, {"user_id": [1]}, decode_columns, deadline_us=3_600_000_000)
    assert isinstance(answer, asyncio.Future)
    assert statuses(await asyncio.wait_for(answer, 20)) == {"big": ["UNAVAILABLE"]}


async def test_a_failing_store_is_unavailable_not_absent(world: World) -> None:
    store = HandStore()
    path = ReadPath(store, lambda: NOW_US)  # type: ignore[arg-type]
    answer = path.read(world.catalog.plan("", ("kinds:big",), False), {"user_id": [1]}, decode_columns)
    assert isinstance(answer, asyncio.Future)
    store.asked[0][1](StoreUnavailableError("connection refused"))
    batch = await answer
    assert statuses(batch) == {"big": ["UNAVAILABLE"]} and batch.unavailable == "connection refused"


async def test_a_cancelled_read_cancels_its_question(world: World) -> None:
    store = HandStore()
    path = ReadPath(store, lambda: NOW_US)  # type: ignore[arg-type]
    answer = path.read(world.catalog.plan("", ("kinds:big",), False), {"user_id": [1]}, decode_columns)
    assert isinstance(answer, asyncio.Future)
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    await asyncio.sleep(0)  # its callbacks run on the next turn of the loop
    assert store.asked[0][0].abandoned


def test_the_fingerprint_sees_names_types_versions_and_order(world: World) -> None:
    plan = world.catalog.plan
    ways = [
        plan("", ("kinds:big", "kinds:small"), False),
        plan("", ("kinds:small", "kinds:big"), False),
        plan("", ("kinds:big", "kinds:small"), True),
        plan("", ("kinds:big",), False),
    ]
    assert len({p.fingerprint for p in ways}) == len(ways)
    assert plan("", ("kinds:big",), False) is ways[3], "compiled once"


async def test_a_switch_of_row_sets_is_served_and_the_old_plan_goes_on(world: World) -> None:
    registered = world.catalog.snapshot.view("kinds")
    before = world.catalog.plan("", ("kinds:big",), False)
    other = world.registry.online_ids.allocate(registered.view_id)
    await put(world.store, registered.at(other), [{"user_id": 1, "big": 5}])
    assert await world.catalog.follow_sets(world.store) > time.monotonic_ns() // 1_000
    assert world.catalog.plan("", ("kinds:big",), False) is before, "nothing moved: plans stay"
    sets = (await look(world.store, {registered.view_id: registered.view_id}))[registered.view_id]
    await move(world.store, sets, RowSets(registered.view_id, other, registered.view_id, "kept"))
    await world.catalog.follow_sets(world.store)
    batch = read(
        world,
        ["kinds:big", "kinds:small", "places:people"],
        {"user_id": [1], "city": ["a|b"], "country": ["%"]},
    )
    assert values(batch)["big"] == [5] and values(batch)["people"] == [12]
    old = world.read_path.read(before, {"user_id": [1]}, decode_columns)
    assert isinstance(old, FeatureBatch) and values(old) == {"big": [2**53 + 1]}
    world.registry.apply([Entity("another")])
    assert world.catalog.refresh()
    assert world.catalog.snapshot.view("kinds").online_id == other, "a new revision keeps the set"


async def test_rows_are_not_read_by_row_sets_known_too_long_ago(world: World) -> None:
    world.read_path.sure_until_us = time.monotonic_ns() // 1_000
    batch = read(world, ["kinds:big"], {"user_id": [1]})
    assert statuses(batch)["big"] == ["UNAVAILABLE"] and "last known" in batch.unavailable
    world.read_path.sure_until_us += 60_000_000
    assert statuses(read(world, ["kinds:big"], {"user_id": [1]}))["big"] == ["PRESENT"]


async def test_a_view_that_the_store_says_is_retired_is_unknown(world: World) -> None:
    """A server that cannot ask the registry does not say that rows which were removed never were."""
    view_id = world.catalog.snapshot.view("kinds").view_id
    await move(world.store, RowSets(view_id, view_id), RowSets(view_id, view_id, role="retired"))
    await world.catalog.follow_sets(world.store)
    with pytest.raises(UnknownObjectError, match="kinds"):
        world.catalog.plan("", ("kinds:big",), False)
    assert values(read(world, ["places:people"], {"city": ["a|b"], "country": ["%"]})) == {"people": [12]}
