"""Definitions as canonical JSON: nothing is lost, and the hash says the same for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from fastserve.definitions import Definition, FeatureViewProjection, OnDemandFeatureView
from fastserve.definitions.serde import canonical_json, content_hash, from_dict, kind_of, to_dict
from fastserve.errors import RegistryError

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXT = st.text(max_size=12)
ABOUT = {"description": TEXT, "owner": TEXT, "tags": st.dictionaries(TEXT, TEXT, max_size=3)}
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
VALUES = SCALARS | TEXT | st.binary(max_size=5)
DEFAULTS = VALUES | st.lists(VALUES.filter(lambda v: v is not None), max_size=3)
DTYPES = st.sampled_from(["int64", "string", "list<float32>[3]", "list<bytes>"])

FILES = st.builds(
    FileSource,
    path=TEXT,
    timestamp_field=NAMES,
    created_timestamp_column=st.none() | NAMES,
    name=TEXT,
    field_mapping=st.dictionaries(NAMES, NAMES, max_size=3),
    format=st.sampled_from([None, "csv", "parquet", "delta"]),
    **ABOUT,
)
PUSHES = st.builds(PushSource, name=NAMES, batch_source=st.none() | FILES, **ABOUT)
FIELDS = st.builds(Field, name=NAMES, dtype=DTYPES, default=DEFAULTS, description=TEXT, tags=ABOUT["tags"])
ENTITIES = st.builds(Entity, name=NAMES, join_keys=st.lists(NAMES, min_size=1, max_size=3), **ABOUT)
VIEWS = st.builds(
    FeatureView,
    name=NAMES,
    entities=st.lists(NAMES, max_size=3),
    schema=st.lists(FIELDS, max_size=4),
    source=st.none() | FILES | PUSHES,
    ttl=st.none() | st.timedeltas(),
    version=st.integers(1, 9),
    online=st.booleans(),
    offline=st.booleans(),
    **ABOUT,
)
PARTS = st.builds(
    FeatureViewProjection,
    view=NAMES,
    version=st.none() | st.integers(1, 9),
    features=st.lists(NAMES, max_size=3).map(tuple),
    alias=TEXT,
    join_key_map=st.dictionaries(NAMES, NAMES, max_size=2),
)
SERVICES = st.builds(FeatureService, name=NAMES, features=st.lists(PARTS, max_size=3), **ABOUT)
REQUESTS = st.builds(RequestSource, name=NAMES, schema=st.lists(FIELDS, max_size=3), description=TEXT)
ON_DEMAND = st.builds(
    OnDemandFeatureView,
    name=NAMES,
    sources=st.lists(PARTS | REQUESTS, max_size=4),
    schema=st.lists(FIELDS, max_size=3),
    function=TEXT,
    code=TEXT,
    arguments=st.lists(st.sampled_from(["at", "valid"]), unique=True),
    budget=st.none() | st.sampled_from(["1ms", "100us"]),
    version=st.integers(1, 9),
    **ABOUT,
)
ANY = ENTITIES | FILES | PUSHES | VIEWS | ON_DEMAND | SERVICES


@given(ANY)
def test_round_trip(obj: Definition) -> None:
    text = canonical_json(obj)
    back = from_dict(kind_of(obj), json.loads(text))
    assert back == obj
    assert canonical_json(back) == text
    assert content_hash(back) == content_hash(obj)


@given(ANY)
def test_types_survive(obj: Definition) -> None:
    """1, 1.0 and True are equal in Python, but not as defaults."""
    back = from_dict(kind_of(obj), json.loads(canonical_json(obj)))
    assert repr(back) == repr(obj)


def test_nan_survives() -> None:
    view = FeatureView("v", schema=[Field("x", "float64", default=float("nan"))])
    assert "NaN" in canonical_json(view)
    assert canonical_json(from_dict("feature_view", json.loads(canonical_json(view)))) == canonical_json(view)


def test_hashes_are_for_ever() -> None:
    """Stored hashes depend on these bytes: an attribute added later must not change them."""
    view = FeatureView(
        "stats",
        entities=["user"],
        schema=[Field("a", "int64", default=0), Field("b", "bytes", default=b"\x00")],
        ttl="2h",
        source=PushSource("p", FileSource("s.parquet")),
    )
    assert canonical_json(view) == (
        '{"entities":["user"],"name":"stats","schema":[{"default":0,"dtype":"int64","name":"a"},'
        '{"default":{"$bytes":"AA=="},"dtype":"bytes","name":"b"}],"source":{"batch_source":'
        '{"kind":"file_source","name":"s.parquet","path":"s.parquet","timestamp_field":"event_timestamp"},'
        '"kind":"push_source","name":"p"},"ttl_us":7200000000}'
    )
    assert content_hash(view)[:12] == "75d2a10261e9"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Entity("a"), Entity("b")),
        (Entity("a", dtype="int64"), Entity("a")),
        (FeatureView("a", ttl="1h"), FeatureView("a", ttl="60s")),
        (
            FeatureView("a", schema=[Field("x", "bool", default=False)]),
            FeatureView("a", schema=[Field("x", "bool")]),
        ),
        (
            FeatureView("a", schema=[Field("x", "float64", default=0)]),
            FeatureView("a", schema=[Field("x", "float64", default=False)]),
        ),
        (
            FeatureView("a", schema=[Field("x", "int64"), Field("y", "int64")]),
            FeatureView("a", schema=[Field("y", "int64"), Field("x", "int64")]),
        ),
        (FeatureView("same"), FeatureService("same")),
    ],
)
def test_hashes_tell_apart(one: Definition, other: Definition) -> None:
    assert content_hash(one) != content_hash(other)


def test_the_order_of_tags_does_not_matter() -> None:
    assert content_hash(Entity("a", tags={"x": "1", "y": "2"})) == content_hash(
        Entity("a", tags={"y": "2", "x": "1"})
    )


def test_defaults_are_left_out() -> None:
    assert to_dict(Entity("a")) == {"name": "a", "join_keys": ["a"], "dtypes": ["string"]}


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("stream_view", {}, "unknown kind of definition 'stream_view'"),
        ("entity", {"name": "a", "shape": 1}, "Entity 'a' has unknown attributes: shape"),
        ("feature_view", {"name": "v", "schema": [{"name": "x", "filter": ""}]}, "Field 'x' has unknown"),
    ],
)
def test_what_a_newer_release_wrote_is_not_guessed(kind: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        from_dict(kind, data)
    assert caught.value.hint == "it was written by a newer fastserve; upgrade"


def test_a_view_without_retention_is_the_text_it_was() -> None:
    plain = FeatureView("v", schema=[Field("a", "int64")], ttl="1d")
    assert (
        canonical_json(plain) == '{"name":"v","schema":[{"dtype":"int64","name":"a"}],"ttl_us":86400000000}'
    )
    kept = FeatureView("v", schema=[Field("a", "int64")], ttl="1d", retention="2d")
    assert from_dict("feature_view", to_dict(kept)) == kept and content_hash(kept) != content_hash(plain)
