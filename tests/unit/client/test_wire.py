"""Answers of the server's own renderers, read by the client; calls, read by the server's own parser."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import errors
from fastserve.api import errors as server_errors
from fastserve.api import feast_errors
from fastserve.api import wire as server_wire
from fastserve.api.arrow_answer import write_columns
from fastserve.api.json_answer import render_columns
from fastserve.client import columns, wire
from fastserve.client.features import Features
from fastserve.client.wire import Answer
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.serving.read_path import FeatureBatch
from fastserve.timeutil import MAX_US, MIN_US
from fastserve.types import SCALARS, Array, DType, arrow_type
from tests.support import NOW_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ITEMS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    "bytes": st.binary(max_size=6),
}


def dtypes() -> st.SearchStrategy[DType]:
    items = st.sampled_from(sorted(SCALARS))
    lists = st.tuples(items, st.integers(1, 3)).map(lambda pair: Array(*pair))
    return items.map(DType) | items.map(Array) | lists


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[DType], list[list[Any]], int]:
    n = draw(st.integers(0, 4))
    kinds = draw(st.lists(dtypes(), min_size=1, max_size=6))
    columns = []
    for kind in kinds:
        one = ITEMS[kind.item]
        if kind.is_list:
            one = st.lists(one, min_size=kind.length or 0, max_size=kind.length or 3)
        columns.append(draw(st.lists(st.none() | one, min_size=n, max_size=n)))
    return kinds, columns, n


def batch_of(kinds: list[DType], columns: list[list[Any]], n: int, *, unavailable: str = "") -> FeatureBatch:
    """A batch as the read path makes it, through the row codec; one row more, which is not found."""
    names = tuple(f"f{i}" for i in range(len(kinds)))
    layout = Layout(1, names, tuple(kinds))
    keys = [b"k%d" % i for i in range(n)]
    stamps = np.full(n, NOW_US - 1_000_000, np.int64)
    arrays = [pa.array(c, arrow_type(kind)) for c, kind in zip(columns, kinds, strict=True)]
    rows = [*RowEncoder(layout).encode(keys, arrays, stamps, stamps), None] if n else [None]
    decoder = RowDecoder({1: layout}, names, {})
    read = ViewRead("v", 2, ("id",), ("int64",), None, None, names, None, decoder)  # type: ignore[arg-type]
    outputs = tuple(OutputColumn(names[i], str(kind), 0, i) for i, kind in enumerate(kinds))
    plan = ReadPlan("svc", 7, outputs, (read,), {"id": "int64"}, "0123456789abcdef")
    if unavailable:
        return FeatureBatch(plan, n + 1, (decoder.unavailable(n + 1),), NOW_US, unavailable)
    decoded = decoder.decode([*keys, b"none"], rows, now_us=NOW_US, ttl_us=None)
    return FeatureBatch(plan, n + 1, (decoded,), NOW_US)


def answers(batch: FeatureBatch) -> Iterator[Features]:
    """The batch by JSON and by Arrow."""
    yield wire.json_features(orjson.loads(render_columns(batch)))
    yield wire.arrow_features(bytes(memoryview(write_columns(batch))))


def same(a: Any, b: Any) -> bool:
    """Equal in type and value; a NaN is a NaN."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and bool(a == b)


@settings(deadline=None, max_examples=150)
@given(tables())
def test_what_the_server_renders_is_what_the_client_reads(
    table: tuple[list[DType], list[list[Any]], int],
) -> None:
    kinds, columns, n = table
    for found in answers(batch_of(kinds, columns, n)):
        assert found.dtypes == tuple(str(kind) for kind in kinds) and len(found) == n + 1
        assert (found.revision, found.fingerprint) == (7, "0123456789abcdef")
        expected = {f"f{i}": [*column, None] for i, column in enumerate(columns)}
        got = found.to_dict()
        assert list(got) == list(expected)
        for name, values in expected.items():
            assert same(got[name], values), (name, got[name], values)
            nulls = ["NULL_VALUE" if v is None else "PRESENT" for v in values[:-1]]
            assert found.statuses[name] == [*nulls, "NOT_FOUND"]
        stamp = EPOCH + timedelta(microseconds=NOW_US - 1_000_000)
        assert found.event_timestamps == {"v@v2": [stamp] * n + [None]}
        check_forms(found, kinds, expected)


def check_forms(found: Features, kinds: list[DType], expected: dict[str, list[Any]]) -> None:
    """Arrow, numpy, pandas and polars hold the same values in the declared types."""
    table = found.to_arrow()
    table.validate(full=True)
    assert [field.type for field in table.schema] == [arrow_type(kind) for kind in kinds]
    arrays = found.to_numpy()
    assert len(found.to_pandas()) == found.to_polars().height == found.n
    for kind, (name, values) in zip(kinds, expected.items(), strict=True):
        array, nulls = arrays[name], [value is None for value in values]
        if kind.item in ("bool", "int32", "int64", "float32", "float64") and not kind.is_list:
            assert array.dtype == np.dtype(kind.scalar.numpy)
        if kind.item == "timestamp" and not kind.is_list:
            assert array.dtype == np.dtype("datetime64[us]")
        mask = np.ma.getmaskarray(array)
        assert (mask.all(axis=1) if mask.ndim == 2 else mask).tolist() == nulls
        if kind.item in ("bool", "int32", "int64", "string", "bytes") and not kind.is_list:
            assert array.tolist() == values
        assert table[name].null_count == sum(nulls)


def test_integers_stay_integers_and_null_is_not_nan() -> None:
    kinds = [DType("int64"), DType("float64")]
    for found in answers(batch_of(kinds, [[2**53 + 1, None], [math.nan, None]], 2)):
        frame, polars = found.to_pandas(), found.to_polars()
        assert str(frame.dtypes["f0"]) == "int64[pyarrow]" and frame["f0"][0] == 2**53 + 1
        assert frame["f0"].isna().tolist() == [False, True, True]
        assert polars["f0"].to_list() == [2**53 + 1, None, None] and polars.schema["f0"] == pl.Int64
        assert polars["f1"].is_null().to_list() == [False, True, True]
        assert found.to_numpy()["f0"].filled(-1).tolist() == [2**53 + 1, -1, -1]
        assert repr(found) == "<Features 3 x 2: f0, f1>"


@pytest.mark.parametrize("column", [[0.1], [0.1, None], ["NaN", 0.1, None], [math.pi, "-Infinity"]])
def test_floats_are_decoded_a_block_at_a_time(column: list[Any]) -> None:
    """So that what a JSON answer costs its reader does not grow by a call a value."""

    def calls(rows: int) -> int:
        table = [column * rows for _ in range(50)]
        count = 0

        def counted(_frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += event == "c_call" and argument in (struct.pack, struct.unpack)

        sys.setprofile(counted)
        try:
            found = columns.decode_columns(table, ["float32"] * 50)
        finally:
            sys.setprofile(None)
        nothing = (None if value is None else float(np.float32(value)) for value in column)
        assert same(found, [list(nothing) * rows] * 50)
        return count

    assert calls(1) == calls(100) <= 4


def test_a_number_that_is_no_float32_is_an_error() -> None:
    for column in ([1e300], [1e300, None]):
        with pytest.raises(OverflowError):
            columns.decode_columns([column], ["float32"])
    with pytest.raises(ValueError, match="could not convert"):
        columns.decode_columns([["abc", 1.0]], ["float32"])
    assert columns.decode_columns([[1], [], [2.5, None]], ["float32"] * 3) == [[1.0], [], [2.5, None]]


def test_times_that_a_datetime_cannot_name_stay_text() -> None:
    """No write takes such times any more; rows of before, or of another writer, have them."""
    us = [2**62, MIN_US - 1, MAX_US, -(2**63)]
    text = ["+148108-07-06T14:00:27.387904Z", "0000-12-31T23:59:59.999999Z"]
    last = [datetime.max.replace(tzinfo=UTC), "-290308-12-21T19:59:05.224192Z"]
    kinds = [DType("timestamp"), Array("timestamp"), Array("timestamp", 2)]
    lists = [[us[0], us[1]], [us[2], us[3]], None, [0, 0]]
    for found in answers(batch_of(kinds, [us, lists, lists], 4)):
        assert found.to_dict()["f0"] == [*text, *last, None]
        expected = [text, last, None, [EPOCH, EPOCH], None]
        assert found.to_dict()["f1"] == found.to_dict()["f2"] == expected
        table = found.to_arrow()
        assert table["f0"].cast(pa.int64()).to_pylist() == [*us, None]
        assert table["f1"].combine_chunks().flatten().cast(pa.int64()).to_pylist() == [*us, 0, 0]
        assert found.to_numpy()["f0"].filled(0).astype(np.int64).tolist() == [*us, 0]


def test_unavailable_is_told() -> None:
    by_json, by_arrow = answers(batch_of([DType("int64")], [[1]], 1, unavailable="connection refused"))
    assert by_json.unavailable == "connection refused"
    for found in (by_json, by_arrow):
        assert found.statuses == {"f0": ["UNAVAILABLE"] * 2} and found.to_dict() == {"f0": [None, None]}
        assert found.event_timestamps == {"v@v2": [None, None]}


def test_an_answer_without_types_is_left_as_it_is() -> None:
    data = orjson.loads(render_columns(batch_of([DType("float64"), DType("int64")], [[math.nan], [5]], 1)))
    del data["dtypes"]
    found = wire.json_features(data)
    assert found.to_dict() == {"f0": ["NaN", None], "f1": [5, None]} and found.dtypes == ("", "")
    assert found.to_arrow().num_rows == 2 and found.to_numpy()["f1"].tolist() == [5, None]


def call(**changes: Any) -> wire.Call[Features]:
    given: dict[str, Any] = {
        "features": None,
        "entities": {"user_id": [1, 2]},
        "service": "svc",
        "full_feature_names": False,
        "deadline_ms": None,
        "format": "json",
        "expect_fingerprint": None,
    }
    return wire.online_features(**{**given, **changes})


@pytest.mark.parametrize(
    "entities",
    [
        {"user_id": [1, 2], "code": [b"\x00\xff", b""]},
        [{"user_id": 1, "code": b"\x00\xff"}, {"user_id": 2, "code": b""}],
        pa.table({"user_id": [1, 2], "code": [b"\x00\xff", b""]}),
        pd.DataFrame({"user_id": [1, 2], "code": [b"\x00\xff", b""]}),
        pl.DataFrame({"user_id": [1, 2], "code": [b"\x00\xff", b""]}),
        {"user_id": np.array([1, 2]), "code": np.array([b"\x00\xff", b""], object)},
        {"user_id": pd.Series([1, 2]), "code": (b"\x00\xff", b"")},
    ],
)
def test_entities_come_as_columns_rows_or_tables(entities: Any) -> None:
    asked = server_wire.parse_batch(call(entities=entities).body)
    assert asked.service == "svc" and asked.entities == {"user_id": [1, 2], "code": ["AP8=", ""]}


def test_rows_of_a_push_keep_their_values() -> None:
    rows = {
        "id": [1, 2**63 - 1],
        "at": [datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=UTC)],
        "x": [math.nan, math.inf],
        "vector": [np.array([1.5, -math.inf]), None],
        "blob": [b"\xff", None],
        "when": np.array(["2026-01-02T03:04:05.678901234", "NaT"], "datetime64[ns]"),
    }
    body = json.loads(wire.push("clicks", rows, "online_and_offline", None).body)
    assert body["push_source_name"] == "clicks" and body["to"] == "online_and_offline"
    assert body["df"] == {
        "id": [1, 2**63 - 1],
        "at": ["2026-01-02T03:04:05.000006Z", "2026-01-02T00:00:00Z"],
        "x": ["NaN", "Infinity"],
        "vector": [[1.5, "-Infinity"], None],
        "blob": ["/w==", None],
        "when": ["2026-01-02T03:04:05.678901Z", None],
    }
    frame = pd.DataFrame({"id": [1, 2], "x": [math.nan, 1.0], "at": pd.to_datetime(["2026-01-02", None])})
    body = json.loads(wire.write_to_online_store("stats", frame, None).body)
    assert body == {
        "feature_view_name": "stats",
        "df": {"id": [1, 2], "x": [None, 1.0], "at": ["2026-01-02T00:00:00Z", None]},
    }
    exact = pd.DataFrame({"x": pd.Series(pa.array([math.nan, None]), dtype=pd.ArrowDtype(pa.float64()))})
    assert wire.table_of(exact, "rows") == {"x": ["NaN", None]}


@pytest.mark.parametrize(
    ("make", "cls"),
    [
        (lambda: call(service=None), errors.RequestError),
        (lambda: call(features=["v:f"]), errors.RequestError),
        (lambda: call(service=None, features="v:f"), errors.RequestError),
        (lambda: call(format="csv"), errors.RequestError),
        (lambda: call(deadline_ms=0), errors.RequestError),
        (lambda: call(entities=5), errors.InvalidDataError),
        (lambda: call(entities=[1, 2]), errors.InvalidDataError),
        (lambda: call(entities={"user_id": "12"}), errors.InvalidDataError),
        (lambda: call(entities={"user_id": 1}), errors.InvalidDataError),
        (lambda: call(entities={"user_id": [2**70]}), errors.InvalidDataError),
        (lambda: call(entities={"user_id": [object()]}), errors.InvalidDataError),
        (lambda: wire.push("p", {"a": [1]}, "everywhere", None), errors.RequestError),
        (lambda: wire.feature_view_row("v", {"id": 1.5}, None), errors.InvalidEntityError),
    ],
)
def test_bad_calls_are_refused_before_they_are_sent(make: Any, cls: type[Exception]) -> None:
    with pytest.raises(cls) as caught:
        make()
    assert type(caught.value) is cls


def test_the_path_of_one_row_is_encoded() -> None:
    asked = wire.feature_view_row(
        "kinds@v2", {"a b": "x&y/ż", "n": np.int64(5), "ok": True, "raw": b"\xff/"}, None
    )
    assert asked.path == "/feature-views/kinds@v2/online-features?a%20b=x%26y%2F%C5%BC&n=5&ok=true&raw=%FF%2F"


RAISED = [
    errors.UnknownObjectError("m", where="$.w", hint="h"),
    errors.InvalidEntityError("m", where="$.w", hint="h"),
    errors.InvalidDataError("m", where="$.w", hint="h"),
    errors.TooLargeError("m", where="$.w", hint="h"),
    errors.SchemaMismatchError("m", where="$.w", hint="h"),
    errors.RequestError("m", where="$.w", hint="h"),
    errors.OverloadedError("m", where="$.w", hint="h", retry_after_s=7),
    errors.StoreTimeoutError("m", where="$.w", hint="h"),
    errors.StoreUnavailableError("m", where="$.w", hint="h"),
    errors.CodecError("m", where="$.w", hint="h"),
]


def answer_of(response: Any) -> Answer:
    headers = {"content-type": response.content_type.decode()}
    headers |= {name.decode(): value.decode() for name, value in response.headers}
    return Answer(response.status, headers, response.body)


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
def test_what_the_server_raises_the_client_raises(error: errors.FastserveError) -> None:
    with pytest.raises(errors.FastserveError) as caught:
        wire.raise_for_status(answer_of(server_errors.error_response(error)))
    found = caught.value
    assert type(found) is type(error) and str(found) == str(error)
    if isinstance(found, errors.OverloadedError):
        assert found.retry_after_s == 7
    with pytest.raises(errors.FastserveError) as caught:
        wire.raise_for_status(answer_of(feast_errors.feast_error(error)))
    missing = errors.UnknownObjectError.of("push source", "clicsk", ["clicks"])
    with pytest.raises(errors.UnknownObjectError, match="did you mean 'clicks'"):
        wire.raise_for_status(answer_of(feast_errors.feast_error(missing)))
    assert "m" in caught.value.message and isinstance(
        caught.value, (errors.RequestError, errors.FastserveError)
    )


@pytest.mark.parametrize(
    ("status", "body", "cls", "text"),
    [
        (502, b"<html>bad gateway</html>", errors.ServerError, "HTTP 502"),
        (503, b"upstream is away", errors.ServerError, "upstream is away"),
        (500, b'{"error": {"code": "internal", "message": "boom"}}', errors.ServerError, "boom"),
        (401, b"", errors.RequestError, "token"),
        (404, b'{"detail": "Not Found"}', errors.UnknownObjectError, "Not Found"),
        (429, b"", errors.OverloadedError, "429"),
        (302, b"", errors.ServerError, "302"),
        (400, b"\xff\xfe", errors.RequestError, ""),
        (400, b"[1]", errors.RequestError, "400"),
    ],
)
def test_answers_of_others_go_by_their_status(
    status: int, body: bytes, cls: type[Exception], text: str
) -> None:
    with pytest.raises(cls) as caught:
        wire.raise_for_status(Answer(status, {}, body))
    assert type(caught.value) is cls and text in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[]", b"{}", b'{"names": ["a"]}', b'{"names": 5, "metadata": {}}', b"null"]
)
@pytest.mark.parametrize("media", [wire.JSON, wire.ARROW, "text/html"])
def test_a_200_that_is_not_ours_is_a_server_error(body: bytes, media: str) -> None:
    with pytest.raises(errors.ServerError, match="not one of fastserve's"):
        call().parse(Answer(200, {"content-type": media}, body))
    with pytest.raises(errors.ServerError):
        wire.feature_view_row("v", {"id": 1}, None).parse(Answer(200, {"content-type": media}, body))


def test_another_schema_than_expected_is_refused() -> None:
    body = render_columns(batch_of([DType("int64")], [[1]], 1))
    answer = Answer(200, {"content-type": wire.JSON}, body)
    assert len(call(expect_fingerprint="0123456789abcdef").parse(answer)) == 2
    with pytest.raises(errors.SchemaMismatchError) as caught:
        call(expect_fingerprint="f" * 16).parse(answer)
    assert "f" * 16 in str(caught.value) and "train" in caught.value.hint


def test_health_is_an_answer_whatever_it_says() -> None:
    parse = wire.health(None).parse
    assert parse(Answer(200, {}, b'{"status": "ok", "revision": 3}')).revision == 3
    assert parse(Answer(200, {}, b"")).ok, "Feast's server says nothing more"
    assert not parse(Answer(503, {}, b'{"revision": 3}')).ok
    with pytest.raises(errors.ServerError):
        parse(Answer(200, {}, b"<html>"))
    with pytest.raises(errors.UnknownObjectError):
        parse(Answer(404, {}, b""))
