"""Looking things up in a snapshot."""

from __future__ import annotations

import pytest

from fastserve import Entity, FeatureService, FeatureView, Field, PushSource
from fastserve.definitions import merge_refs
from fastserve.errors import RegistryError, UnknownObjectError
from fastserve.registry import RegisteredView
from fastserve.registry.snapshot import fields_of
from tests.unit.registry.snapshots import snapshot_of

USER = Entity("user")
ONE = FeatureView("stats", entities=[USER], schema=[Field("a", "int64", default=3), Field("b", "string")])
TWO = FeatureView("stats", entities=[USER], schema=[Field("c", "int64")], version=12)
SNAPSHOT = snapshot_of([USER, TWO, ONE, FeatureService("svc", [ONE]), PushSource("push")])


def test_views_and_versions() -> None:
    assert SNAPSHOT.versions("stats") == (1, 12)
    assert SNAPSHOT.versions("nothing") == ()
    assert SNAPSHOT.view("stats").view == TWO
    assert SNAPSHOT.view("stats", 1).view == ONE
    assert SNAPSHOT.service("svc").name == "svc"
    assert SNAPSHOT.push_source("push").name == "push"
    assert dict(SNAPSHOT.view("stats", 1).defaults) == {"a": 3, "b": None}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SNAPSHOT.view("stat"), "unknown feature view 'stat'\n  hint: did you mean 'stats'?"),
        (
            lambda: SNAPSHOT.view("stats", 2),
            "feature view 'stats' has no version 2\n  hint: its versions: 1, 12",
        ),
        (lambda: SNAPSHOT.service("scv"), "unknown feature service 'scv'\n  hint: did you mean 'svc'?"),
        (lambda: SNAPSHOT.push_source("x"), "unknown push source 'x'\n  hint: known: 'push'"),
        (
            lambda: snapshot_of().view("x"),
            "unknown feature view 'x'\n  hint: no feature view is registered yet",
        ),
    ],
)
def test_unknown_names(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownObjectError) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_resolve() -> None:
    parts = merge_refs(["stats@v1:b", "stats@v1:a", "stats:c"])
    found = SNAPSHOT.resolve(parts)
    assert [(p.features, r.view.version) for p, r in found] == [(("b", "a"), 1), (("c",), 12)]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("nope:a", "unknown feature view 'nope'"),
        ("stats@v3:a", "'stats' has no version 3"),
        ("stats:a", "unknown feature 'a' of view 'stats'"),
        ("stats@v1:aa", "unknown feature 'aa' of view 'stats'"),
    ],
)
def test_unresolved(ref: str, message: str) -> None:
    with pytest.raises(UnknownObjectError, match=message):
        SNAPSHOT.resolve(merge_refs([ref]))


def test_a_view_without_its_layout_is_an_error() -> None:
    registered = RegisteredView(ONE, 1, {}, ())
    with pytest.raises(RegistryError, match="no layout"):
        _ = registered.layout


def test_fields_of() -> None:
    names, dtypes = fields_of(ONE)
    assert (names, tuple(map(str, dtypes))) == (("a", "b"), ("int64", "string"))


def test_definitions_are_those_applied() -> None:
    kinds = [type(o).__name__ for o in SNAPSHOT.definitions()]
    assert kinds == ["Entity", "PushSource", "FeatureView", "FeatureView", "FeatureService"]
