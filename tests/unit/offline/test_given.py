"""Pushed rows in the canonical schema, and >= 25 ways in which they can be wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import Array, FeatureView, Field, FileSource, PushSource
from fastserve.codec.layout import Layout
from fastserve.errors import InvalidDataError
from fastserve.offline.frames import arrow_table
from fastserve.offline.given import given_rows
from fastserve.registry import RegisteredView
from fastserve.registry.snapshot import fields_of
from tests.support import NOW_US

T = "2023-11-14T22:13:10"  # ten seconds before NOW_US
T_US = NOW_US - 10_000_000
BATCH = FileSource("x.parquet", "ts", "known", field_mapping={"uid": "user_id"})


def registered(*fields: Field, source: Any = None, keys: dict[str, str] | None = None) -> RegisteredView:
    view = FeatureView("v", schema=fields or [Field("a", "int64")], source=source)
    layout = Layout(3, *fields_of(view))
    return RegisteredView(view, 7, MappingProxyType(keys or {"user_id": "int64"}), (layout,))


def given(data: Any, *views: RegisteredView) -> Any:
    [batch] = given_rows(views or [registered()], arrow_table(data), NOW_US)
    return batch


def test_the_canonical_schema_and_one_rule_for_created() -> None:
    batch = given({"a": [1, None], "event_timestamp": [T, T + "Z"], "user_id": ["7", "8"]})
    assert batch.schema.names == ["user_id", "event_timestamp", "created_timestamp", "a", "_layout"]
    assert batch["user_id"].to_pylist() == [7, 8] and batch["a"].to_pylist() == [1, None]
    assert batch["event_timestamp"].cast(pa.int64()).to_pylist() == [T_US] * 2
    assert batch["created_timestamp"].equals(batch["event_timestamp"])
    assert batch["_layout"].to_pylist() == [3, 3]


@pytest.mark.parametrize("name", ["created_timestamp", "created", "known"])
def test_created_by_each_of_its_names_and_null_is_the_event_time(name: str) -> None:
    later = "2023-11-14T22:13:11"
    row = {"a": [1, 1], "user_id": [1, 2], "ts": [T, T], name: [later, None]}
    batch = given(row, registered(source=PushSource("p", BATCH)))
    assert batch["created_timestamp"].cast(pa.int64()).to_pylist() == [T_US + 1_000_000, T_US]


def test_columns_as_the_batch_source_names_them() -> None:
    batch = given({"a": [1], "uid": [5], "ts": [T]}, registered(source=PushSource("p", BATCH)))
    assert batch["user_id"].to_pylist() == [5]


def test_a_feature_named_created_is_a_feature() -> None:
    batch = given(
        {"created": [4], "user_id": [1], "event_timestamp": [T]}, registered(Field("created", "int64"))
    )
    assert batch["created"].to_pylist() == [4]
    assert batch["created_timestamp"].cast(pa.int64()).to_pylist() == [T_US]


def test_views_together_use_every_column() -> None:
    views = [registered(Field("a", "int64")), registered(Field("b", "string"))]
    row = {"a": [1], "b": ["x"], "user_id": [1], "event_timestamp": [T]}
    first, second = given_rows(views, arrow_table(row), NOW_US)
    assert (first["a"].to_pylist(), second["b"].to_pylist()) == ([1], ["x"])
    with pytest.raises(InvalidDataError, match="unknown column 'b'"):
        given_rows(views[:1], arrow_table(row), NOW_US)


def test_every_kind_of_table_gives_the_same_rows() -> None:
    when = [datetime(2023, 11, 14, 22, 13, 10, tzinfo=UTC)] * 2
    columns: dict[str, Any] = {"user_id": [1, 2], "event_timestamp": when, "f": [0.5, float("nan")]}
    view = registered(Field("f", "float64"))
    forms = [
        columns,
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        pl.DataFrame(columns),
        pa.table(columns),
        pa.RecordBatch.from_pydict(columns),
        pa.table(columns).to_reader(),
        {**columns, "user_id": np.array([1, 2]), "f": np.array([0.5, np.nan])},
        pd.DataFrame({**columns, "f": pd.arrays.ArrowExtensionArray(pa.array(columns["f"]))}),
        {**columns, "user_id": pd.Series([1, 2]), "f": pl.Series([0.5, float("nan")])},
    ]
    for form in forms:
        batch = given(form, view)
        assert batch["user_id"].to_pylist() == [1, 2], type(form)
        assert batch["f"].null_count == 0 and np.isnan(batch["f"][1].as_py()), "a NaN is no null"


@pytest.mark.parametrize("values", [pd.array([1, None], "Int64"), [1, None], [1.0, float("nan")]])
def test_a_missing_value_of_pandas_is_null_as_in_the_file_it_writes(values: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "a": values, "event_timestamp": [T, T]})
    frame.to_parquet(tmp_path / "f.parquet")
    assert given(frame)["a"].to_pylist() == given(pq.read_table(tmp_path / "f.parquet"))["a"].to_pylist()
    assert given(frame)["a"].to_pylist() == [1, None]


def test_no_rows_are_fine() -> None:
    assert given({"a": [], "user_id": [], "event_timestamp": []}).num_rows == 0


OK: dict[str, Any] = {"a": [1, 2], "user_id": [1, 2], "event_timestamp": [T, T]}
# (what is wrong, rows, where it must point, what it must say)
BAD: list[tuple[str, Any, str, str]] = [
    ("no table", 7, "", "rows come as"),
    ("text", "rows", "", "rows come as"),
    ("no rows", [], "", "rows come as"),
    ("list of lists", [[1, 2]], "", "rows come as"),
    ("rows of different columns", [{"a": 1}, {"a": 2, "b": 3}], "row 1", "has 'b', unlike row 0"),
    ("a row without a column", [{"a": 1, "b": 3}, {"b": 3}], "row 1", "lacks 'a', unlike row 0"),
    ("nothing", {}, "column 'event_timestamp'", "event times"),
    ("no event time", {"a": [1], "user_id": [1]}, "column 'event_timestamp'", "column of event times"),
    ("no key", {"a": [1], "event_timestamp": [T]}, "column 'user_id'", "needs a column 'user_id'"),
    ("no feature", {"user_id": [1], "event_timestamp": [T]}, "column 'a'", "needs a column 'a'"),
    (
        "misspelt",
        {"user_id": [1], "event_timestmp": [T], "a": [1]},
        "column 'event_timestamp'",
        "did you mean",
    ),
    ("unknown", {**OK, "b": [1, 2]}, "column 'b'", "unknown column 'b'"),
    ("ragged", {**OK, "event_timestamp": [T]}, "column 'event_timestamp'", "has 1 values"),
    ("no list", {**OK, "a": 1}, "column 'a'", "is a int, not a list"),
    ("text for list", {**OK, "a": "xy"}, "column 'a'", "is a str, not a list"),
    ("name no text", {**OK, 5: [1, 2]}, "", "column names are text"),
    ("null key", {**OK, "user_id": [1, None]}, "column 'user_id', row 1", "join key is null"),
    ("float key", {**OK, "user_id": [1, 2.5]}, "column 'user_id', row 1", "does not fit int64"),
    ("bool key", {**OK, "user_id": [True, False]}, "column 'user_id', row 0", "bool"),
    ("text key", {**OK, "user_id": ["1", "x"]}, "column 'user_id', row 1", "'x' does not fit"),
    ("key past int64", {**OK, "user_id": [1, 2**63]}, "column 'user_id', row 1", ""),
    ("key far past int64", {**OK, "user_id": [1, 2**70]}, "column 'user_id', row 1", ""),
    ("null event time", {**OK, "event_timestamp": [T, None]}, "column 'event_timestamp', row 1", "is null"),
    ("no time", {**OK, "event_timestamp": [T, "soon"]}, "column 'event_timestamp', row 1", "'soon'"),
    ("number as time", {**OK, "event_timestamp": [1, 2]}, "column 'event_timestamp', row 0", "timestamp"),
    (
        "future",
        {**OK, "event_timestamp": [T, "2023-11-14T22:13:20.000001"]},
        "column 'event_timestamp', row 1",
        "in the future",
    ),
    (
        "nanoseconds",
        {**OK, "event_timestamp": [T, T + ".123456789"]},
        "column 'event_timestamp', row 1",
        "exactly",
    ),
    ("known tomorrow", {**OK, "created": [T, "2030-01-01"]}, "column 'created', row 1", "in the future"),
    (
        "before year 1",
        {**OK, "event_timestamp": pa.array([T_US, -(2**62)]).cast(pa.timestamp("us"))},
        "column 'event_timestamp', row 1",
        "-144169-06-28T09:59:32.612096Z is outside the years 1 to 9999",
    ),
    (
        "past any year",
        {**OK, "event_timestamp": pa.array([2**62] * 2).cast(pa.timestamp("us"))},
        "column 'event_timestamp', row 0",
        "outside the years 1 to 9999",
    ),
    ("fraction", {**OK, "a": [1, 1.5]}, "column 'a', row 1", "does not fit int64"),
    ("mixed", {**OK, "a": [1, "x"]}, "column 'a', row 1", "no one type"),
    ("object", {**OK, "a": [1, {}]}, "column 'a', row 1", "no one type"),
    ("all objects", {**OK, "a": [{"x": 1}, {}]}, "column 'a', row 0", "struct"),
    ("list for scalar", {**OK, "a": [[1], [2]]}, "column 'a', row 0", "list"),
    ("half a surrogate", {**OK, "a": ["1", "\ud800"]}, "column 'a', row 1", "no one type"),
    ("two of a name", pa.table([[1], [1]], names=["a", "a"]), "", "two columns named 'a'"),
]


@pytest.mark.parametrize("case", BAD, ids=[case[0] for case in BAD])
def test_what_is_wrong_is_named(case: tuple[str, Any, str, str]) -> None:
    _, data, where, says = case
    with pytest.raises(InvalidDataError) as caught:
        given(data)
    if where:
        assert caught.value.where == where
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "values", "says"),
    [
        (Array("float32", 3), [[1.0, 2.0]], "2 items"),
        (Array("float32"), [[1.0, None]], "null item"),
        (Array("string"), ["text"], "string"),
        ("int32", [2**31], "int32"),
        ("bool", ["maybe"], "maybe"),
        ("float32", [1e300], "float32"),
        ("bytes", [5], "bytes"),
    ],
)
def test_values_that_do_not_fit_their_type(dtype: Any, values: list[Any], says: str) -> None:
    with pytest.raises(InvalidDataError, match="column 'x', row 0") as caught:
        given({"x": values, "user_id": [1], "event_timestamp": [T]}, registered(Field("x", dtype)))
    assert says in str(caught.value)
