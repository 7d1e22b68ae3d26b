"""On-demand views on the read path: values, statuses, chains, what fails, and what it costs the others: nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fastserve.api.metrics import render
from fastserve.codec.status import Status
from fastserve.definitions.load import load_definitions
from fastserve.errors import InvalidEntityError, RequestError, StoreUnavailableError, UnknownObjectError
from fastserve.online import OnlineStore, open_store
from fastserve.registry import Registry, open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.read_path import FeatureBatch, ReadPath, decode_columns
from fastserve.timeutil import MICROS
from tests.support import NOW_US, HandStore, make_repo, put

FEATURES = '''
import time
import numpy as np
import pyarrow.compute as pc
from fastserve import Array, Entity, FeatureService, FeatureView, Field, RequestSource, on_demand_feature_view
from fastserve.on_demand import hours_since, ratio

card = Entity("card", "card_id", "int64")
shop = Entity("shop", "shop_id")
stats = FeatureView("stats", entities=[card], ttl="1h", schema=[
    Field("mean", "float64"), Field("seen", "timestamp"), Field("home", "string", default="?"),
    Field("vector", Array("float32", 2))])
shops = FeatureView("shops", entities=[shop], schema=[Field("country", "string"), Field("mean", "float64")])
trip = RequestSource("trip", [Field("amount", "float64"), Field("vector", Array("float32", 2))])

@on_demand_feature_view(sources=[stats[["mean", "seen"]], trip],
                        schema=[Field("share", "float64"), Field("hours", "float64")])
def spent(inputs, at):
    return {"share": ratio(inputs["amount"], inputs["mean"]), "hours": hours_since(inputs["seen"], at)}

@on_demand_feature_view(sources=[stats[["home"]], shops[["country"]]],
                        schema=[Field("abroad", "bool"), Field("both", "string")])
def place(inputs):
    return {"abroad": pc.not_equal(inputs["home"], inputs["country"]),
            "both": pc.binary_join_element_wise(inputs["home"], inputs["country"], "-")}

@on_demand_feature_view(sources=[spent[["share"]], place[["abroad"]]], schema=[Field("risk", "float32")])
def risk(inputs, valid):
    return {"risk": np.where(valid["share"], inputs["share"], -1.0) + inputs["abroad"]}

@on_demand_feature_view(sources=[stats[["vector"]].with_name("card"), trip], schema=[Field("dot", "float64")])
def near(inputs):
    return {"dot": np.einsum("ij,ij->i", inputs["card__vector"], inputs["vector"])}

@on_demand_feature_view(sources=[RequestSource("asked", [Field("x", "int32")])], schema=[Field("y", "int32")])
def fails(inputs):
    return {"y": inputs["x"] // (inputs["x"] > 0).all().astype(np.int32) if inputs["x"].all() else inputs["z"]}

@on_demand_feature_view(sources=[fails], schema=[Field("z", "int32")])
def after(inputs):
    return {"z": inputs["y"] + np.int32(1)}

@on_demand_feature_view(sources=[stats[["mean"]]], schema=[Field("slow", "float64")], budget="100us")
def sleepy(inputs):
    time.sleep(0.001)
    return {"slow": inputs["mean"]}

scoring = FeatureService("scoring", [stats[["mean"]], spent, shops[["country"]], place, risk[["risk"]]])
twice = FeatureService("twice", [
    spent[["share"]].with_name("one"),
    spent[["share"]].with_name("two").with_join_key_map({"card_id": "other", "amount": "sum", "vector": "v"})])
'''  # fmt: skip
V = [1.0, 2.0]


@dataclass
class Shop:
    """What the tests ask."""

    registry: Registry
    catalog: Catalog
    store: OnlineStore
    repo: Path
    url: str

    def read(self, entities: dict[str, Any], *features: str, service: str = "", store: Any = None) -> Any:
        plan = self.catalog.plan(service, features, bool(service == "twice"))
        path = ReadPath(store or self.store, lambda: NOW_US)
        return path.read(plan, entities, decode_columns)

    def answer(self, entities: dict[str, Any], *features: str, **options: Any) -> dict[str, list[Any]]:
        """Feature -> values, and a status in place of a value that is not PRESENT."""
        return shown(self.read(entities, *features, **options))


def shown(batch: FeatureBatch) -> dict[str, list[Any]]:
    found = {}
    for c in batch.plan.columns:
        values = batch.reads[c.read].columns[c.column].to_pylist()
        statuses = batch.reads[c.read].statuses[c.column]
        found[c.name] = [v if s == 1 else Status(int(s)).name for v, s in zip(values, statuses, strict=True)]
    return found


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    repo = make_repo(tmp_path / "repo", FEATURES)
    url = f"sqlite:///{tmp_path}/registry.db"
    registry = open_registry(url, "tests")
    snapshot = registry.apply(load_definitions(repo)).snapshot
    store = open_store(f"memory://{tmp_path}")
    card = {"mean": 10.0, "seen": NOW_US - 1_800 * MICROS, "home": "DE", "vector": [3.0, 4.0]}
    await put(store, snapshot.view("stats"), [{"card_id": 1, **card}, {"card_id": 2, "home": "PL"}])
    await put(store, snapshot.view("stats"), [{"card_id": 3, **card}], event_us=NOW_US - 3_600 * MICROS)
    await put(store, snapshot.view("shops"), [{"shop_id": "a", "country": "PL", "mean": 1.0}])
    catalog = Catalog(registry, repo)
    yield Shop(registry, catalog, store, repo, url)
    await catalog.close()
    await store.close()


async def test_stored_and_computed_features_in_one_answer(shop):
    entities = {"card_id": [1, 2, 3, 4], "shop_id": ["a", "a", "b", "a"], "amount": [25, 5.0, 5, None]}
    batch = shop.read({**entities, "vector": [V] * 4}, service="scoring")
    assert shown(batch) == {
        "mean": [10.0, "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
        "share": [2.5, "NULL_VALUE", "NULL_VALUE", "NULL_VALUE"],
        "hours": [0.5, "NULL_VALUE", "NULL_VALUE", "NULL_VALUE"],
        "country": ["PL", "PL", "NOT_FOUND", "PL"],
        "abroad": [True, False, "NULL_VALUE", True],  # the default of home is an input like any value
        "both": ["DE-PL", "PL-PL", "NULL_VALUE", "?-PL"],
        "risk": [3.5, -1.0, "NULL_VALUE", 0.0],
    }
    computed = batch.plan.reads[1]
    assert (computed.view, computed.computed) == ("spent", True)
    assert batch.reads[1].event_ts.tolist() == [NOW_US] * 4 and batch.unavailable == ""


async def test_each_row_of_the_store_is_asked_for_once(shop):
    plan = shop.catalog.plan("scoring", (), False)
    assert [(read.view, read.key_columns) for read in plan.reads] == [
        ("stats", ("card_id",)),
        ("shops", ("shop_id",)),
    ]
    assert (dict(plan.entity_columns), dict(plan.request_columns)) == (
        {"card_id": "int64", "shop_id": "string"},
        {"amount": "float64", "vector": "list<float32>[2]"},
    )
    assert shop.catalog.plan("", ("stats:mean",), False).derivation is None


async def test_a_view_is_used_twice_on_other_columns(shop):
    entities = {"card_id": [1], "other": [2], "amount": [5.0], "sum": [1.0], "vector": [V], "v": [V]}
    assert shop.answer(entities, service="twice") == {"one__share": [0.5], "two__share": ["NULL_VALUE"]}
    entities["other"] = [1]
    assert shop.answer(entities, service="twice") == {"one__share": [0.5], "two__share": [0.1]}


async def test_lists_and_features_of_the_request_alone(shop):
    assert shop.answer({"card_id": [1], "amount": [0.0], "vector": [V]}, "near:dot") == {"dot": [11.0]}
    assert shop.answer({"x": [1, 2]}, "fails:y", "after:z") == {"y": [1, 2], "z": [2, 3]}
    assert shop.answer({"x": []}, "fails:y") == {"y": []}


@pytest.mark.parametrize(
    ("column", "where", "said"),
    [
        (["a"], "$.entities.amount[0]", "'a' does not fit float64"),
        ([[1.0]], "$.entities.amount[0]", "the declared type is float64"),
        ([1.0, "b"], "$.entities.amount[1]", "the values have no one type"),
        ([True], "$.entities.amount[0]", "the column is bool"),
        ([2**53 + 1], "$.entities.amount[0]", "does not fit float64 exactly"),
    ],
)
async def test_what_is_no_value_of_a_request_column_is_named(shop, column, where, said):
    n = len(column)
    entities = {"card_id": [1] * n, "amount": column, "vector": [V] * n}
    with pytest.raises(InvalidEntityError) as caught:
        shop.read(entities, "spent:share")
    assert caught.value.where == where and said in caught.value.message


async def test_columns_that_are_missing_unknown_or_ragged(shop):
    with pytest.raises(InvalidEntityError, match="request column 'amount' is missing"):
        shop.read({"card_id": [1], "vector": [V]}, "spent:share")
    with pytest.raises(UnknownObjectError, match="unknown entity column 'amont'"):
        shop.read({"card_id": [1], "vector": [V], "amount": [1], "amont": [1]}, "spent:share")
    with pytest.raises(InvalidEntityError, match="has 2 values"):
        shop.read({"card_id": [1], "vector": [V], "amount": [1, 2]}, "spent:share")
    with pytest.raises(RequestError, match="would both be answered as 'vector'"):
        shop.catalog.plan("", ("stats:vector", "near:dot"), False)


async def test_request_columns_as_they_come(shop):
    entities: dict[str, Any] = {"card_id": [1, 1, 1], "vector": [V] * 3}
    named = shop.read({**entities, "amount": ["NaN", 5, "-Infinity"]}, "spent:share")
    assert [str(v) for v in shown(named)["share"]] == ["nan", "0.5", "-inf"]
    for amount in (pa.array([1.0, None, 2.0]), pa.array([10, None, 20], pa.int32()).cast(pa.float32())):
        made = shop.answer({**entities, "amount": amount}, "spent:share")["share"]
        assert made[1] == "NULL_VALUE" and None not in made
    nothing = {**entities, "amount": [None] * 3}
    assert shop.answer(nothing, "spent:share")["share"] == ["NULL_VALUE"] * 3


async def test_a_failure_is_unavailable_and_told_once(shop, caplog):
    for _ in range(3):
        batch = shop.read({"x": [0, 1]}, "fails:y", "after:z")
        assert shown(batch) == {"y": ["UNAVAILABLE"] * 2, "z": ["UNAVAILABLE"] * 2}
        assert batch.unavailable == "on-demand view 'fails' failed: KeyError: 'z'"
    told = [record for record in caplog.records if "answering UNAVAILABLE" in record.message]
    assert len(told) == 1 and "features.py:" in told[0].message
    figures = shop.catalog.computing.figures()
    assert figures['failed{view="fails@v1"}'] == 3 and figures['calls{view="after@v1"}'] == 0
    text = render({0: {f"on_demand_{name}": value for name, value in figures.items()}}).decode()
    assert 'fastserve_on_demand_failed_total{worker="0",view="fails@v1"} 3\n' in text
    assert text.count("# TYPE fastserve_on_demand_failed_total counter\n") == 1


async def test_what_depends_on_unknown_rows_is_unavailable(shop):
    hand = HandStore()
    entities = {"card_id": [1, 2], "shop_id": ["a", "a"], "amount": [1.0, 2.0], "vector": [V, V]}
    waiting = shop.read(entities, "place:abroad", "spent:share", "near:dot", store=hand)
    assert isinstance(waiting, asyncio.Future)
    hand.asked[0][1](StoreUnavailableError("gone"))
    batch = await waiting
    assert shown(batch) == {name: ["UNAVAILABLE"] * 2 for name in ("abroad", "share", "dot")}
    assert batch.unavailable == "gone"


async def test_a_slow_call_is_counted_and_told(shop, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert shop.answer({"card_id": [1]}, "sleepy:slow") == {"slow": [10.0]}
    figures = shop.catalog.computing.figures()
    assert figures['slow{view="sleepy@v1"}'] == 2 and figures['seconds{view="sleepy@v1"}'] > 0.002
    assert len([record for record in caplog.records if "its budget is 0.1 ms" in record.message]) == 1


async def test_another_function_than_the_applied_is_never_called(shop, caplog):
    changed = FEATURES.replace('inputs["home"], inputs["country"]),', 'inputs["country"], inputs["home"]),')
    assert changed != FEATURES
    (shop.repo / "features.py").write_text(changed)
    registry = open_registry(shop.url, "tests")
    catalog = Catalog(registry, shop.repo)
    other = Shop(registry, catalog, shop.store, shop.repo, shop.url)
    entities = {"card_id": [1], "shop_id": ["a"], "amount": [5.0], "vector": [V]}
    batch = other.read(entities, "place:abroad", "stats:home", "spent:share", "risk:risk")
    assert shown(batch) == {
        "abroad": ["UNAVAILABLE"],
        "home": ["DE"],
        "share": [0.5],
        "risk": ["UNAVAILABLE"],
    }
    assert "the repo's features:place is not the function that was applied" in batch.unavailable
    assert list(catalog.computing.problems(catalog.snapshot)) == ["place@v1"]
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        f"answering UNAVAILABLE: {batch.unavailable}"
    ]
    registry.apply(load_definitions(shop.repo))
    catalog.refresh()
    assert other.answer(entities, "place:abroad", "risk:risk") == {"abroad": [True], "risk": [1.5]}
    await catalog.close()
    without = Catalog(open_registry(shop.url, "tests"))
    del entities["shop_id"]
    batch = Shop(registry, without, shop.store, shop.repo, shop.url).read(entities, "spent:share")
    assert batch.unavailable == "on-demand view 'spent': this process has no repo"
    await without.close()
