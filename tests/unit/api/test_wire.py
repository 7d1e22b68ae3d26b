"""JSON and Arrow answers, and content negotiation."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pyarrow as pa
import pytest

from fastserve.api import wire
from fastserve.api.arrow_answer import arrow_schema, write_columns
from fastserve.api.handlers import FeatureReads
from fastserve.api.json_answer import json_value, render_columns
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.http.message import Request, Response
from fastserve.serving.read_path import FeatureBatch, decode_columns
from tests.support import NOW_US, put
from tests.unit.serving.world import FULL_ROW, KINDS, World


def batch_of(world: World, user_ids: list[int]) -> FeatureBatch:
    refs = tuple(f"kinds:{name}" for name in KINDS.feature_names)
    batch = world.read_path.read(world.catalog.plan("", refs, False), {"user_id": user_ids}, decode_columns)
    assert isinstance(batch, FeatureBatch)
    return batch


def test_json_has_every_type_in_its_documented_form(world: World) -> None:
    answer = orjson.loads(render_columns(batch_of(world, [1, 4])))
    found = dict(zip(answer["names"], answer["values"], strict=True))
    assert found == {
        "flag": [True, None],
        "small": [-5, None],
        "big": [2**53 + 1, 7],
        "single": [pytest.approx(0.1), None],
        "double": ["NaN", None],
        "moment": ["2023-11-14T22:13:20Z", None],
        "text": ["zażółć", "none"],
        "blob": ["AP8=", None],
        "vector": [[1.0, 2.0, "Infinity"], None],
        "names": [["a", ""], None],
    }
    names = answer["metadata"]["status_names"]
    assert {names[row[0]] for row in answer["statuses"]} == {"PRESENT"}
    assert {names[row[1]] for row in answer["statuses"]} == {"NOT_FOUND"}
    assert answer["views"] == [
        {
            "name": "kinds",
            "version": 1,
            "event_timestamps": ["2023-11-14T22:13:19Z", None],
            "freshness_ms": [1000, None],
        }
    ]
    assert answer["metadata"]["rows"] == 2 and answer["metadata"]["revision"] == 1


def test_float32_is_served_in_its_own_shortest_form(world: World) -> None:
    text = render_columns(batch_of(world, [1]))
    single = json.loads(text)["values"][KINDS.feature_names.index("single")]
    assert single == [0.1], "not 0.10000000149011612"


async def test_a_float32_has_one_form_whatever_stands_beside_it(world: World) -> None:
    rows = [
        {"user_id": 11, "single": 0.1, "vector": [0.1, 0.1, 0.1]},
        {"user_id": 12, "single": None, "vector": None},
        {"user_id": 13, "single": float("-inf"), "vector": [0.1, float("nan"), 0.1]},
    ]
    await put(world.store, world.catalog.snapshot.view("kinds"), rows)
    values = json.loads(render_columns(batch_of(world, [11, 12, 13])))["values"]
    assert values[KINDS.feature_names.index("single")] == [0.1, None, "-Infinity"]
    assert values[KINDS.feature_names.index("vector")] == [[0.1] * 3, None, [0.1, "NaN", 0.1]]


async def test_times_beyond_any_year_are_answered(world: World) -> None:
    """No write takes them any more; what is stored is no reason for a 500."""
    rows = [{"user_id": 11, "moment": 2**62}, {"user_id": 12}]
    await put(world.store, world.catalog.snapshot.view("kinds"), rows, event_us=[NOW_US, -(2**62)])
    router = Router(FeatureReads(world.catalog, Reader(world.read_path)).routes)

    def answer(method: str, path: str, query: str, body: bytes) -> Any:
        found = router(Request(method, path, query, [], body))
        assert isinstance(found, Response) and found.status == 200
        return json.loads(bytes(found.body))

    far, long_ago = "+148108-07-06T14:00:27.387904Z", "-144169-06-28T09:59:32.612096Z"
    asked = {"features": ["kinds:moment"], "entities": {"user_id": [11, 12]}}
    batch = answer("POST", "/online-features/batch", "", json.dumps(asked).encode())
    assert batch["values"] == [[far, None]]
    assert batch["views"][0]["event_timestamps"] == ["2023-11-14T22:13:20Z", long_ago]
    path = "/feature-views/kinds/online-features"
    assert answer("GET", path, "entity_id=11", b"")["features"]["moment"] == far
    assert answer("GET", path, "entity_id=12", b"")["event_timestamp"] == long_ago


def test_arrow_keeps_types_and_bits(world: World) -> None:
    table = pa.ipc.open_stream(write_columns(batch_of(world, [1, 2]))).read_all()
    table.validate(full=True)
    assert table.schema == arrow_schema(batch_of(world, [1]).plan)
    row = table.slice(0, 1).to_pylist()[0]
    assert row["big"] == FULL_ROW["big"] and row["vector"] == FULL_ROW["vector"]
    assert row["moment"].timestamp() * 1_000_000 == NOW_US
    assert table["big"].to_pylist() == [2**53 + 1, None]
    assert table["big__status"].to_pylist() == [1, 2]
    assert str(table["double"][0].as_py()) == "nan" and table["double"].null_count == 1
    assert table.schema.metadata[b"fastserve.revision"] == b"1"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, wire.JSON),
        (b"", wire.JSON),
        (b"*/*", wire.JSON),
        (b"application/json", wire.JSON),
        (b"application/*;q=0.5", wire.JSON),
        (b"application/vnd.apache.arrow.stream", wire.ARROW),
        (b"application/json;q=0.1, application/vnd.apache.arrow.stream", wire.ARROW),
        (b"text/html, application/vnd.apache.arrow.stream;q=0.2", wire.ARROW),
        (b"application/json;q=0, */*;q=0", None),
        (b"text/html", None),
        (b"application/json;q=0, */*", wire.ARROW),
        (b"application/json;q=zero", None),
    ],
)
def test_content_negotiation(accept: bytes | None, media: str | None) -> None:
    assert wire.choose(accept) == media


@pytest.mark.parametrize("value", [1.5, -0.0, 7, "x", None, True])
def test_plain_values_stay_as_they_are(value: Any) -> None:
    assert json_value(value) is value
