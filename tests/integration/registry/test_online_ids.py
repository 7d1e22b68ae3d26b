"""Online ids: never given twice, and the one served last."""

from __future__ import annotations

import pytest

from fastserve.errors import AlreadyRunningError
from fastserve.registry import Registry
from fastserve.timeutil import now_us
from tests.integration.registry.objects import USER, view


@pytest.fixture
def view_id(registry: Registry) -> int:
    return registry.apply([USER, view()]).snapshot.view("stats").view_id


def test_an_id_is_given_once_and_is_no_views(registry: Registry, view_id: int) -> None:
    given = [registry.online_ids.allocate(view_id) for _ in range(3)]
    other = registry.apply([view("other")]).snapshot.view("other").view_id
    assert len({view_id, *given, other}) == 5
    assert [one.online_id for one in registry.online_ids.of_view(view_id)] == [view_id, *given]
    assert registry.online_ids.of_view(other) == []
    assert registry.snapshot().online_ids() == {view_id: view_id, other: other}
    assert registry.plan([USER, view()]).is_empty


def test_the_set_served_last_is_in_every_snapshot(registry: Registry, view_id: int) -> None:
    first, second = (registry.online_ids.allocate(view_id) for _ in range(2))
    for online_id in (first, second, first, view_id, second):
        registry.online_ids.set_live(view_id, online_id)
        found = registry.snapshot().view("stats")
        assert (found.view_id, found.online_id) == (view_id, online_id)
    grown = registry.apply([view(description="more")]).snapshot
    assert grown.view("stats").online_id == second


def test_what_was_removed_is_noted_and_may_be_there_again(registry: Registry, view_id: int) -> None:
    given = registry.online_ids.allocate(view_id)
    registry.online_ids.mark_gone(view_id, [given])
    assert [one.gone_us is None for one in registry.online_ids.of_view(view_id)] == [True, False]
    registry.online_ids.mark_there([given])
    assert all(one.gone_us is None for one in registry.online_ids.of_view(view_id))


def test_retired_views(registry: Registry, view_id: int) -> None:
    registry.apply([view("other"), view(description="changed")])
    registry.online_ids.allocate(view_id)
    assert registry.online_ids.retired(now_us()) == {}
    before = now_us()
    registry.apply([USER, view("other")], prune=True)
    assert registry.online_ids.retired(before - 1) == {}
    assert registry.online_ids.retired(now_us()) == {view_id: "stats"}
    again = registry.apply([view()]).snapshot.view("stats").view_id
    assert again != view_id and registry.online_ids.retired(now_us()) == {view_id: "stats"}


def test_runs_of_a_view_go_on_while_its_sets_are_held(registry: Registry) -> None:
    with registry.lock_sets(1), registry.lock_view(1), registry.lock_sets(2):
        with pytest.raises(AlreadyRunningError), registry.lock_sets(1):
            pass
