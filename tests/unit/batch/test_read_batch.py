"""ReadBatch, both twins."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.batch.batch_py import ABSENT, FOUND, UNKNOWN
from fastserve.errors import CodecError


@pytest.fixture(params=["py", "native"], scope="module")
def batch(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "py":
        return importlib.import_module("fastserve.batch.batch_py")
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    return importlib.import_module("fastserve._native.batch")


@given(
    pairs=st.lists(st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=40))),
    known=st.integers(0),
)
def test_what_is_filled_in_is_what_is_read(batch, pairs, known):
    keys, rows = [key for key, _ in pairs], [row for _, row in pairs]
    one = batch.ReadBatch(keys)
    assert (len(one), one.missing, one.keys(), one.missing_keys()) == (len(keys), len(keys), keys, keys)
    assert one.states() == [UNKNOWN] * len(keys) and one.rows() == [None] * len(keys)
    one.fill(rows, 7)
    one.own()
    assert (one.missing, one.missing_keys(), one.rows()) == (0, [], rows)
    assert one.states() == [ABSENT if row is None else FOUND for row in rows]
    assert one.fetched_us() == [7] * len(keys) and one.flags() == [0] * len(keys)
    assert one.oldest_us() == (7 if keys else None)
    assert one.size == sum(len(part or b"") for part in (*keys, *rows))


def test_a_range_is_read_alone(batch):
    one = batch.ReadBatch([b"a", b"b", b"c"])
    one.fill([b"1", None, b"3"], 5)
    assert one.keys(1, 3) == [b"b", b"c"]
    assert one.rows(1, 3) == [None, b"3"]
    assert one.states(1, 3) == [ABSENT, FOUND]


def test_rows_for_other_keys_than_the_missing_are_refused(batch):
    one = batch.ReadBatch([b"a", b"b"])
    with pytest.raises(CodecError, match="1 rows for 2 missing keys"):
        one.fill([b"x"], 0)
    one.fill([b"x", b"y"], 0)
    with pytest.raises(CodecError, match="2 rows for 0 missing keys"):
        one.fill([b"x", b"y"], 0)


@given(keys=st.lists(st.binary(max_size=300)))
def test_a_change_message_unpacks_to_its_keys(batch, keys):
    packed = b"".join(len(key).to_bytes(2, "little") + key for key in keys)
    assert batch.ReadBatch.from_packed(packed).keys() == keys


@pytest.mark.parametrize("packed", [b"\x01", b"\x01\x00", b"\x03\x00ab", b"\x00\x00\x05", b"\xff\xffab"])
def test_a_cut_change_message_is_refused(batch, packed):
    with pytest.raises(CodecError, match="cut short"):
        batch.ReadBatch.from_packed(packed)


def test_abandoning_is_remembered(batch):
    one = batch.ReadBatch([b"a"])
    assert not one.abandoned
    one.abandon()
    assert one.abandoned


def test_rows_are_taken_from_other_batches_where_they_lie(batch):
    one, other = batch.ReadBatch([b"a", b"b", b"c"]), batch.ReadBatch([b"d"])
    one.fill([b"1", None, b"3"], 5)
    other.fill([b"4"], 6)
    made = batch.ReadBatch([b"z"])
    made.take(one, 1, 3)
    made.take(other, 0, 1)
    made.take(batch.ReadBatch([b"e"]), 0, 1)
    del one, other
    assert made.keys() == [b"z", b"b", b"c", b"d", b"e"]
    assert made.rows() == [None, None, b"3", b"4", None] and made.missing == 2
    assert made.states() == [UNKNOWN, ABSENT, FOUND, FOUND, UNKNOWN]
    assert made.missing_keys() == [b"z", b"e"] and made.fetched_us() == [0, 5, 5, 6, 0]
    with pytest.raises(IndexError):
        made.take(batch.ReadBatch([b"e"]), 0, 2)
    with pytest.raises(IndexError):
        made.take(batch.ReadBatch([b"e"]), -1, 1)


def test_rows_can_be_forgotten(batch):
    one = batch.ReadBatch([b"a", b"b", b"c"])
    one.fill([b"1", None, b"3"], 5)
    one.forget([0, 1, 0])
    assert one.missing == 2 and one.rows() == [None, None, b"3"]
    assert one.states() == [UNKNOWN, UNKNOWN, FOUND]
    with pytest.raises(IndexError):
        one.forget([3])
