"""Which views a run is about."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from fastserve.codec.layout import Layout
from fastserve.definitions import FeatureView, Field, FileSource, PushSource
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.registry import RegisteredView, Snapshot
from fastserve.types import Int64
from materializer.select import choose

SOURCE = FileSource("data")


def snapshot_of(*views: FeatureView) -> Snapshot:
    layouts = (Layout(1, ("a",), (Int64,)),)
    registered = {
        (view.name, view.version): RegisteredView(view, n, MappingProxyType({}), layouts)
        for n, view in enumerate(views)
    }
    return Snapshot("id", "test", 1, {}, registered, {}, {})


def view(name: str, source: FileSource | PushSource | None = SOURCE, **options: object) -> FeatureView:
    return FeatureView(name, schema=[Field("a", Int64)], source=source, **options)  # type: ignore[arg-type]


def chosen(names: list[str], target: str | None, *views: FeatureView) -> list[tuple[str, tuple[str, ...]]]:
    return [(found.name, found.targets) for found in choose(snapshot_of(*views), names, target)]


def test_all_views_with_rows_and_a_store_by_name_and_version() -> None:
    views = [
        view("b", version=2),
        view("b"),
        view("a", online=False),
        view("pushed", PushSource("p")),
        view("with_history", PushSource("q", SOURCE)),
        view("bare", None),
        view("off", online=False, offline=False),
    ]
    assert chosen([], None, *views) == [
        ("a", ("offline",)),
        ("b", ("offline", "online")),
        ("b@v2", ("offline", "online")),
        ("with_history", ("offline", "online")),
    ]


@pytest.mark.parametrize(
    ("target", "targets"),
    [("online", ("online",)), ("offline", ("offline",)), ("both", ("offline", "online"))],
)
def test_a_target_asked_for_overrides_the_declared_one(target: str, targets: tuple[str, ...]) -> None:
    assert chosen([], target, view("a", online=False, offline=False)) == [("a", targets)]


def test_a_name_means_the_newest_version_and_each_view_comes_once() -> None:
    views = [view("a"), view("a", version=3), view("b")]
    assert [name for name, _ in chosen(["b", "a", "a@v1", "a@v3"], None, *views)] == ["b", "a@v3", "a"]


@pytest.mark.parametrize("name", ["a@", "a@2", "a@v0", "a@v", "", "a b", "@v1"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="is no view"):
        chosen([name], None, view("a"))


def test_what_cannot_be_materialized_is_refused_by_name() -> None:
    with pytest.raises(UnknownObjectError, match="did you mean 'stats'"):
        chosen(["stat"], None, view("stats"))
    with pytest.raises(UnknownObjectError, match="its versions: 1"):
        chosen(["stats@v2"], None, view("stats"))
    with pytest.raises(RequestError, match="no batch source"):
        chosen(["stats"], None, view("stats", PushSource("p")))
    with pytest.raises(RequestError, match="neither online nor offline"):
        chosen(["stats"], None, view("stats", online=False, offline=False))
    with pytest.raises(RequestError, match="unknown target"):
        chosen([], "everywhere", view("stats"))
    with pytest.raises(RequestError, match="fastserve apply"):
        chosen([], None)
