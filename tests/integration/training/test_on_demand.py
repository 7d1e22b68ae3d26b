"""On-demand views in training sets: the bits that serving gives, plain Python's values, and what is checked first."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import FeatureService, FeatureStore
from fastserve.errors import ConfigError, DefinitionError, InvalidDataError, RequestError
from fastserve.offline.history import History
from fastserve.online import open_store
from fastserve.timeutil import MICROS
from materializer.pit.spine import to_spine
from tests.integration.training.kit import T0, Repo, assert_same, ts
from tests.oracles.bits import bits
from tests.support import make_repo, put

FEATURES = '''
import numpy as np
import pyarrow.compute as pc
from fastserve import Array, Entity, FeatureService, FeatureView, Field, RequestSource, on_demand_feature_view
from fastserve.on_demand import haversine_km, hours_since, ratio

card = Entity("card", "card_id", "int64")
stats = FeatureView("stats", entities=[card], ttl="20s", schema=[
    Field("mean", "float64"), Field("count", "int64", default=0), Field("seen", "timestamp"),
    Field("home", "string"), Field("lat", "float64"), Field("lon", "float64"),
    Field("vector", Array("float32", 3)), Field("tags", Array("string"))])
trip = RequestSource("trip", [Field("amount", "float64"), Field("here_lat", "float64"), Field("here_lon", "float64"),
                              Field("asked", "string"), Field("look", Array("float32", 3))])

@on_demand_feature_view(sources=[stats[["mean", "seen", "lat", "lon"]], trip], schema=[
    Field("share", "float64"), Field("hours", "float32"), Field("far", "float64"), Field("late", "timestamp")])
def spent(inputs, at):
    return {
        "share": ratio(inputs["amount"], inputs["mean"]),
        "hours": hours_since(inputs["seen"], at),
        "far": haversine_km(inputs["lat"], inputs["lon"], inputs["here_lat"], inputs["here_lon"]),
        "late": np.maximum(at, inputs["seen"]),
    }

@on_demand_feature_view(sources=[stats[["home", "vector", "tags", "count"]], trip], schema=[
    Field("dot", "float32"), Field("same", "bool"), Field("both", "string"), Field("n_tags", "int64"),
    Field("scaled", Array("float32", 3)), Field("odd", "float64")])
def seen(inputs):
    with np.errstate(all="ignore"):
        odd = np.log(inputs["amount"]) * 0.0  # NaNs of either sign
    return {
        "dot": np.einsum("ij,ij->i", inputs["vector"], inputs["look"]),
        "same": pc.equal(inputs["home"], inputs["asked"]),
        "both": pc.binary_join_element_wise(inputs["home"], inputs["asked"], "|"),
        "n_tags": pc.list_value_length(inputs["tags"]).cast("int64"),
        "scaled": inputs["vector"] * np.float32(0.1),
        "odd": odd,
    }

@on_demand_feature_view(sources=[spent[["share"]], seen[["same"]], stats[["count"]]], schema=[Field("risk", "float64")])
def risk(inputs, valid):
    return {"risk": np.where(valid["share"], inputs["share"], -1.0) * inputs["count"] + inputs["same"]}

scoring = FeatureService("scoring", [stats[["mean"]], spent, seen, risk[["risk"]]])
'''  # fmt: skip


def make(folder: Path, features: str = FEATURES, **settings: str) -> FeatureStore:
    store = FeatureStore(make_repo(folder / "repo", features, **settings))
    store.apply()
    return store


def some(rng: np.random.Generator, n: int, make: Any, share: float = 0.15) -> list[Any]:
    """n values, some of them null."""
    return [None if rng.random() < share else make() for _ in range(n)]


def rows_of(rng: np.random.Generator, n: int) -> dict[str, list[Any]]:
    number = lambda: float(rng.choice([rng.normal(), 0.0, -0.0, math.nan, math.inf, 1e300]))  # noqa: E731
    return {
        "card_id": [int(v) for v in rng.integers(0, 12, n)],
        "mean": some(rng, n, number),
        "count": some(rng, n, lambda: int(rng.integers(-5, 2**50))),
        "seen": some(rng, n, lambda: T0 + int(rng.integers(0, 10**12))),
        "home": some(rng, n, lambda: str(rng.choice(["DE", "PL", "ż"]))),
        "lat": some(rng, n, lambda: float(rng.uniform(-90, 90))),
        "lon": some(rng, n, lambda: float(rng.uniform(-180, 180))),
        "vector": some(rng, n, lambda: [float(np.float32(v)) for v in rng.normal(size=3)]),
        "tags": some(rng, n, lambda: ["a"] * int(rng.integers(0, 4))),
    }


def request_of(rng: np.random.Generator, n: int) -> dict[str, list[Any]]:
    return {
        "amount": some(rng, n, lambda: float(rng.choice([rng.normal(), 0.0, 7.0]))),
        "here_lat": [float(v) for v in rng.uniform(-95, 95, n)],
        "here_lon": some(rng, n, lambda: float(rng.uniform(-180, 180))),
        "asked": some(rng, n, lambda: str(rng.choice(["DE", "PL"]))),
        "look": some(rng, n, lambda: [float(np.float32(v)) for v in rng.normal(size=3)]),
    }


TYPES = {
    "count": pa.int64(),
    "seen": pa.timestamp("us", "UTC"),
    "vector": pa.list_(pa.float32(), 3),
    "look": pa.list_(pa.float32(), 3),
    "tags": pa.list_(pa.string()),
    "asked": pa.string(),
}


def table_of(columns: dict[str, Any]) -> pa.Table:
    return pa.table(
        {n: v if isinstance(v, pa.Array) else pa.array(v, TYPES.get(n)) for n, v in columns.items()}
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_training_and_serving_give_the_same_bits(tmp_path, seed):
    """Every label's row, asked of the server's path at the label's time, with rows of just that time before it."""
    rng = np.random.default_rng(seed)
    store = make(tmp_path, online_store="lmdb://online.lmdb")
    repo = Repo.of(store)
    n = 60
    events = np.sort(rng.choice(100, n, replace=False)) * MICROS
    rows = rows_of(rng, n)
    table = table_of({**rows, "event_timestamp": ts(events.tolist())})
    store.write_to_offline_store("stats", table)
    moments = sorted(int(v) * MICROS for v in rng.integers(0, 130, 12))
    spine: dict[str, list[Any]] = {"card_id": [], **{name: [] for name in request_of(rng, 0)}}
    stamps: list[int] = []
    served = []
    done = 0
    for moment in moments:
        until = int(np.searchsorted(events, moment, "right"))
        asyncio.run(keep(store, rows, events, range(done, until)))
        done = until
        asked = {"card_id": [int(v) for v in rng.integers(0, 14, 10)], **request_of(rng, 10)}
        answer = store.get_online_features(service="scoring", entity_rows=asked, now=T0 + moment)
        assert answer.batch.unavailable == ""
        served.append(answer.to_arrow().select([c.name for c in answer.batch.plan.columns]))
        for name, values in asked.items():
            spine[name] += values
        stamps += [moment] * 10
    labels = table_of({**spine, "event_timestamp": ts(stamps)})
    made = repo.train(labels, store.get_feature_service("scoring"), allow_incomplete=True).to_arrow()
    made = made.select(served[0].column_names)
    assert made.schema.equals(pa.concat_tables(served).schema)
    for name in made.column_names:
        assert bits(made[name]) == bits(pa.concat_tables(served)[name]), name
        assert 0 < made[name].null_count < len(made) or name in ("risk", "mean"), name
    assert _plain(rows, events, spine, stamps) == [
        (_near(share), n_tags, risk) for share, n_tags, risk in zip(
            made["share"].to_pylist(), made["n_tags"].to_pylist(), map(_near, made["risk"].to_pylist()), strict=True)
    ]  # fmt: skip


async def keep(store: FeatureStore, rows: dict[str, Any], events: Any, picks: range) -> None:
    """Write some rows online, whatever their age."""
    online = open_store(store.config.online_store)
    for i in picks:
        row = {name: values[i] for name, values in rows.items()}
        await put(online, store.snapshot.view("stats"), [row], event_us=T0 + int(events[i]))
    await online.close()


def _near(value: float | None) -> str | None:
    return None if value is None else f"{value:.9g}"


def _plain(rows: Any, events: Any, spine: Any, stamps: list[int]) -> list[Any]:
    """share, n_tags and risk in plain Python, one label after another."""
    found = []
    for i, moment in enumerate(stamps):
        row = None
        for j, event in enumerate(events.tolist()):
            if rows["card_id"][j] == spine["card_id"][i] and moment - 20 * MICROS < event <= moment:
                row = {name: values[j] for name, values in rows.items()}
        asked = {name: values[i] for name, values in spine.items()}
        have = row or dict.fromkeys(rows) | {"count": 0}
        whole = [have[name] for name in ("mean", "seen", "lat", "lon")]
        whole += [asked[name] for name in ("amount", "here_lat", "here_lon", "asked", "look")]
        share = None
        if None not in whole and have["mean"] != 0:
            share = asked["amount"] / have["mean"]
        parts = [have[name] for name in ("home", "vector", "tags", "count")]
        parts += [asked[name] for name in ("amount", "here_lat", "here_lon", "asked", "look")]
        n_tags = None if None in parts else len(have["tags"])
        same = None if None in parts else have["home"] == asked["asked"]
        risk = None
        if have["count"] is not None and same is not None:
            risk = (-1.0 if share is None else share) * float(have["count"]) + float(same)
        found.append((_near(share), n_tags, _near(risk)))
    return found


SPINE = {"card_id": [1], "here_lat": [1.0], "here_lon": [1.0], "asked": ["DE"], "look": [[1.0, 2.0, 3.0]]}


@pytest.mark.parametrize(
    ("columns", "error", "said"),
    [
        ({}, RequestError, "on-demand view 'spent' needs a column 'amount' (float64)"),
        ({"amount": ["a"]}, InvalidDataError, "'a' does not fit float64 exactly"),
        ({"amount": [True]}, InvalidDataError, "the column is bool"),
    ],
)
def test_what_the_spine_lacks_is_said_before_anything_is_read(tmp_path, columns, error, said):
    store = make(tmp_path)
    labels = table_of({**SPINE, **columns, "event_timestamp": ts([0])})
    with patch.object(History, "pieces", side_effect=AssertionError("it was read")):
        with pytest.raises(error) as caught:
            store.get_historical_features(labels, service="scoring", allow_incomplete=True)
    assert said in caught.value.message and "column 'amount'" in caught.value.where


def test_another_function_than_the_applied_is_not_called(tmp_path):
    store = make(tmp_path)
    (store.config.repo / "features.py").write_text(FEATURES.replace("np.float32(0.1)", "np.float32(0.2)"))
    labels = table_of({**SPINE, "amount": [1.0], "event_timestamp": ts([0])})
    row = {**rows_of(np.random.default_rng(3), 1), "event_timestamp": ts([0])}
    store.write_to_offline_store("stats", table_of(row))
    with patch.object(History, "pieces", side_effect=AssertionError("it was read")):
        with pytest.raises(ConfigError, match="features:seen is not the function that was applied"):
            store.get_historical_features(labels, service="scoring", allow_incomplete=True)
    only = store.get_historical_features(labels, ["spent:share"], allow_incomplete=True)
    assert only.to_arrow()["share"].to_pylist() == [None]


def test_a_failure_names_the_row_of_the_spine(tmp_path):
    store = make(tmp_path, FEATURES.replace('"n_tags", "int64"', '"n_tags", "int32"').replace(
        'pc.list_value_length(inputs["tags"]).cast("int64")', 'inputs["amount"]'))  # fmt: skip
    row = {**rows_of(np.random.default_rng(3), 1), "card_id": [1], "count": [1], "home": ["DE"]}
    row |= {"vector": [[1.0, 2.0, 3.0]], "tags": [["a"]]}
    store.write_to_offline_store("stats", table_of({**row, "event_timestamp": ts([0])}))
    spine = {name: values * 3 for name, values in SPINE.items()}
    labels = table_of({**spine, "amount": [1.0, None, 2.5], "event_timestamp": ts([1, 1, 1])})
    with pytest.raises(InvalidDataError) as caught:
        store.get_historical_features(labels, ["seen:n_tags"], allow_incomplete=True)
    assert caught.value.where == "on-demand view 'seen', feature 'n_tags', row 2"


def test_an_alias_on_other_columns_and_a_view_of_the_request_alone(tmp_path):
    more = FEATURES + '''
@on_demand_feature_view(sources=[trip], schema=[Field("double", "float64")])
def alone(inputs):
    return {"double": inputs["amount"] * 2}
'''  # fmt: skip
    store = make(tmp_path, more)
    seen = {"seen": [T0], "lat": [0.0], "lon": [0.0]}
    rows = {"card_id": [7], "mean": [4.0], **seen}
    empty = {"count": [None], "home": [None], "vector": [None], "tags": [None], "event_timestamp": ts([0])}
    store.write_to_offline_store("stats", table_of({**rows, **empty}))
    labels = table_of({**SPINE, "other": [7], "amount": [1.0], "sum": [2.0], "event_timestamp": ts([1])})
    spent = store.get_feature_view("spent")
    other = spent[["share"]].with_name("other").with_join_key_map({"card_id": "other", "amount": "sum"})
    features = [spent[["share"]], other, store.get_feature_view("alone")]
    made = store.get_historical_features(labels, features, full_feature_names=True, allow_incomplete=True)
    found = {name: column.to_pylist() for name, column in made.features.items()}
    assert found == {"spent__share": [None], "other__share": [0.5], "alone__double": [2.0]}
    only = store.get_historical_features(labels, ["alone:double"])
    assert only.to_arrow()["double"].to_pylist() == [2.0]


def test_a_data_set_notes_the_function_and_is_made_again_by_it_alone(tmp_path):
    store = make(tmp_path)
    rng = np.random.default_rng(4)
    rows = rows_of(rng, 20)
    store.write_to_offline_store("stats", table_of({**rows, "event_timestamp": ts(list(range(20)))}))
    n = 30
    asked = {"card_id": [int(v) for v in rng.integers(0, 12, n)], **request_of(rng, n)}
    labels = table_of({**asked, "event_timestamp": ts([50] * n)})
    made = store.create_training_dataset(labels, "d", service="scoring", allow_incomplete=True)
    kinds = {view["view"]: view["origin"]["kind"] for view in made.manifest.views}
    assert kinds == {"stats": "offline_table", "spent": "on_demand", "seen": "on_demand", "risk": "on_demand"}
    assert_same(made.to_arrow(), store.get_historical_features(
        to_spine(labels), service="scoring", allow_incomplete=True).to_arrow())  # fmt: skip
    assert store.verify_training_dataset("d").outcome == "equal"
    assert [d.name for d in store.list_training_datasets(view="risk")] == ["d"]
    store.apply([FeatureService("scoring", store.get_feature_service("scoring").features, pinned_to=made.id)])
    (store.config.repo / "features.py").write_text(FEATURES.replace("-1.0", "-2.0"))
    report = store.verify_training_dataset("d")
    assert report.outcome == "cannot_be_remade"
    assert "features:risk is not the function that was applied" in str(report)
    changed = [o for o in store.load() if o.name != "scoring"]
    with pytest.raises(DefinitionError, match="by another function of on-demand view 'risk'"):
        store.apply(changed)


WINDOWS = '''
from fastserve import (AggregatedFeatureView, Aggregation, Entity, EventSource, FeatureService, Field, FileSource,
                       RequestSource, on_demand_feature_view)
from fastserve.on_demand import ratio

card = Entity("card", "card_id", "int64")
payments = EventSource("payments", FileSource("payments.parquet", "ts"), schema=[Field("amount", "float64")])
spend = AggregatedFeatureView("spend", entities=[card], source=payments, aggregations=[
    Aggregation("amount", "mean", windows=["30s", "5m"]), Aggregation("*", "count", windows=["5m"])])

@on_demand_feature_view(sources=[spend, RequestSource("now", [Field("amount", "float64")])],
                        schema=[Field("times_mean", "float64"), Field("busy", "bool")])
def unusual(inputs, valid):
    return {"times_mean": ratio(inputs["amount"], inputs["amount_mean_5m"]), "busy": inputs["count_5m"] > 2}

scoring = FeatureService("scoring", [unusual, spend[["amount_mean_30s"]]])
'''  # fmt: skip


def test_windows_are_inputs_and_give_the_same_bits(tmp_path):
    rng = np.random.default_rng(6)
    store = make(tmp_path, WINDOWS, online_store="lmdb://online.lmdb")
    n = 300
    events = {"card_id": [int(v) for v in rng.integers(0, 5, n)], "amount": rng.normal(size=n).tolist()}
    times = np.sort(rng.integers(0, 1_000, n)) * MICROS
    pq.write_table(pa.table({**events, "ts": ts(times.tolist())}), store.config.repo / "payments.parquet")
    asked = {"card_id": [0, 1, 2, 3, 4, 5], "amount": [1.0, 2.0, None, -3.0, 0.0, 1.0]}
    served, labels = [], {"card_id": [], "amount": [], "event_timestamp": []}
    for moment in (100, 333, 999):
        done = store.materialize(T0 - 1, T0 + moment * MICROS, ["spend"], now=T0 + moment * MICROS)
        assert done.status == "ok"
        answer = store.get_online_features(
            service="scoring", entity_rows=asked, now=T0 + moment * MICROS
        ).to_arrow()
        served.append(answer.select(["times_mean", "busy", "amount_mean_30s"]))
        for name, values in asked.items():
            labels[name] += values
        labels["event_timestamp"] += [moment * MICROS] * 6
    table = table_of({**labels, "event_timestamp": ts(labels["event_timestamp"])})
    made = Repo.of(store).train(table, store.get_feature_service("scoring")).to_arrow()
    for name in served[0].column_names:
        assert bits(made[name]) == bits(pa.concat_tables(served)[name]), name
    assert (
        made["busy"].to_pylist().count(True) > 3 and made["times_mean"].null_count == 3 + 3
    )  # card 5, and card 2's amount
