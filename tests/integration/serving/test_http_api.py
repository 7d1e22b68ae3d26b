"""The data plane behind the real server, asked by a real client: answers, and what bad input gets."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pytest

from fastserve.api.handlers import FeatureReads
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.api.wire import ARROW, MAX_ENTITIES, TENSOR
from fastserve.errors import StoreUnavailableError
from fastserve.http.server import Server
from fastserve.serving.read_path import ReadPath
from tests.support import NOW_US, HandStore, put
from tests.unit.serving.world import World

Ask: TypeAlias = Callable[..., Any]
BATCH = "/online-features/batch"


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    server = Server(Router(FeatureReads(world.catalog, Reader(world.read_path)).routes))
    await server.start("127.0.0.1", 0)
    yield server
    await server.drain(5)


async def ask(
    server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request in a thread; (status, headers, body)."""

    def run() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found

    return await asyncio.to_thread(run)


async def test_batch_by_service_and_by_reference(server: Server) -> None:
    entities = {"user_id": [1], "home_city": ["a|b"], "home_country": ["%"]}
    body = {"feature_service": "mixed", "entities": entities, "full_feature_names": True}
    status, headers, data = await ask(server, "POST", BATCH, body)
    assert (status, headers["content-type"]) == (200, "application/json")
    answer = json.loads(data)
    assert dict(zip(answer["names"], answer["values"], strict=True)) == {
        "kinds__big": [2**53 + 1],
        "kinds__text": ["zażółć"],
        "home__people": [12],
        "global_stats__total": [99],
    }
    assert answer["metadata"]["feature_service"] == "mixed"
    status, _, data = await ask(
        server, "POST", BATCH, {"features": ["devices:battery"], "entities": {"device": ["AHw="]}}
    )
    assert status == 200 and json.loads(data)["values"] == [[0.5]]


async def test_batch_as_arrow(server: Server) -> None:
    body = {"features": ["kinds:big"], "entities": {"user_id": [1, 4]}}
    status, headers, data = await ask(server, "POST", BATCH, body, {"Accept": ARROW})
    assert (status, headers["content-type"]) == (200, ARROW)
    table = pa.ipc.open_stream(data).read_all()
    assert table["big"].to_pylist() == [2**53 + 1, 7]
    assert table["big__status"].to_pylist() == [1, 3]


async def test_batch_as_a_tensor(server: Server, world: World) -> None:
    body = {
        "features": ["kinds:single", "kinds:vector", "kinds:flag"],
        "entities": {"user_id": [1, 2, 3, 4]},
    }
    status, headers, data = await ask(server, "POST", BATCH, body, {"Accept": TENSOR})
    assert (status, headers["content-type"]) == (200, TENSOR)
    assert headers["fastserve-dtype"] == "<f4" and headers["fastserve-shape"] == "4,5"
    assert headers["fastserve-columns"] == "single,vector[0],vector[1],vector[2],flag"
    assert headers["fastserve-views"] == "kinds@v1" and len(headers["fastserve-schema-fingerprint"]) == 16
    matrix = np.frombuffer(data, "<f4", 20).reshape(4, 5)
    assert matrix[0].tolist() == [np.float32(0.1), 1.0, 2.0, float("inf"), 1.0] and not matrix[1:].any()
    assert data[80:84] == bytes([0b11111, 0, 0, 0]), "which values are there"
    assert list(data[84:]) == [1, 1, 4, 3], "PRESENT twice, OUTSIDE_MAX_AGE, NOT_FOUND"


async def test_a_tensor_of_what_is_no_float_is_refused(server: Server) -> None:
    for feature in ("kinds:big", "kinds:text", "kinds:moment", "kinds:names"):
        body = {"features": [feature], "entities": {"user_id": [1]}}
        status, _, data = await ask(server, "POST", BATCH, body, {"Accept": TENSOR})
        error = json.loads(data)["error"]
        assert (status, error["code"], error["where"]) == (400, "bad_request", "accept")
        assert feature.partition(":")[2] in error["message"] and "Arrow" in error["hint"]


async def test_one_entity(server: Server) -> None:
    status, _, data = await ask(server, "GET", "/feature-views/kinds/online-features?entity_id=2")
    answer = json.loads(data)
    assert status == 200
    assert answer["features"]["small"] == 3 and answer["features"]["big"] is None
    assert answer["statuses"]["big"] == "NULL_VALUE"
    assert answer["event_timestamp"] == "2023-11-14T22:13:19Z" and answer["freshness_ms"] == 1000
    path = "/feature-views/places@v1/online-features?country=%25&city=a%7Cb"
    status, _, data = await ask(server, "GET", path)
    assert status == 200 and json.loads(data)["features"]["people"] == 12
    status, _, data = await ask(server, "GET", "/feature-views/kinds/online-features?user_id=4")
    answer = json.loads(data)
    assert answer["event_timestamp"] is None and answer["statuses"]["text"] == "NOT_FOUND"
    status, _, data = await ask(server, "GET", "/feature-views/global_stats/online-features")
    assert json.loads(data)["features"] == {"total": 99}


@pytest.mark.parametrize(("text", "key"), [("%FF%3A%00", b"\xff:\x00"), ("a+b%2B", b"a b+"), ("", b"")])
async def test_one_entity_by_a_bytes_key(server: Server, world: World, text: str, key: bytes) -> None:
    """What is no UTF-8 was once read as U+FFFD, so a row that is there came back NOT_FOUND."""
    await put(world.store, world.catalog.snapshot.view("devices"), [{"device": key, "battery": 0.25}])
    status, _, data = await ask(server, "GET", f"/feature-views/devices/online-features?device={text}")
    answer = json.loads(data)
    assert (status, answer["features"], answer["statuses"]) == (
        200,
        {"battery": 0.25},
        {"battery": "PRESENT"},
    )


async def test_health(server: Server) -> None:
    status, _, data = await ask(server, "GET", "/health")
    assert status == 200 and json.loads(data)["status"] == "ok"
    assert (await ask(server, "HEAD", "/health"))[0] == 200


@pytest.mark.parametrize("at_once", [False, True], ids=["by future", "at once"])
async def test_a_dead_store_is_503_health_and_unavailable_values(world: World, at_once: bool) -> None:
    dead = HandStore(StoreUnavailableError("connection refused"), at_once=at_once)
    path = ReadPath(dead, lambda: NOW_US)  # type: ignore[arg-type]
    server = Server(Router(FeatureReads(world.catalog, Reader(path)).routes))
    await server.start("127.0.0.1", 0)
    try:
        status, _, data = await ask(server, "GET", "/health")
        assert status == 503 and json.loads(data)["online_store"] == "connection refused"
        body = {"features": ["kinds:big"], "entities": {"user_id": [1]}}
        status, _, data = await ask(server, "POST", BATCH, body)
        answer = json.loads(data)
        assert (status, answer["values"], answer["statuses"]) == (200, [[None]], [[5]])
        assert answer["metadata"]["unavailable"] == "connection refused"
        assert answer["views"][0]["event_timestamps"] == [None]
        _, _, data = await ask(server, "POST", BATCH, body, {"Accept": ARROW})
        assert pa.ipc.open_stream(data).schema.metadata[b"fastserve.unavailable"] == b"connection refused"
        _, _, data = await ask(server, "GET", f"{ONE}?user_id=1")
        assert json.loads(data)["metadata"]["unavailable"] == "connection refused"
    finally:
        await server.drain(5)


async def test_a_corrupt_row_is_an_error_and_never_a_value(world: World, server: Server) -> None:
    plan = world.catalog.plan("", ("kinds:big",), False)
    key = plan.reads[0].keys.encode([[1]], 1)[0]
    rows = world.store.get_many([key])
    assert isinstance(rows, list) and rows[0] is not None
    torn = bytearray(rows[0])
    torn[-1] ^= 1
    torn[8:24] = b"\xff" * 16  # newest of all
    await world.store.put_many([key], [bytes(torn)])
    body = {"features": ["kinds:big"], "entities": {"user_id": [1]}}
    status, _, data = await ask(server, "POST", BATCH, body)
    assert status == 500 and json.loads(data)["error"]["code"] == "corrupt_row"


ONE = "/feature-views/kinds/online-features"
PLACE = "/feature-views/places/online-features"
BIG = {"features": ["kinds:big"], "entities": {"user_id": [1]}}
# (name, method, path, body, status, where it must point, what it must say)
BAD = [
    ("empty body", "POST", BATCH, b"", 400, "$", "not valid JSON"),
    ("malformed JSON", "POST", BATCH, b'{"features": [', 400, "$", "not valid JSON"),
    ("not UTF-8", "POST", BATCH, b'{"features": ["\xff"]}', 400, "$", "not valid JSON"),
    (
        "NaN literal",
        "POST",
        BATCH,
        b'{"features": ["kinds:big"], "entities": {"user_id": [NaN]}}',
        400,
        "$",
        "JSON",
    ),
    ("an array", "POST", BATCH, [], 400, "$", "a JSON list"),
    ("a string", "POST", BATCH, "x", 400, "$", "a JSON string"),
    ("null", "POST", BATCH, b"null", 400, "$", "a JSON null"),
    ("nothing named", "POST", BATCH, {"entities": {}}, 400, "$", "neither of feature_service and features"),
    ("both named", "POST", BATCH, {**BIG, "feature_service": "mixed"}, 400, "$", "both of"),
    ("unknown member", "POST", BATCH, {**BIG, "feature": 1}, 400, "$", "unknown member 'feature'"),
    ("service not text", "POST", BATCH, {"feature_service": 3}, 400, "$.feature_service", "is a number"),
    ("service empty", "POST", BATCH, {"feature_service": ""}, 400, "$.feature_service", "not a name"),
    ("features not a list", "POST", BATCH, {"features": "kinds:big"}, 400, "$.features", "not a list"),
    ("no features", "POST", BATCH, {"features": []}, 400, "$.features", "not a list"),
    ("feature not text", "POST", BATCH, {"features": ["kinds:big", 1]}, 400, "$.features[1]", "is a number"),
    (
        "bad reference",
        "POST",
        BATCH,
        {**BIG, "features": ["big"]},
        400,
        "$.features",
        "not a feature reference",
    ),
    (
        "bad version",
        "POST",
        BATCH,
        {**BIG, "features": ["kinds@2:big"]},
        400,
        "$.features",
        "not a feature reference",
    ),
    (
        "feature twice",
        "POST",
        BATCH,
        {**BIG, "features": ["kinds:big"] * 2},
        400,
        "$.features",
        "both be answered",
    ),
    (
        "names collide",
        "POST",
        BATCH,
        {"features": ["kinds:flag", "places:flag"]},
        400,
        "$.features",
        "'flag'",
    ),
    (
        "full names not bool",
        "POST",
        BATCH,
        {**BIG, "full_feature_names": 1},
        400,
        "$.full_feature_names",
        "number",
    ),
    ("unknown service", "POST", BATCH, {"feature_service": "mixd"}, 404, "$.feature_service", "mixed"),
    ("unknown view", "POST", BATCH, {**BIG, "features": ["kind:big"]}, 404, "$.features", "kinds"),
    (
        "unknown version",
        "POST",
        BATCH,
        {**BIG, "features": ["kinds@v9:big"]},
        404,
        "$.features",
        "no version 9",
    ),
    ("unknown feature", "POST", BATCH, {**BIG, "features": ["kinds:bik"]}, 404, "$.features", "'big'"),
    (
        "unknown column",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [1], "x": [1]}},
        404,
        "$.entities",
        "'x'",
    ),
    ("entities missing", "POST", BATCH, {"features": ["kinds:big"]}, 422, "$.entities", "user_id"),
    ("entities a list", "POST", BATCH, {**BIG, "entities": [1]}, 422, "$.entities", "not an object"),
    ("entities null", "POST", BATCH, {**BIG, "entities": None}, 422, "$.entities", "not an object"),
    (
        "column not a list",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": 1}},
        422,
        "$.entities.user_id",
        "not a list",
    ),
    (
        "null key",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [1, None]}},
        422,
        "$.entities.user_id[1]",
        "null",
    ),
    (
        "text for int",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": ["1"]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "float for int",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [1.5]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "bool for int",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [True]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "past int64",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [2**63]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "far past int64",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [10**30]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "object as key",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [{}]}},
        422,
        "$.entities.user_id[0]",
        "int64",
    ),
    (
        "ragged",
        "POST",
        BATCH,
        {"features": ["places:people"], "entities": {"city": ["a", "b"], "country": ["c"]}},
        422,
        "$.entities.country",
        "1 values",
    ),
    (
        "int for text",
        "POST",
        BATCH,
        {"features": ["places:people"], "entities": {"city": [1], "country": ["c"]}},
        422,
        "$.entities.city[0]",
        "string",
    ),
    (
        "half a composite key",
        "POST",
        BATCH,
        {"features": ["places:people"], "entities": {"city": ["a"]}},
        422,
        "$.entities",
        "country",
    ),
    (
        "bytes not base64",
        "POST",
        BATCH,
        {"features": ["devices:battery"], "entities": {"device": ["%%"]}},
        422,
        "$.entities.device[0]",
        "base64",
    ),
    (
        "too many entities",
        "POST",
        BATCH,
        {**BIG, "entities": {"user_id": [1] * (MAX_ENTITIES + 1)}},
        413,
        "$.entities.user_id",
        "limit",
    ),
    ("huge body", "POST", BATCH, b"x" * (9 << 20), 413, None, "body"),
    ("wrong method", "GET", BATCH, None, 405, "", "use POST"),
    ("wrong method", "DELETE", "/health", None, 405, "", "use GET"),
    ("unknown path", "GET", "/features", None, 404, "", "no such path"),
    ("root", "GET", "/", None, 404, "", "no such path"),
    ("view without name", "GET", "/feature-views//online-features", None, 404, "path", "feature view"),
    (
        "unknown view by path",
        "GET",
        "/feature-views/kind/online-features?entity_id=1",
        None,
        404,
        "path",
        "kinds",
    ),
    ("bad version by path", "GET", "/feature-views/kinds@vx/online-features", None, 400, "path", "view@v2"),
    ("no entity by path", "GET", "/feature-views/kinds/online-features", None, 422, "?user_id", "missing"),
    (
        "entity twice",
        "GET",
        "/feature-views/kinds/online-features?user_id=1&user_id=2",
        None,
        422,
        "?user_id",
        "twice",
    ),
    (
        "entity no int",
        "GET",
        "/feature-views/kinds/online-features?entity_id=x",
        None,
        422,
        "?user_id",
        "integer",
    ),
    (
        "entity past int64",
        "GET",
        f"/feature-views/kinds/online-features?entity_id={2**70}",
        None,
        422,
        None,
        "int64",
    ),
    (
        "entity unknown",
        "GET",
        "/feature-views/kinds/online-features?entity_id=1&x=1",
        None,
        404,
        "?x",
        "'x'",
    ),
    *(
        (f"entity no plain int: {text}", "GET", f"{ONE}?entity_id={text}", None, 422, "?user_id", "integer")
        for text in ("1_0", "+1", "%201", "%D9%A1", "1.0", "9" * 19, "9" * 5000)
    ),
    ("key not UTF-8", "GET", f"{PLACE}?city=%FF&country=x", None, 422, "?city", "UTF-8"),
    ("version in other digits", "GET", ONE.replace("kinds", "kinds@v%D9%A1"), None, 400, "path", "view@v2"),
    ("version without number", "GET", ONE.replace("kinds", "kinds@v"), None, 400, "path", "view@v2"),
    (
        "an entity of no view",
        "POST",
        BATCH,
        {"features": ["global_stats:total"], "entities": {"user_id": [1]}},
        404,
        "$.entities",
        "leave it out",
    ),
]


@pytest.mark.parametrize("case", BAD, ids=[f"{i}: {case[0]}" for i, case in enumerate(BAD)])
async def test_bad_input_gets_its_4xx(server: Server, case: tuple[Any, ...]) -> None:
    _, method, path, body, status, where, says = case
    got, headers, data = await ask(server, method, path, body)
    assert got == status, data
    assert headers["content-type"] == "application/json"
    error = json.loads(data)["error"]
    assert set(error) == {"code", "message", "where", "hint"}
    assert says in error["message"] + error["hint"], error
    if where is not None:
        assert error["where"] == where
    assert (await ask(server, "POST", BATCH, BIG))[0] == 200, "the server goes on"


async def test_nothing_acceptable_is_406(server: Server) -> None:
    status, _, data = await ask(server, "POST", BATCH, BIG, {"Accept": "text/html"})
    assert status == 406 and ARROW in json.loads(data)["error"]["hint"]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", "", "9" * 10])
async def test_a_deadline_that_is_none_gets_400(server: Server, text: str) -> None:
    headers = {"fastserve-deadline-ms": text}
    body = {"features": ["kinds:big"], "entities": {"user_id": [1]}}
    for method, path, sent in [
        ("POST", BATCH, body),
        ("GET", "/feature-views/kinds/online-features?entity_id=1", None),
    ]:
        status, _, data = await ask(server, method, path, sent, headers)
        error = json.loads(data)["error"]
        assert (status, error["code"]) == (400, "bad_request")
        assert error["where"] == "header fastserve-deadline-ms" and error["hint"]
    status, _, data = await ask(server, "POST", BATCH, body, {"fastserve-deadline-ms": "250"})
    assert status == 200 and json.loads(data)["dtypes"] == ["int64"]
