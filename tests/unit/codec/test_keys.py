from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import CodecError, InvalidEntityError
from fastserve.types import KEY_TYPES
from tests.oracles.naive_rows import key_text

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"])) | st.text("a%|\x7f\x1f é"),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "bytes": st.binary(),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[str], list[list[Any]], int]:
    """(key types, columns, n)"""
    types = draw(st.lists(st.sampled_from(KEY_TYPES), min_size=1, max_size=3))
    n = draw(st.integers(0, 5))
    return types, [draw(st.lists(VALUES[t], min_size=n, max_size=n)) for t in types], n


@given(batch=batches())
def test_the_documented_text(keys: ModuleType, batch: tuple[list[str], list[list[Any]], int]) -> None:
    types, columns, n = batch
    wanted = [key_text("1a", parts) for parts in zip(*columns, strict=True)]
    encoder = keys.KeyEncoder(46, types)
    assert encoder.encode(columns, n) == wanted
    assert [encoder.decode(key) for key in wanted] == list(zip(*columns, strict=True))


@given(batch=batches())
def test_every_container_gives_the_same_keys(
    keys: ModuleType, batch: tuple[list[str], list[list[Any]], int]
) -> None:
    types, columns, n = batch
    encoder = keys.KeyEncoder(46, types)
    wanted = encoder.encode(columns, n)
    arrow = {"string": pa.string(), "int64": pa.int64(), "bool": pa.bool_(), "bytes": pa.binary()}
    arrays = [pa.array(c, arrow[t]) for c, t in zip(columns, types, strict=True)]
    padded = [pa.concat_arrays([a[:1], a, a[:1]])[min(1, n) : min(1, n) + n] for a in arrays]
    chunked = [pa.chunked_array([a[: n // 2], a[n // 2 :]], a.type) for a in padded]
    dictionaries = [a.dictionary_encode() for a in padded]
    objects = [pd.Series(c, dtype=object) for c in columns]
    frames = [pl.Series(c, strict=False) if c else [] for c in columns]
    for same in (arrays, padded, chunked, dictionaries, objects, frames, [tuple(c) for c in columns]):
        assert encoder.encode(same, n) == wanted


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"])
def test_every_integer_width_is_the_same_key(keys: ModuleType, kind: str) -> None:
    encoder = keys.KeyEncoder(7, ["int64"])
    wanted = [b"7:0", b"7:7", b"7:127"]
    array = np.array([0, 7, 127], kind)
    assert encoder.encode([array], 3) == wanted
    assert encoder.encode([np.repeat(array, 2)[::2]], 3) == wanted
    assert encoder.encode([list(array)], 3) == wanted
    if kind != ">i4":
        assert encoder.encode([pa.array(array)], 3) == wanted
        assert encoder.encode([pa.chunked_array([array[:1], array[1:]])], 3) == wanted


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_arrow_text(keys: ModuleType, kind: pa.DataType) -> None:
    array = pa.array(["x", "a|b", "", "é"], kind)[1:]
    assert keys.KeyEncoder(7, ["string"]).encode([array], 3) == [b"7:a%7Cb", b"7:", b"7:\xc3\xa9"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)])
def test_every_kind_of_arrow_bytes(keys: ModuleType, kind: pa.DataType) -> None:
    array = pa.array([b"xx", b"\0 ", b"ab"], kind)[1:]
    assert keys.KeyEncoder(7, ["bytes"]).encode([array], 2) == [b"7:%00%20", b"7:ab"]


def test_numpy_text_and_flags(keys: ModuleType) -> None:
    encoder = keys.KeyEncoder(7, ["bool", "string"])
    columns = [np.array([True, False]), np.array(["a", "bc"])]
    assert encoder.encode(columns, 2) == [b"7:t|a", b"7:f|bc"]
    assert encoder.encode([[np.True_, False], [np.str_("a"), "b"]], 2) == [b"7:t|a", b"7:f|b"]


def test_a_view_without_join_keys_has_one_key(keys: ModuleType) -> None:
    encoder = keys.KeyEncoder(7, [])
    assert encoder.encode([], 3) == [b"7:"] * 3
    assert encoder.decode(b"7:") == ()
    assert encoder.prefix == b"7:"


@pytest.mark.parametrize(("view_id", "prefix"), [(0, b"0:"), (35, b"z:"), (36, b"10:"), (46, b"1a:")])
def test_view_ids_are_base_36(keys: ModuleType, view_id: int, prefix: bytes) -> None:
    encoder = keys.KeyEncoder(view_id, ("int64",))
    assert encoder.prefix == prefix
    assert (encoder.view_id, encoder.key_types) == (view_id, ("int64",))


NULLS = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT]
WRONG = {
    "int64": ["7", 1.0, True, False, np.True_, b"7", 2**63, -(2**63) - 1, [1], np.float64(3)],
    "string": [7, b"a", True, 1.5, "\ud800", ["a"]],
    "bool": [1, 0, "t", "true", np.int64(1)],
    "bytes": ["a", 7, True, memoryview(b"a")],
}


@pytest.mark.parametrize(("key_type", "value"), [(t, v) for t, vs in WRONG.items() for v in vs + NULLS])
def test_a_value_that_is_no_key_is_named(keys: ModuleType, key_type: str, value: Any) -> None:
    good = {"int64": 1, "string": "a", "bool": True, "bytes": b"a"}[key_type]
    encoder = keys.KeyEncoder(7, [key_type])
    with pytest.raises(InvalidEntityError) as caught:
        encoder.encode([[good, good, value, None]], 4)
    assert caught.value.where == "[2]"
    with pytest.raises(InvalidEntityError) as caught:
        encoder.encode([[good, good, value, None]], 4, ["user_id"])
    assert caught.value.where == "$.entities.user_id[2]"
    is_null = any(value is null for null in NULLS)
    assert ("null" in caught.value.message) == is_null
    assert caught.value.hint or value == "\ud800"


@pytest.mark.parametrize(
    ("column", "i"),
    [
        (np.array([1.0, 2.0]), 0),
        (np.array([True, False]), 0),
        (np.array(["1", "2"]), 0),
        (np.array([1, 2**63], np.uint64), 1),
        (pa.array([1, None]), 1),
        (pa.chunked_array([[1], [None]]), 1),
        (pa.array([1, None]).dictionary_encode(), 1),
        (pa.DictionaryArray.from_arrays([0, 1], pa.array([1, None])), 1),
        (pa.array([1, 2**63], pa.uint64()), 1),
        (pa.array([1.0, 2.0]), 0),
        (pa.array([True, False]), 0),
        (pa.nulls(2), 0),
        (pd.Series([1, None]), 0),
        (pd.Series([1, None], dtype="Int64"), 1),
    ],
)
def test_an_array_that_holds_no_int64_keys(keys: ModuleType, column: Any, i: int) -> None:
    with pytest.raises(InvalidEntityError) as caught:
        keys.KeyEncoder(7, ["int64"]).encode([column], 2)
    assert caught.value.where == f"[{i}]"


@pytest.mark.parametrize(
    "column",
    [
        "ab", 7, None, {"a": 1, "b": 2}, np.zeros((2, 1), np.int64), np.array(5),
        np.array(["2020-01-01"] * 2, "M8[ns]"), pa.array([1, 2], pa.timestamp("us")),
        pa.array([1, 2], pa.duration("s")), pa.array([[1], [2]]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key_type", ["int64", "string"])
def test_a_column_that_holds_no_keys(keys: ModuleType, key_type: str, column: Any) -> None:
    with pytest.raises(InvalidEntityError) as caught:
        keys.KeyEncoder(7, [key_type]).encode([column], 2, ["user_id"])
    assert caught.value.where == "$.entities.user_id"


def test_ragged_missing_and_surplus_columns(keys: ModuleType) -> None:
    encoder = keys.KeyEncoder(7, ["int64", "string"])
    for columns, where in (([[1, 2], ["a"]], "$.entities.b"), ([np.arange(3), ["a", "b"]], "$.entities.a")):
        with pytest.raises(InvalidEntityError, match="expected") as caught:
            encoder.encode(columns, 2, ["a", "b"])
        assert caught.value.where == where
    for columns in ([[1, 2]], [[1, 2], ["a", "b"], [1, 2]], []):
        with pytest.raises(InvalidEntityError, match=r"2$"):
            encoder.encode(columns, 2)
    with pytest.raises(InvalidEntityError):
        keys.KeyEncoder(7, []).encode([[1]], 1)


def test_the_first_wrong_value_in_reading_order_is_named(keys: ModuleType) -> None:
    with pytest.raises(InvalidEntityError) as caught:
        keys.KeyEncoder(7, ["int64", "string"]).encode([[1, None], [None, "a"]], 2, ["a", "b"])
    assert caught.value.where == "$.entities.b[0]"


@pytest.mark.parametrize(
    "key",
    [b"", b"7", b"8:1|a", b"7:1", b"7:1|a|b", b"7:01|a", b"7:+1|a", b"7:-0|a", b"7: 1|a", b"7:1_0|a", b"7:|a",
     b"7:9223372036854775808|a", b"7:1|%7c", b"7:1|%41", b"7:1|%", b"7:1|\x01", b"7:1|\xff", "7:١|a".encode()],
)  # fmt: skip
def test_decode_refuses_what_encode_does_not_write(keys: ModuleType, key: bytes) -> None:
    with pytest.raises(CodecError):
        keys.KeyEncoder(7, ["int64", "string"]).decode(key)


@pytest.mark.parametrize("key", [b"7:x", b"7:|", b"8:", b"7"])
def test_decode_of_a_view_without_join_keys(keys: ModuleType, key: bytes) -> None:
    with pytest.raises(CodecError):
        keys.KeyEncoder(7, []).decode(key)


def test_encoders_that_cannot_be(keys: ModuleType) -> None:
    with pytest.raises(CodecError, match="float64"):
        keys.KeyEncoder(7, ["float64"])
    with pytest.raises(CodecError, match="-1"):
        keys.KeyEncoder(-1, ["int64"])


def test_a_list_that_shrinks_under_the_encoder(keys: ModuleType) -> None:
    """A value's __index__ is Python and may do anything; nothing is read that is gone."""

    class Shrinks:
        def __index__(self) -> int:
            column.clear()
            return 1

    column: list[Any] = [Shrinks(), *range(1_000)]
    try:
        assert keys.KeyEncoder(7, ["int64"]).encode([column], 1_001)[0] == b"7:1"
    except (IndexError, ValueError):
        pass


def test_large_batches_leak_nothing(keys: ModuleType) -> None:
    encoder = keys.KeyEncoder(7, ["string"])
    columns = [["x" * 5_000] * 100]
    assert encoder.encode(columns, 100)[99] == b"7:" + b"x" * 5_000


@pytest.mark.parametrize("name", ["keys", "rows"])
def test_no_extensions_forces_the_twin(name: str) -> None:
    code = f"import fastserve.codec.{name} as m, sys; print(m.{name[:-1].title()}Encoder.__module__)"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={"FASTSERVE_NO_EXTENSIONS": "1"}, capture_output=True, check=True
    )
    assert answer.stdout.decode().strip() == f"fastserve.codec.{name}_py"
