"""Feast's get-online-features: the exact shape, statuses, and what bad requests get."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.api.feast import FeastReads, feast_column
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.api.wire import MAX_ENTITIES
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.errors import StoreUnavailableError
from fastserve.http.message import Request, Response
from fastserve.serving.read_path import ReadPath
from fastserve.timeutil import MICROS
from fastserve.types import Array, arrow_type
from tests.support import NOW_US, HandStore, put
from tests.unit.serving.world import KINDS, World

PATH = "/get-online-features"
EPOCH = "1970-01-01T00:00:00Z"
EVENT = "2023-11-14T22:13:19Z"


def ask(world: World, body: Any, query: str = "", *, compat: bool = False) -> Response:
    router = Router(FeastReads(world.catalog, Reader(world.read_path), compat=compat).routes)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = router(Request("POST", PATH, query, [], data))
    assert isinstance(answer, Response)
    return answer


def answer(world: World, body: Any, query: str = "", *, compat: bool = False) -> dict[str, Any]:
    response = ask(world, body, query, compat=compat)
    assert response.status == 200, bytes(response.body)
    found: dict[str, Any] = json.loads(bytes(response.body))
    return found


def column(found: dict[str, Any], name: str) -> list[tuple[Any, str, str]]:
    result = found["results"][found["metadata"]["feature_names"].index(name)]
    return list(zip(result["values"], result["statuses"], result["event_timestamps"], strict=True))


def failure(world: World, body: Any, query: str = "") -> tuple[int, dict[str, str]]:
    response = ask(world, body, query)
    text = json.loads(bytes(response.body))
    assert isinstance(text, str), "Feast's errors are a JSON string that holds JSON"
    detail: dict[str, str] = json.loads(text)
    assert set(detail) == {"module", "class", "message"} and "Traceback" not in text
    return response.status, detail


def test_the_shape_to_the_byte(world: World) -> None:
    body = {"features": ["kinds:small", "kinds:big"], "entities": {"user_id": [1, 99]}}
    assert bytes(ask(world, body).body) == (
        b'{"results":[{"values":[1,99],"statuses":["PRESENT","PRESENT"],'
        b'"event_timestamps":["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]},'
        b'{"values":[-5,null],"statuses":["PRESENT","NOT_FOUND"],'
        b'"event_timestamps":["2023-11-14T22:13:19Z","1970-01-01T00:00:00Z"]},'
        b'{"values":[9007199254740993,7],"statuses":["PRESENT","NOT_FOUND"],'
        b'"event_timestamps":["2023-11-14T22:13:19Z","1970-01-01T00:00:00Z"]}],'
        b'"metadata":{"feature_names":["user_id","small","big"]}}'
    )


def test_every_type_in_feasts_form(world: World) -> None:
    refs = [f"kinds:{name}" for name in KINDS.feature_names]
    found = answer(world, {"features": refs, "entities": {"user_id": [1, 4]}})
    values = {name: [v for v, _, _ in column(found, name)] for name in KINDS.feature_names}
    assert values == {
        "flag": [True, None],
        "small": [-5, None],
        "big": [2**53 + 1, 7],
        "single": [0.10000000149011612, None],
        "double": [None, None],
        "moment": [NOW_US // MICROS, None],
        "text": ["zażółć", "none"],
        "blob": ["AP8=", None],
        "vector": [[1.0, 2.0, "Infinity"], None],
        "names": [["a", ""], None],
    }
    assert column(found, "double")[0][1] == "PRESENT", "NaN is a value, told as null"
    assert found["metadata"]["feature_names"] == ["user_id", *KINDS.feature_names]


async def test_floats_and_times_at_their_edges(world: World) -> None:
    snapshot = world.catalog.snapshot
    rows = [
        {"user_id": 10 + i, "double": value}
        for i, value in enumerate((float("inf"), float("-inf"), -0.0, None))
    ]
    events = [NOW_US - 1_000, NOW_US - 1, NOW_US - MICROS, NOW_US]
    await put(world.store, snapshot.view("kinds"), rows, event_us=events)
    found = answer(world, {"features": ["kinds:double"], "entities": {"user_id": [10, 11, 12, 13, 14]}})
    assert column(found, "double") == [
        ("Infinity", "PRESENT", "2023-11-14T22:13:19.999Z"),
        ("-Infinity", "PRESENT", "2023-11-14T22:13:19.999999Z"),
        (0.0, "PRESENT", EVENT),
        (None, "NULL_VALUE", "2023-11-14T22:13:20Z"),
        (None, "NOT_FOUND", EPOCH),
    ]


async def test_times_beyond_any_year_are_told(world: World) -> None:
    rows = [{"user_id": 10, "moment": 2**62}, {"user_id": 11, "moment": -(2**62)}]
    await put(world.store, world.catalog.snapshot.view("kinds"), rows, event_us=[-(2**62), NOW_US])
    found = answer(world, {"features": ["kinds:moment"], "entities": {"user_id": [10, 11]}})
    assert column(found, "moment") == [
        (None, "OUTSIDE_MAX_AGE", "-144169-06-28T09:59:32.612096Z"),
        (-(2**62) // MICROS, "PRESENT", "2023-11-14T22:13:20Z"),
    ]


def test_lists_of_times_are_seconds() -> None:
    values = [[-1, 2**62], None, []]
    layout = Layout(1, ("t",), (Array("timestamp"),))
    keys, stamps = [b"a", b"b", b"c"], np.zeros(3, np.int64)
    rows = RowEncoder(layout).encode(keys, [pa.array(values, arrow_type(Array("timestamp")))], stamps, stamps)
    decoded = RowDecoder({1: layout}, ("t",), {}).decode(keys, list(rows), now_us=0, ttl_us=None)
    assert feast_column(decoded.columns[0], "list<timestamp>") == [[-1, 2**62 // MICROS], None, []]


def test_statuses_are_honest_and_compat_is_feasts(world: World) -> None:
    body = {"features": ["kinds:big"], "entities": {"user_id": [1, 2, 3, 4]}}
    expired = "2023-11-14T21:13:20Z"
    assert column(answer(world, body), "big") == [
        (2**53 + 1, "PRESENT", EVENT),
        (None, "NULL_VALUE", EVENT),
        (7, "OUTSIDE_MAX_AGE", expired),
        (7, "NOT_FOUND", EPOCH),
    ]
    for found in (answer(world, body, "compat=feast"), answer(world, body, compat=True)):
        assert column(found, "big") == [
            (2**53 + 1, "PRESENT", EVENT),
            (None, "PRESENT", EVENT),
            (9, "PRESENT", expired),
            (7, "NOT_FOUND", EPOCH),
        ]


def test_a_service_full_names_and_aliases(world: World) -> None:
    entities = {"home_city": ["a|b"], "user_id": [1], "home_country": ["%"]}
    body = {"feature_service": "mixed", "features": ["kinds:flag"], "entities": entities, "more": 1}
    found = answer(world, body | {"full_feature_names": True})
    assert found["metadata"] == {
        "feature_names": [*entities, "kinds__big", "kinds__text", "home__people", "global_stats__total"]
    }
    assert column(found, "home__people") == [(12, "PRESENT", EVENT)]
    bare = answer(world, body)["metadata"]["feature_names"]
    assert bare == [*entities, "big", "text", "people", "total"]


def test_versions_on_request_and_the_fingerprint_in_a_header(world: World) -> None:
    body = {"features": ["kinds@latest:big"], "entities": {"user_id": [1]}}
    found = answer(world, body | {"include_feature_view_version_metadata": True})
    assert found["metadata"]["feature_view_metadata"] == [{"name": "kinds", "version": 1}]
    plan = world.catalog.plan("", ("kinds:big",), False)
    headers = dict(ask(world, body).headers)
    assert headers[b"fastserve-schema-fingerprint"].decode() == plan.fingerprint


def test_keys_as_feast_clients_send_them(world: World) -> None:
    refs = ["kinds:small"]
    text = answer(world, {"features": refs, "entities": {"user_id": ["1", 2, "99", 3.0]}})
    assert text["results"][0]["values"] == [1, 2, 99, 3]
    assert text["results"][1]["values"] == [-5, 3, None, None]
    people = answer(world, {"features": ["places:people"], "entities": {"city": [5], "country": ["%"]}})
    assert people["results"][0]["values"] == ["5"], "an integer is its text where the key is text"
    by_name = answer(world, {"features": refs, "entities": {"user": [1]}})
    assert by_name["metadata"]["feature_names"] == ["user_id", "small"]
    extra = {"note": ["x"], "user_id": [1], "city": ["left alone"]}
    found = answer(world, {"features": refs, "entities": extra})
    assert found["metadata"]["feature_names"] == ["user_id", "city", "small"], (
        "join keys are echoed, the rest is not"
    )
    found = answer(world, {"features": ["devices:battery"], "entities": {"device": ["AHw="]}})
    assert [r["values"] for r in found["results"]] == [["AHw="], [0.5]]


def test_features_of_no_entity(world: World) -> None:
    refs = ["global_stats:total"]
    assert answer(world, {"features": refs, "entities": {}})["results"][0]["values"] == [99]
    found = answer(world, {"features": refs, "entities": {"user_id": [1, 2, 3]}})
    assert found["metadata"]["feature_names"] == ["user_id", "total"]
    assert column(found, "total") == [(99, "PRESENT", EVENT)] * 3
    assert (
        answer(world, {"features": ["kinds:big"], "entities": {"user_id": []}})["results"][1]["values"] == []
    )


BAD: list[tuple[Any, str, int, str]] = [
    (b"", "", 422, "FeastError"),
    (b"{", "", 422, "FeastError"),
    (b"[]", "", 422, "FeastError"),
    ({"entities": {"user_id": [1]}}, "", 422, "FeastError"),
    ({"features": [], "entities": {"user_id": [1]}}, "", 422, "FeastError"),
    ({"features": "kinds:big", "entities": {"user_id": [1]}}, "", 422, "FeastError"),
    ({"features": [1], "entities": {"user_id": [1]}}, "", 422, "FeastError"),
    ({"features": ["kinds"], "entities": {"user_id": [1]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": []}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": 1}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1, 2], "x": [1]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [None]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": ["one"]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1.5]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [2**63]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": ["9" * 19]}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1], "user": [1]}}, "", 422, "FeastError"),
    ({"features": ["devices:battery"], "entities": {"device": ["?"]}}, "", 422, "FeastError"),
    ({"features": ["kinds:flag", "places:flag"], "entities": {}}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1]}, "full_feature_names": 1}, "", 422, "FeastError"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1]}}, "compat=no", 422, "FeastError"),
    ({"feature_service": 5, "entities": {}}, "", 422, "FeastError"),
    ({"feature_service": "none", "entities": {}}, "", 404, "FeatureServiceNotFoundException"),
    ({"features": ["none:big"], "entities": {}}, "", 404, "FeatureViewNotFoundException"),
    ({"features": ["kinds:none"], "entities": {}}, "", 404, "FeastObjectNotFoundException"),
    ({"features": ["kinds@v9:big"], "entities": {}}, "", 404, "FeastObjectNotFoundException"),
    ({"features": ["kinds:big"], "entities": {"user_id": [1] * (MAX_ENTITIES + 1)}}, "", 413, "FeastError"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "query", "status", "name"), BAD)
def test_what_is_wrong_is_told_in_feasts_words(
    world: World, body: Any, query: str, status: int, name: str
) -> None:
    found, detail = failure(world, body, query)
    assert (found, detail["module"], detail["class"]) == (status, "feast.errors", name), detail


async def test_a_store_that_does_not_answer_is_503_never_a_null(world: World) -> None:
    dead = HandStore(StoreUnavailableError("connection refused"))
    for query in ("", "compat=feast"):
        reads = FeastReads(world.catalog, Reader(ReadPath(dead, lambda: NOW_US)))  # type: ignore[arg-type]
        body = json.dumps({"features": ["kinds:big"], "entities": {"user_id": [1]}}).encode()
        future = Router(reads.routes)(Request("POST", PATH, query, [], body))
        assert isinstance(future, asyncio.Future)
        response = await future
        assert response.status == 503 and b"connection refused" in bytes(response.body)
