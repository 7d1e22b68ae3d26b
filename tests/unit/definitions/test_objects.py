"""The declared objects: what constructors accept, references, projections."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import (
    Array,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Int64,
    PushSource,
)
from fastserve.definitions import FeatureViewProjection, batch_source, merge_refs, parse_ref
from fastserve.errors import RequestError

USER = Entity("user", "user_id", Int64)
VIEW = FeatureView("stats", entities=[USER], schema=[Field("a", Int64), Field("b", "string")], version=2)


def test_entity() -> None:
    assert (Entity("user").join_keys, Entity("user").dtypes) == (("user",), ("string",))
    assert Entity("pair", ["x", "y"], Int64).dtypes == ("int64", "int64")
    assert Entity("pair", ["x", "y"], [Int64, "string"]).dtypes == ("int64", "string")


def test_field_keeps_what_is_canonical() -> None:
    field = Field("e", Array(Float32, 2), default=[1.0, 2.0])
    assert (field.dtype, field.default) == ("list<float32>[2]", (1.0, 2.0))


def test_view() -> None:
    assert VIEW.entities == ("user",)
    assert FeatureView("v", entities="user").entities == FeatureView("v", entities=USER).entities == ("user",)
    assert (
        FeatureView("v", ttl=timedelta(hours=2)).ttl_us == FeatureView("v", ttl="2h").ttl_us == 7_200_000_000
    )
    assert FeatureView("v").ttl_us is None
    assert VIEW.feature_names == ("a", "b")
    assert VIEW.field("b") == Field("b", "string")
    assert VIEW.field("c") is None
    with pytest.raises(ValueError, match="not a duration"):
        FeatureView("v", ttl="two hours")


def test_projections() -> None:
    part = VIEW[["b", "a"]].with_name("s").with_join_key_map({"user_id": "buyer"})
    assert (part.view, part.version, part.features) == ("stats", 2, ("b", "a"))
    assert (part.alias, part.output_name, dict(part.join_key_map)) == ("s", "s", {"user_id": "buyer"})
    assert VIEW["a"].features == ("a",)
    assert VIEW.with_name("x").features == ("a", "b")
    assert VIEW.with_join_key_map({"user_id": "b"}).output_name == "stats"


@pytest.mark.parametrize(
    "obj",
    [
        Entity("user", tags={"k": "v"}),
        VIEW,
        VIEW.with_join_key_map({"user_id": "buyer"}),
        FileSource("x", field_mapping={"a": "b"}),
        PushSource("p", FileSource("x")),
        FeatureService("svc", [VIEW], tags={"k": "v"}),
    ],
)
def test_objects_are_frozen_hashable_and_travel(obj: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(obj, dataclasses.fields(obj)[0].name, "other")
    for attribute in {"tags", "field_mapping", "join_key_map"} & {f.name for f in dataclasses.fields(obj)}:
        with pytest.raises(TypeError):
            getattr(obj, attribute)["x"] = "y"
    assert hash(obj) == hash(copy.deepcopy(obj))
    assert pickle.loads(pickle.dumps(obj)) == copy.deepcopy(obj) == obj


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.parquet", "parquet"),
        ("dir/", "parquet"),
        ("s3://bucket/a.csv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.CSV", "csv"),
        ("a.arrow", "arrow"),
        ("a.feather", "arrow"),
        ("dir.csv/", "csv"),
    ],
)
def test_format_by_ending(path: str, expected: str) -> None:
    assert FileSource(path).format == expected
    assert FileSource(path, format="delta").format == "delta"


def test_sources() -> None:
    file = FileSource("x.parquet")
    assert file.name == "x.parquet"
    assert batch_source(PushSource("p", file)) == batch_source(file) == file
    assert batch_source(PushSource("p")) is batch_source(None) is None


# ---- references ----------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


@given(NAMES, NAMES, st.none() | st.integers(1, 999))
def test_refs(view: str, feature: str, version: int | None) -> None:
    at = "" if version is None else f"@v{version}"
    part = parse_ref(f"{view}{at}:{feature}")
    assert (part.view, part.version, part.features) == (view, version, (feature,))
    assert part.output_name == f"{view}{at}"


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "a",
        "a:",
        ":b",
        "a:b:c",
        "a@2:b",
        "a@v:b",
        "a@v1",
        "a b:c",
        "a:b c",
        " a:b",
        "a:b\n",
        "@v1:a",
        None,
        7,
    ],
)
def test_bad_refs(ref: Any) -> None:
    with pytest.raises(RequestError, match="write view:feature, or view@v2:feature"):
        parse_ref(ref)


def test_neighbouring_refs_are_one_read() -> None:
    parts = merge_refs(["v:a", "v:b", "w:a", "v:c", "v@v1:a", "v@v1:b"])
    assert [(p.view, p.version, p.features) for p in parts] == [
        ("v", None, ("a", "b")),
        ("w", None, ("a",)),
        ("v", None, ("c",)),
        ("v", 1, ("a", "b")),
    ]


def test_refs_do_not_inherit_a_key_map() -> None:
    mapped = FeatureViewProjection(view="v", version=None, features=("a",), join_key_map={"k": "buyer"})
    assert [dict(p.join_key_map) for p in merge_refs([mapped, "v:b"])] == [{"k": "buyer"}, {}]


@given(st.lists(st.tuples(st.sampled_from("vw"), st.sampled_from("abcd")), max_size=12))
def test_merging_keeps_the_order(refs: list[tuple[str, str]]) -> None:
    parts = merge_refs([f"{v}:{f}" for v, f in refs])
    assert [(p.view, f) for p in parts for f in p.features] == refs
    assert all(p.view != q.view for p, q in zip(parts, parts[1:], strict=False))  # noqa: RUF007


def test_services_take_views_parts_and_refs() -> None:
    service = FeatureService("svc", [VIEW, VIEW["a"].with_name("x"), "other:z"])
    assert [(p.output_name, p.features) for p in service.features] == [
        ("stats", ("a", "b")),
        ("x", ("a",)),
        ("other", ("z",)),
    ]
    assert FeatureService("svc", "stats:a").features == merge_refs(["stats:a"])
    assert FeatureService("svc", VIEW).features == (VIEW.projection(),)
