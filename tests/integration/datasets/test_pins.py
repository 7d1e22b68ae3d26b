"""A service pinned to a data set answers its schema, or refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastserve import FeatureService
from fastserve.api.handlers import FeatureReads
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.errors import DefinitionError, SchemaMismatchError
from fastserve.http.message import Request, Response
from fastserve.online import open_store
from fastserve.registry import open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.read_path import ReadPath
from tests.integration.datasets.kit import Shop

REFS = ["activity:clicks", "profile:city"]
V2 = """
activity2 = FeatureView(
    "activity", entities=[user], schema=[Field("clicks", "string"), Field("spend", "float64")], version=2,
    source=FileSource("data/activity", "ts", "created", name="clickstream2"),
)
ranking = """


@pytest.fixture
def pinned(shop: Shop) -> str:
    """`model` is pinned to the data set it was trained on; then a newer version of its view is declared."""
    shop.define("ranking = ", f"model = FeatureService('model', {REFS})\nranking = ")
    made = shop.create("model", service="model")
    with shop.store() as store:
        store.apply([FeatureService("model", REFS, pinned_to=made)])
    return made


def post(shop: Shop, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One request to the server's router on the repo's registry."""
    with shop.store() as store:
        config = store.config
    registry = open_registry(config.registry, config.project)
    try:
        reads = FeatureReads(Catalog(registry), Reader(ReadPath(open_store("memory://pins"), lambda: 0)))
        answer = Router(reads.routes)(
            Request("POST", "/online-features/batch", "", (), json.dumps(body).encode())
        )
        assert isinstance(answer, Response)
        return answer.status, json.loads(bytes(answer.body))
    finally:
        registry.close()


def asked(**more: Any) -> dict[str, Any]:
    return {"feature_service": "model", "entities": {"user_id": [1]}, **more}


def fingerprint(shop: Shop, made: str) -> str:
    with shop.store() as store:
        return store.get_training_dataset(made).schema_fingerprint


def newer_version(shop: Shop) -> None:
    (shop.path / "features.py").write_text((shop.path / "features.py").read_text().replace("ranking = ", V2))
    with shop.store() as store:
        store.apply([o for o in store.load() if o.name != "model"])


def test_an_answer_carries_the_fingerprint_of_the_data_set(shop: Shop, pinned: str) -> None:
    status, body = post(shop, asked())
    assert status == 200 and body["metadata"]["schema_fingerprint"] == fingerprint(shop, pinned)


def test_a_pinned_service_stays_at_the_versions_of_its_data_set(shop: Shop, pinned: str) -> None:
    newer_version(shop)
    status, body = post(shop, asked())
    assert status == 200 and body["metadata"]["schema_fingerprint"] == fingerprint(shop, pinned)
    assert [(v["name"], v["version"]) for v in body["views"]] == [("activity", 1), ("profile", 1)]
    with shop.store() as store:
        again = store.create_training_dataset(shop.path / "labels.parquet", "again",
                                              service="model")  # fmt: skip
        assert again.schema_fingerprint == fingerprint(shop, pinned), "trains on the same versions, too"
        loose = store.get_online_features(REFS, {"user_id": [1]})
        assert loose.batch.plan.reads[0].version == 2, "references are not pinned"


def test_other_names_are_refused_with_the_way_out(shop: Shop, pinned: str) -> None:
    status, body = post(shop, asked(full_feature_names=True))
    assert status == 409 and body["error"]["code"] == "schema_mismatch"
    assert pinned in body["error"]["message"] and "full_feature_names: false" in body["error"]["hint"]
    with shop.store() as store, pytest.raises(SchemaMismatchError):
        store.get_online_features(service="model", entity_rows={"user_id": [1]}, full_feature_names=True)


@pytest.mark.parametrize("features", [[*REFS, "activity:spend"], REFS[::-1], REFS[:1]])
def test_apply_refuses_another_schema_under_a_pin(features: list[str], shop: Shop, pinned: str) -> None:
    changed = FeatureService("model", features, pinned_to=pinned)
    with shop.store() as store:
        for change in (store.plan, store.apply):
            with pytest.raises(DefinitionError, match=r"(?s)is pinned to .* would answer schema"):
                change([changed])
        store.apply([FeatureService("model", features)])  # without the pin it is free


def test_apply_refuses_an_unknown_data_set(shop: Shop) -> None:
    service = FeatureService("model", REFS, pinned_to="model-000000000000")
    with (
        shop.store() as store,
        pytest.raises(DefinitionError, match=r"(?s)not registered.*training-set list"),
    ):
        store.apply([service])


def test_a_pin_must_be_text(shop: Shop) -> None:
    with shop.store() as store, pytest.raises(DefinitionError, match="pinned_to is a int"):
        store.apply([FeatureService("model", REFS, pinned_to=3)])  # type: ignore[arg-type]


def test_a_version_that_is_pinned_cannot_be_retired(shop: Shop, pinned: str) -> None:
    newer_version(shop)
    with shop.store() as store:
        kept = [o for o in store.load() if (o.name, getattr(o, "version", 0)) != ("activity", 1)]
        kept = [o for o in kept if o.name not in ("model", "ranking")]
        with pytest.raises(DefinitionError, match="activity@v1"):
            store.apply([*kept, FeatureService("model", REFS, pinned_to=pinned)], prune=True)


def test_the_plan_shows_a_pin(shop: Shop, pinned: str) -> None:
    with shop.store() as store:
        assert f"pinned to: {pinned} -> none" in str(store.plan([FeatureService("model", REFS)]))


def test_a_server_refuses_what_slipped_past_apply(shop: Shop, pinned: str) -> None:
    """As after a restore of the registry: the service's row says something else than its data set."""
    import sqlite3

    with sqlite3.connect(shop.path / ".fastserve/registry.db") as db:
        changed = db.execute(
            "UPDATE fastserve_objects SET body = replace(body, '\"city\"', '\"vector\"') "
            "WHERE name = 'model' AND to_revision IS NULL"
        )
        assert changed.rowcount == 1
    db.close()
    status, body = post(shop, asked())
    assert status == 409 and body["error"]["code"] == "schema_mismatch"


def test_a_request_may_name_the_schema_it_expects(shop: Shop, pinned: str) -> None:
    print_of = fingerprint(shop, pinned)
    refs = {"features": REFS, "entities": {"user_id": [1]}}
    assert post(shop, asked(expect_fingerprint=print_of))[0] == 200
    assert post(shop, {**refs, "expect_fingerprint": print_of})[0] == 200
    newer_version(shop)
    status, body = post(shop, {**refs, "expect_fingerprint": print_of})
    assert (status, body["error"]["code"], body["error"]["where"]) == (
        409,
        "schema_mismatch",
        "$.expect_fingerprint",
    )
    assert print_of in body["error"]["message"] and "clicks string" in body["error"]["hint"]


@pytest.mark.parametrize("wrong", ["", "xyz", "0" * 15, "0" * 17, "G" * 16, 7, True, [], {}])
def test_what_is_no_fingerprint_is_refused(wrong: Any, shop: Shop) -> None:
    body = {"features": REFS, "entities": {"user_id": [1]}, "expect_fingerprint": wrong}
    status, answer = post(shop, body)
    assert status == 400 and answer["error"]["where"] == "$.expect_fingerprint"
