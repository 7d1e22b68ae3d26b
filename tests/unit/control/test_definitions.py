"""Definitions from strangers' JSON: what serde writes is read back, what is handy is taken, the rest is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Array,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RequestSource,
)
from fastserve.control.catalog import _view
from fastserve.control.definitions import build, shown
from fastserve.definitions import OnDemandFeatureView
from fastserve.errors import DefinitionError
from fastserve.registry import open_registry

USER = Entity(
    "user", ["user_id", "country"], ["int64", "string"], description="d", tags={"a": "b"}, owner="o"
)
FILES = FileSource("s3://b/x.csv", "ts", "created", field_mapping={"a": "b"})
VIEW = FeatureView(
    "stats",
    entities=[USER],
    schema=[
        Field("n", "int64", default=0),
        Field("blob", "bytes", default=b"\x00\xff"),
        Field("vector", Array("float32", 2), default=[1.0, 2.0]),
    ],
    source=PushSource("clicks", FILES),
    ttl="1h30m",
    version=3,
    online=False,
)
SERVICE = FeatureService(
    "ranking", [VIEW[["n"]].with_name("x").with_join_key_map({"user_id": "u"}), "stats:blob"]
)
EVENTS = EventSource("payments", FILES, schema=[Field("amount", "float64")], event_id="id", lateness="5m")
SPEND = AggregatedFeatureView(
    "spend",
    entities=[USER],
    source=EVENTS,
    aggregations=[
        Aggregation("amount", "sum", windows=["5m", "30d"]),
        Aggregation("amount", "approx_quantile", quantile=0.5, windows="1h", hop=0),
        Aggregation("*", "count", windows="1h", name="n", description="how many", tags={"a": "b"}),
    ],
    filter="amount > 0",
    max_staleness="5s",
    version=2,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    "name",
    "schema",
    "source",
    "ttl",
    "ttl_us",
    "version",
    "entities",
    "features",
    "join_keys",
    "dtypes",
    "tags",
)


@pytest.mark.parametrize(
    "obj", [USER, VIEW, SERVICE, PushSource("clicks", FILES), PushSource("bare"), EVENTS, SPEND]
)
def test_what_is_shown_can_be_sent_back(obj: Any) -> None:
    assert build([shown(obj)]) == [obj]


def test_handy_forms() -> None:
    made = build(
        [
            {"kind": "entity", "name": "user"},
            {
                "kind": "feature_view",
                "name": "v",
                "schema": [{"name": "a", "dtype": "int64"}],
                "ttl": "2h",
                "source": {"kind": "file_source", "path": "data/x.csv"},
            },
            {"kind": "feature_service", "name": "s", "features": ["v:a", "v:b", "w@v2:c"]},
        ]
    )
    view = FeatureView("v", schema=[Field("a", "int64")], ttl="2h", source=FileSource("data/x.csv"))
    assert made == [Entity("user"), view, FeatureService("s", ["v:a", "v:b", "w@v2:c"])]


@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # the first draw builds tables of Unicode
@given(
    st.sampled_from(
        [
            "entity",
            "feature_view",
            "feature_service",
            "push_source",
            "event_source",
            "aggregated_feature_view",
        ]
    ),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5),
)
def test_anything_is_built_or_refused_with_reasons(kind: str, body: dict[str, Any]) -> None:
    try:
        build([{"kind": kind, **body}])
    except DefinitionError as error:
        assert error.problems
        assert all(
            one.where.startswith("$.definitions[0]") and one.message and one.fix for one in error.problems
        )


def test_an_aggregated_view_needs_no_schema_and_no_false_one() -> None:
    sent = shown(SPEND)
    schema = sent.pop("schema")
    sent["source"] = {**sent["source"], "lateness": "5m"}
    assert build([sent]) == [SPEND]
    with pytest.raises(DefinitionError, match="its schema is not what its aggregations make"):
        build([{**sent, "schema": schema[:1]}])
    with pytest.raises(DefinitionError, match="quantile: is not a number from 0 to 1"):
        build(
            [
                {
                    **sent,
                    "aggregations": [{"column": "a", "function": "sum", "windows": ["1h"], "quantile": {}}],
                }
            ]
        )
    with pytest.raises(DefinitionError, match="offline: is not false"):
        build([{**sent, "offline": True}])


def test_on_demand_views_are_shown_and_come_from_the_repo(tmp_path) -> None:
    view = OnDemandFeatureView(
        "doubled",
        sources=[RequestSource("asked", [Field("a", "int64")])],
        schema=[Field("b", "int64")],
        function="features:doubled",
        code="def doubled(inputs): ...",
    )
    with pytest.raises(DefinitionError) as caught:
        build([shown(view)])
    assert [str(problem.fix) for problem in caught.value.problems] == ["run `fastserve apply` in it"]
    with open_registry(f"sqlite:///{tmp_path}/registry.db", "tests") as registry:
        told = _view(registry.apply([view]).snapshot.view("doubled"))
    assert (told["kind"], told["needs"], told["join_keys"]) == ("on_demand_feature_view", {"a": "int64"}, {})
