"""On-demand views over HTTP: every form of an answer, hits and misses before a real Redis, and what goes wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve import FeatureStore
from fastserve.client import Client
from fastserve.online import open_store
from fastserve.timeutil import MICROS, format_timestamp
from tests.servers import RedisServer, Serving, serving, start_redis
from tests.support import NOW_US, make_repo, put

FEATURES = '''
import pyarrow.compute as pc
from fastserve import Entity, FeatureService, FeatureView, Field, RequestSource, on_demand_feature_view
from fastserve.on_demand import hours_since, ratio

card = Entity("card", "card_id", "int64")
stats = FeatureView("stats", entities=[card], schema=[Field("mean", "float64"), Field("seen", "timestamp")])
trip = RequestSource("trip", [Field("amount", "float64"), Field("note", "string")])

@on_demand_feature_view(sources=[stats, trip], schema=[Field("share", "float64"), Field("note_size", "int64")])
def spent(inputs):
    return {"share": ratio(inputs["amount"], inputs["mean"]), "note_size": pc.utf8_length(inputs["note"])}

@on_demand_feature_view(sources=[stats], schema=[Field("hours", "float64"), Field("high", "bool")])
def aged(inputs, at):
    if (inputs["mean"] < 0).any():
        raise ValueError("a mean below zero")
    return {"hours": hours_since(inputs["seen"], at), "high": inputs["mean"] > 15}

@on_demand_feature_view(sources=[RequestSource("alone", [Field("x", "int64")])], schema=[Field("y", "int64")])
def alone(inputs):
    return {"y": inputs["x"] * 2}

scoring = FeatureService("scoring", [stats[["mean"]], spent[["share"]], aged])
ageing = FeatureService("ageing", [aged, stats[["mean"]]])
'''  # fmt: skip
BATCH = "/online-features/batch"
CALLS = 'fastserve_on_demand_calls_total{worker="0",view="aged'
ASKED = {"card_id": [1, 2, 3], "amount": [5.0, 5.0, None], "note": ["a", "", "b"]}
RIGHT = {
    "mean": [10.0, 20.0, None],
    "share": [0.5, 0.25, None],
    "hours": [1.0, 2.0, None],
    "high": [False, True, None],
}
STATUSES = {"mean": [1, 1, 3], "share": [1, 1, 2], "hours": [1, 1, 2], "high": [1, 1, 2]}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Path:
    folder = make_repo(tmp_path_factory.mktemp("on_demand") / "repo", FEATURES, online_store=redis.url)
    with FeatureStore(folder) as store:
        store.apply()
        asyncio.run(fill(store))
    return folder


async def fill(store: FeatureStore) -> None:
    online = open_store(store.config.online_store)
    await put(
        online,
        store.snapshot.view("stats"),
        [{"card_id": i, "mean": 10.0 * i, "seen": NOW_US - i * 3_600 * MICROS} for i in (1, 2)]
        + [{"card_id": 9, "mean": -1.0, "seen": NOW_US}],
    )
    await online.close()


@pytest.fixture(scope="module")
def server(repo: Path) -> Iterator[Serving]:
    with serving(repo, "--clock", format_timestamp(NOW_US)) as running:
        yield running


def ask(server: Serving, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def columns(body: bytes) -> dict[str, list[Any]]:
    answer = json.loads(body)
    return dict(zip(answer["names"], answer["values"], strict=True))


def metric(server: Serving, name: str) -> float:
    lines = ask(server, "GET", "/metrics")[2].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_json(server):
    for _ in range(3):
        status, _, body = ask(server, "POST", BATCH, {"feature_service": "scoring", "entities": ASKED})
        answer = json.loads(body)
        assert status == 200 and columns(body) == RIGHT
        assert dict(zip(answer["names"], answer["statuses"], strict=True)) == STATUSES
        views = {view["name"]: view["event_timestamps"] for view in answer["views"]}
        assert views["spent"] == [format_timestamp(NOW_US)] * 3 and views["stats"][2] is None


def test_arrow_and_tensor(server):
    body = {"feature_service": "scoring", "entities": ASKED}
    status, _, data = ask(server, "POST", BATCH, body, Accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(data).read_all()
    assert status == 200 and {name: table[name].to_pylist() for name in RIGHT} == RIGHT
    assert {name: table[f"{name}__status"].to_pylist() for name in RIGHT} == STATUSES
    body["features"] = ["stats:mean", "spent:share", "aged:hours"]
    del body["feature_service"]
    status, headers, data = ask(server, "POST", BATCH, body, Accept="application/vnd.fastserve.tensor")
    assert status == 200 and headers["fastserve-shape"] == "3,3"
    matrix = np.frombuffer(data[:72], "<f8").reshape(3, 3)
    assert matrix[:2].tolist() == [[10.0, 0.5, 1.0], [20.0, 0.25, 2.0]] and data[72:75] == bytes([7, 7, 0])


def test_feast(server):
    names = ["stats:mean", "spent:share"]
    status, _, body = ask(server, "POST", "/get-online-features", {"features": names, "entities": ASKED})
    answer = json.loads(body)
    assert status == 200 and answer["metadata"]["feature_names"] == [
        "card_id",
        "amount",
        "note",
        "mean",
        "share",
    ]
    assert [result["values"] for result in answer["results"][1:]] == [
        ASKED["amount"], ASKED["note"], RIGHT["mean"], RIGHT["share"]
    ]  # fmt: skip
    share = answer["results"][4]
    assert share["statuses"] == ["PRESENT", "PRESENT", "NULL_VALUE"]
    assert share["event_timestamps"] == ["1970-01-01T00:00:00Z"] * 3
    for compat in ("/get-online-features?compat=feast",):
        status, _, body = ask(server, "POST", compat, {"features": names, "entities": ASKED})
        assert json.loads(body)["results"][4]["values"] == RIGHT["share"]
    status, _, body = ask(
        server, "POST", "/get-online-features", {"features": names, "entities": {"card_id": [1]}}
    )
    assert status == 422 and "amount" in body.decode()


def test_one_entity_and_the_client(server):
    status, _, body = ask(server, "GET", "/feature-views/spent/online-features?card_id=2&amount=5&note=abc")
    answer = json.loads(body)
    assert status == 200 and answer["features"] == {"share": 0.25, "note_size": 3}
    assert (answer["feature_view"], answer["event_timestamp"]) == ("spent", format_timestamp(NOW_US))
    status, _, body = ask(server, "GET", "/feature-views/spent/online-features?card_id=2&note=abc")
    assert status == 422 and "request column 'amount' is missing" in body.decode()
    with Client(f"http://127.0.0.1:{server.port}") as client:
        found = client.get_online_features(service="scoring", entities=ASKED)
        assert {name: found.to_dict()[name] for name in RIGHT} == RIGHT


def test_features_of_the_request_alone_ask_no_store(server):
    reads = metric(server, "fastserve_store_reads")
    status, _, body = ask(server, "POST", BATCH, {"features": ["alone:y"], "entities": {"x": [1, None, 3]}})
    assert (status, columns(body)) == (200, {"y": [2, None, 6]})
    status, _, body = ask(server, "GET", "/feature-views/alone/online-features?x=21")
    assert (status, json.loads(body)["features"]) == (200, {"y": 42})
    assert metric(server, "fastserve_store_reads") == reads
    status, _, body = ask(server, "POST", BATCH, {"features": ["alone:y"], "entities": {}})
    assert status == 422 and b"request column 'x' is missing" in body


def test_hits_are_answered_from_the_cache_and_computed_each_time(server):
    body = {"feature_service": "ageing", "entities": {"card_id": [1, 2]}}
    answers = [ask(server, "POST", BATCH, body) for _ in range(4)]
    reads, calls = (
        metric(server, "fastserve_store_reads"),
        metric(server, CALLS),
    )
    for _ in range(5):
        answers.append(ask(server, "POST", BATCH, body))
    assert {answer[2] for answer in answers} == {answers[0][2]}
    assert columns(answers[0][2]) == {"hours": [1.0, 2.0], "high": [False, True], "mean": [10.0, 20.0]}
    assert metric(server, "fastserve_store_reads") == reads
    assert metric(server, CALLS) == calls + 5


def test_a_failing_function_is_unavailable_on_every_path(server):
    body = {"feature_service": "ageing", "entities": {"card_id": [1, 9]}}
    for _ in range(4):
        status, _, data = ask(server, "POST", BATCH, body)
        answer = json.loads(data)
        assert status == 200 and columns(data) == {
            "hours": [None] * 2,
            "high": [None] * 2,
            "mean": [10.0, -1.0],
        }
        assert answer["statuses"] == [[5, 5], [5, 5], [1, 1]]
        assert (
            answer["metadata"]["unavailable"] == "on-demand view 'aged' failed: ValueError: a mean below zero"
        )
    assert metric(server, "fastserve_on_demand_failed_total") >= 4
    status, _, data = ask(server, "POST", "/get-online-features", {**body})
    assert status == 503 and b"a mean below zero" in data


@pytest.mark.parametrize(
    ("column", "where", "said"),
    [
        ({"amount": ["x", 1, 2]}, "$.entities.amount[1]", "no one type"),
        ({"amount": [1, 2]}, "$.entities.amount", "has 2 values"),
        ({"note": [1, 2, 3]}, "$.entities.note[0]", "the declared type is string"),
        ({"nothing": [1, 2, 3]}, "$.entities", "unknown entity column 'nothing'"),
    ],
)  # fmt: skip
def test_bad_request_columns(server, column, where, said):
    body = {"feature_service": "scoring", "entities": {**ASKED, **column}}
    status, _, data = ask(server, "POST", BATCH, body)
    error = json.loads(data)["error"]
    assert status in (404, 422) and said in error["message"] and error["where"] == where


def test_a_server_with_another_function_answers_unavailable_until_it_is_applied(repo, tmp_path):
    config = FeatureStore(repo).config
    settings = {"online_store": config.online_store, "registry": config.registry}
    other = make_repo(tmp_path / "other", FEATURES.replace("> 15", "> 5"), **settings)
    body = {"feature_service": "ageing", "entities": {"card_id": [1]}}
    with serving(other, "--clock", format_timestamp(NOW_US)) as running:
        status, _, data = ask(running, "POST", BATCH, body)
        assert status == 200 and columns(data) == {"hours": [None], "high": [None], "mean": [10.0]}
        assert (
            "features:aged is not the function that was applied"
            in json.loads(data)["metadata"]["unavailable"]
        )
        health = json.loads(ask(running, "GET", "/health")[2])
        assert list(health["on_demand"]) == ["aged@v1"]


def test_a_running_server_takes_a_new_function_once_it_is_applied(tmp_path):
    repo = make_repo(tmp_path / "repo", FEATURES)
    with FeatureStore(repo) as store:
        store.apply()
        asyncio.run(fill(store))
    body = {"feature_service": "ageing", "entities": {"card_id": [1]}}
    with serving(repo, "--clock", format_timestamp(NOW_US)) as running:
        assert columns(ask(running, "POST", BATCH, body)[2])["high"] == [False]
        (repo / "features.py").write_text(FEATURES.replace("> 15", "> 5"))
        assert columns(ask(running, "POST", BATCH, body)[2])["high"] == [False]
        with FeatureStore(repo) as store:
            revision = store.apply().snapshot.revision
        answer: dict[str, Any] = {"metadata": {"revision": 0}}
        deadline = time.monotonic() + 20
        while answer["metadata"]["revision"] < revision and time.monotonic() < deadline:
            data = ask(running, "POST", BATCH, body)[2]
            answer = json.loads(data)
        assert columns(data)["high"] == [True]
