"""Aggregated, row and on-demand views in one service over real HTTP/2, from LMDB and from Redis, as time goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.client import Client
from fastserve.online import open_store
from fastserve.serving.inspect import inspect_row
from fastserve.timeutil import MICROS, format_timestamp
from tests.servers import RedisServer, serving, start_redis
from tests.support import NOW_US, make_repo, put
from tests.unit.serving.test_windows import EVENTS, FEATURES, expected, put_tiles

IDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("windows") / "repo"
    settings = {}
    if request.param == "redis":
        settings["online_store"] = request.getfixturevalue("redis").url
    make_repo(folder, FEATURES, **settings)

    async def fill(store: FeatureStore) -> None:
        online = open_store(store.config.online_store)
        await put_tiles(online, store.snapshot.view("spend"), EVENTS)
        await put(online, store.snapshot.view("profile"), [{"card_id": i, "limit": 10.0} for i in IDS])
        await online.close()

    with FeatureStore(folder) as store:
        store.apply()
        asyncio.run(fill(store))
    return folder


def test_one_answer_of_all_kinds_that_goes_on_with_time(repo: Path) -> None:
    for later in (0, 290) if "redis" in FeatureStore(repo).config.online_store else (290,):
        now = NOW_US + later * MICROS
        with (
            serving(repo, "--clock", format_timestamp(now)) as running,
            Client(f"http://127.0.0.1:{running.port}", http="2") as client,
        ):
            for form in ("json", "arrow", "json"):
                found = client.get_online_features(
                    service="scoring", entities={"card_id": IDS, "amount": [1.0] * 4}, format=form
                )
                right: dict[str, Any] = expected(IDS, now, 1.0)
                assert {name: found.to_dict()[name] for name in right} == right
        sdk = FeatureStore(repo).get_online_features(
            service="scoring", entity_rows={"card_id": IDS, "amount": [1.0] * 4}, now=now
        )
        assert {name: sdk.to_dict()[name] for name in right} == right


def test_a_row_of_tiles_can_be_looked_at(repo: Path) -> None:
    with FeatureStore(repo) as store:
        url, registered = store.config.online_store, store.snapshot.view("spend")
    found = inspect_row(url, registered, {"card_id": [1]}, NOW_US)
    assert (found["values"]["amount_sum_5m"], found["values"]["count_5m"]) == (3.5, 2)
    assert found["event_timestamp"] == format_timestamp(NOW_US - 30 * MICROS)
    assert not inspect_row(url, registered, {"card_id": [4]}, NOW_US)["found"]
