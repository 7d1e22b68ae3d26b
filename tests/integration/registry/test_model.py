"""Any sequence of applies against a model in memory: a dict of definitions and their versions."""

from __future__ import annotations

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import FeatureService, FeatureView, Field
from fastserve.definitions import Definition
from fastserve.errors import BreakingChangeError, DefinitionError
from fastserve.registry import Registry, Snapshot, open_registry
from fastserve.registry.planner import Key, key_of
from tests.integration.registry.objects import USER

FIELDS = [Field("a", "int64"), Field("b", "string"), Field("c", "float64", default=1.0)]
VIEWS = st.builds(
    FeatureView,
    name=st.sampled_from(["v", "w"]),
    entities=st.just([USER]),
    schema=st.permutations(FIELDS).flatmap(lambda f: st.integers(1, 3).map(lambda n: f[:n])),
    ttl=st.sampled_from([None, "1h", "2h"]),
    version=st.integers(1, 2),
)
SERVICES = st.builds(
    FeatureService,
    name=st.just("svc"),
    features=st.lists(st.sampled_from(["v:a", "w@v1:a", "v@v2:b"]), min_size=1, max_size=2, unique=True),
)
APPLIES = st.lists(
    st.tuples(st.lists(VIEWS | SERVICES, max_size=3, unique_by=key_of), st.booleans()), min_size=1, max_size=8
)


def _state(snapshot: Snapshot) -> dict[Key, Definition]:
    return {key_of(o): o for o in snapshot.definitions()}


def _check_views(before: Snapshot, after: Snapshot, ever: set[int]) -> None:
    """Ids stay while a view lives and never come back; layouts only grow, and one is the schema's."""
    for key, registered in after.views.items():
        old = before.views.get(key)
        if old is None:
            assert registered.view_id not in ever
        else:
            assert registered.view_id == old.view_id
            assert registered.layouts[: len(old.layouts)] == old.layouts
        assert [x.layout_id for x in registered.layouts] == list(range(1, len(registered.layouts) + 1))
        assert registered.layout.names == registered.view.feature_names
        ever.add(registered.view_id)


def _play(registry: Registry, applies: list[tuple[list[Definition], bool]]) -> None:
    states: list[dict[Key, Definition]] = [{}]
    ever: set[int] = set()
    for objects, prune in applies:
        before = registry.snapshot()
        objects = [USER, *objects]
        try:
            plan = registry.plan(objects, prune=prune)
            result = registry.apply(objects, prune=prune)
        except (DefinitionError, BreakingChangeError):
            assert registry.snapshot() == before
            continue
        assert result.plan == plan
        new = {key_of(o): o for o in objects}
        expected = new if prune else states[-1] | new
        assert _state(result.snapshot) == expected
        assert plan.is_empty == (expected == states[-1])
        if not plan.is_empty:
            states.append(expected)
        assert result.snapshot.revision == len(states) - 1
        _check_views(before, result.snapshot, ever)
    assert [_state(registry.snapshot(r)) for r in range(len(states))] == states


@settings(max_examples=40, deadline=None)
@given(APPLIES)
def test_any_sequence_of_applies(applies: list[tuple[list[Definition], bool]]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        open_registry(f"sqlite:///{directory}/r.db", "demo") as registry,
    ):
        _play(registry, applies)
