"""Every type from a Parquet source to training, SDK, Arrow and JSON: the same bits, the documented form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource
from fastserve.api import json_answer
from fastserve.api.feast import feast_column
from fastserve.types import SCALARS, arrow_type, parse_dtype
from tests.oracles.bits import bits
from tests.support import make_repo

DOC = Path(__file__).resolve().parents[3] / "docs" / "types.md"
NOW = "2024-01-01T01:00:00Z"
INF = float("inf")
# type -> (values of two entities, their JSON)
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "bool": ([True, False], [True, False]),
    "int32": ([-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
    "int64": ([-(2**63), 2**53 + 1], [-(2**63), 2**53 + 1]),
    "float32": ([-0.0, float("nan")], [-0.0, "NaN"]),
    "float64": ([5e-324, -INF], [5e-324, "-Infinity"]),
    "timestamp": (
        [-1, 1_700_000_000_250_000],
        ["1969-12-31T23:59:59.999999Z", "2023-11-14T22:13:20.250000Z"],
    ),
    "string": (["", "zażółć\n\U0001f600"], ["", "zażółć\n\U0001f600"]),
    "bytes": ([b"", b"\x00\xff"], ["", "AP8="]),
    "list<int64>": ([[], [2**53 + 1]], [[], [2**53 + 1]]),
    "list<string>": ([["", "a"], []], [["", "a"], []]),
    "list<bytes>": ([[b"\x00"], []], [["AA=="], []]),
    "list<bool>": ([[True, False], []], [[True, False], []]),
    "list<float64>": ([[INF], [0.1]], [["Infinity"], [0.1]]),
    "list<timestamp>": ([[0], []], [["1970-01-01T00:00:00Z"], []]),
    "list<float32>[2]": ([[0.5, -0.0], [1.0, 2.0]], [[0.5, -0.0], [1.0, 2.0]]),
    "list<string>[1]": ([["x"], [""]], [["x"], [""]]),
}
NAMES = {dtype: f"f{i}" for i, dtype in enumerate(VALUES)}


def test_the_page_has_every_type() -> None:
    documented = set(re.findall(r"^\| `([^`]+)`", DOC.read_text(), re.MULTILINE))
    assert documented == {*SCALARS, "list<T>", "list<T>[n]"}
    assert {parse_dtype(d).item for d in VALUES} == set(SCALARS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """Two entities with a value of every type, a third with nulls; materialized."""
    repo = make_repo(tmp_path_factory.mktemp("types") / "repo", "")
    columns: dict[str, Any] = {
        "user": ["a", "b", "c"],
        "event_timestamp": pa.array([0, 0, 0], pa.timestamp("us", "UTC")),
    }
    columns["event_timestamp"] = pa.array([1_704_067_200_000_000] * 3, pa.timestamp("us", "UTC"))
    for dtype, (values, _) in VALUES.items():
        columns[NAMES[dtype]] = pa.array([*values, None], arrow_type(parse_dtype(dtype)))
    (repo / "data").mkdir()
    pyarrow.parquet.write_table(pa.table(columns), repo / "data" / "all.parquet")
    view = FeatureView(
        "kinds",
        entities=["user"],
        schema=[Field(name, dtype) for dtype, name in NAMES.items()],
        source=FileSource("data/all.parquet"),
    )
    with FeatureStore(repo) as store:
        store.apply([Entity("user"), view])
        assert store.materialize(now=NOW).status == "ok"
        yield store


def features() -> list[str]:
    return [f"kinds:{name}" for name in NAMES.values()]


def test_source_training_and_serving_are_the_same_bits(store: FeatureStore) -> None:
    spine = pa.table(
        {
            "user": ["a", "b", "c"],
            "event_timestamp": pa.array([1_704_070_800_000_000] * 3, pa.timestamp("us", "UTC")),
        }
    )
    source = pyarrow.parquet.read_table(store.config.repo / "data" / "all.parquet")
    trained = store.get_historical_features(spine, features()).to_arrow()
    served = store.get_online_features(features(), {"user": ["a", "b", "c"]}, now=NOW).to_arrow()
    for dtype, name in NAMES.items():
        expected = bits(source[name].cast(arrow_type(parse_dtype(dtype))))
        assert bits(trained[name]) == expected, dtype
        assert bits(served[name]) == expected, dtype
        assert (
            trained.schema.field(name).type
            == served.schema.field(name).type
            == arrow_type(parse_dtype(dtype))
        )


# what a source may hold instead of the declared type, and what that is in it
TAKEN: list[tuple[str, pa.Array, list[Any]]] = [
    ("int64", pa.array([Decimal("7.00"), Decimal(-(2**63))], pa.decimal128(38, 2)), [7, -(2**63)]),
    ("float64", pa.array([Decimal("0.10"), None], pa.decimal128(20, 2)), [0.1, None]),
    ("float32", pa.array([Decimal("0.5"), Decimal("1.25")], pa.decimal256(40, 2)), [0.5, 1.25]),
    ("string", pa.array(["x" * 100_000, None], pa.large_string()), ["x" * 100_000, None]),
    ("string", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ("bytes", pa.array([b"\xff", None], pa.large_binary()), [b"\xff", None]),
    ("list<float32>[2]", pa.array([[0.5, 1.0], None], pa.large_list(pa.float64())), [[0.5, 1.0], None]),
]


@pytest.mark.parametrize(
    ("dtype", "given", "expected"), TAKEN, ids=[f"{d} from {a.type}" for d, a, _ in TAKEN]
)
def test_wider_columns_are_taken_as_declared(
    tmp_path: Path, dtype: str, given: pa.Array, expected: list[Any]
) -> None:
    repo = make_repo(tmp_path / "repo", "")
    times = pa.array([1_704_067_200_000_000] * 2, pa.timestamp("us", "UTC"))
    pyarrow.parquet.write_table(
        pa.table({"user": ["a", "b"], "event_timestamp": times, "x": given}), repo / "x.parquet"
    )
    view = FeatureView("v", entities=["user"], schema=[Field("x", dtype)], source=FileSource("x.parquet"))
    with FeatureStore(repo) as store:
        store.apply([Entity("user"), view])
        assert store.materialize(now=NOW).status == "ok"
        spine = pa.table({"user": ["a", "b"], "event_timestamp": times})
        assert store.get_historical_features(spine, ["v:x"]).to_arrow()["x"].to_pylist() == expected
        assert store.get_online_features(["v:x"], {"user": ["a", "b"]}, now=NOW).to_dict()["x"] == expected


# where Feast's form is another than ours
FEAST: dict[str, list[Any]] = {
    "float32": [-0.0, None],
    "timestamp": [-1, 1_700_000_000],
    "list<timestamp>": [[0], []],
}


def test_feast_json_has_the_documented_forms(store: FeatureStore) -> None:
    batch = store.get_online_features(features(), {"user": ["a", "b", "c"]}, now=NOW).batch
    rows = batch.reads[0]
    for output in batch.plan.columns:
        made = feast_column(rows.columns[output.column], output.dtype)
        found = json.loads(orjson.dumps(made, option=json_answer.DUMP))
        dtype = next(d for d, name in NAMES.items() if name == output.name)
        assert found == [*FEAST.get(dtype, VALUES[dtype][1]), None], dtype


def test_json_has_the_documented_forms(store: FeatureStore) -> None:
    batch = store.get_online_features(features(), {"user": ["a", "b", "c"]}, now=NOW).batch
    answer = json.loads(json_answer.render_columns(batch))
    found = dict(zip(answer["names"], answer["values"], strict=True))
    for dtype, (_, expected) in VALUES.items():
        assert found[NAMES[dtype]] == [*expected, None], dtype
        assert str(found[NAMES[dtype]]) == str([*expected, None]), f"{dtype}: -0.0 and 0.0 differ"
