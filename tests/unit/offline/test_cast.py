from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from fastserve.errors import InvalidDataError
from fastserve.offline.cast import cast_column
from fastserve.timeutil import MAX_US, MIN_US
from fastserve.types import arrow_type, parse_dtype
from tests.oracles.bits import bits

NS, US, S = pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("s")


def cast(values, dtype):
    made = cast_column(values, parse_dtype(dtype), lambda i: f"row {i}")
    assert made.type == arrow_type(parse_dtype(dtype))
    made.validate(full=True)
    return bits(made)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (pa.array([True, None]), "bool", [True, None]),
        (pa.array(["TRUE", "false", "1", "0"]), "bool", [True, False, True, False]),
        (pa.array([127, None, -128], pa.int8()), "int32", [127, None, -128]),
        (pa.array([2**31 - 1], pa.uint64()), "int32", [2**31 - 1]),
        (pa.array([2**53, -1.0, None]), "int64", [2**53, -1, None]),
        (pa.array([Decimal("7.00")]), "int64", [7]),
        (pa.array(["-9223372036854775808"]), "int64", [-(2**63)]),
        (pa.array(["7", "-5.0", None, "9007199254740993.00"]), "int64", [7, -5, None, 2**53 + 1]),
        (pa.array(["7.0"], pa.string_view()), "int32", [7]),
        (pa.array([2**53, None]), "float64", bits(pa.array([2.0**53, None]))),
        (pa.array([0.1], pa.float32()), "float64", bits(pa.array([0.10000000149011612]))),
        (pa.array([Decimal("0.1")]), "float64", bits(pa.array([0.1]))),
        (pa.array(["nan", "-0.0", "-inf"]), "float64", bits(pa.array(["nan", "-0.0", "-inf"]).cast(pa.float64()))),
        (pa.array([0.1, float("inf")]), "float32", bits(pa.array([0.1, float("inf")], pa.float32()))),
        (pa.array([2**24]), "float32", bits(pa.array([2.0**24], pa.float32()))),
        (pa.array(["a", None], pa.large_string()), "string", ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "string", ["a", None, "a"]),
        (pa.array([b"ab"], pa.binary(2)), "bytes", [b"ab"]),
        (pa.array(["é"]), "bytes", ["é".encode()]),
        (pa.array([1, None], S), "timestamp", [1_000_000, None]),
        (pa.array([1_000, -1_000], NS), "timestamp", [1, -1]),
        (pa.array([3], pa.timestamp("us", "Asia/Tokyo")), "timestamp", [3]),
        (pa.array([1], pa.date32()), "timestamp", [86_400_000_000]),
        (pa.array(["1970-01-02", "1970-01-01T00:00:00.000001Z", None, "1970-01-01 01:00:00.5+01:00"]), "timestamp",
         [86_400_000_000, 1, None, 500_000]),
        (pa.array(["1970-01-01T00:00:00.000001000"]), "timestamp", [1]),
        (pa.nulls(2), "list<float32>[2]", [None, None]),
        (pa.array([[1], None, []], pa.large_list(pa.int8())), "list<int64>", [(1,), None, ()]),
        (pa.array([[1.0, 2.0], None]), "list<int32>[2]", [(1, 2), None]),
        (pa.array([[9, 9], [1, 2], None], pa.list_(pa.int8(), 2))[1:], "list<int64>[2]", [(1, 2), None]),
        (pa.array([["a"], []], pa.list_view(pa.string())), "list<string>", [("a",), ()]),
    ],
)  # fmt: skip
def test_what_converts_converts_exactly(values, dtype, expected):
    assert cast(values, dtype) == expected


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (pa.array([1, 2, 2**31]), "int32", "row 2: 2147483648 does not fit int32"),
        (pa.array([1, 2**63], pa.uint64()), "int64", "row 1: 9223372036854775808"),
        (pa.array([1.0, 1.5]), "int64", "row 1: 1.5 does not fit int64"),
        (pa.array([1.0, float("nan")]), "int64", "row 1: nan .*\n.*write a null"),
        (pa.array([2.0**63]), "int64", "row 0"),
        (pa.array([0, 2**53 + 1]), "float64", "row 1: 9007199254740993 does not fit float64"),
        (pa.array([1.0, 1e300]), "float32", r"row 1: 1e\+300 does not fit float32"),
        (pa.array([Decimal("1"), Decimal("2.5")]), "int32", "row 1"),
        (pa.array(["7", "x"]), "int64", "row 1: 'x' .*\n.*declare string"),
        (pa.array(["7.5"]), "int64", "row 0: '7.5'"),
        (pa.array(["9223372036854775808.0"]), "int64", "row 0"),
        (pa.array(["yes"]), "bool", "row 0: 'yes'"),
        (pa.array([1_000, 1_001], NS), "timestamp", "row 1: 1970-01-01 00:00:00.000001001"),
        (pa.array([0, 2**62], S), "timestamp", "row 1"),
        (pa.array(["1970-01-01", "10/02/2020"]), "timestamp", "row 1: '10/02/2020' .*\n.*ISO 8601"),
        (pa.array(["1970-01-01T00:00:00.0000011"]), "timestamp", "row 0"),
        (
            pa.array([MIN_US, MAX_US, None, MIN_US - 1], US),
            "timestamp",
            r"row 3: 0000-12-31T23:59:59.999999Z is outside the years 1 to 9999\n.*a null says",
        ),
        (
            pa.array([MAX_US + 1], pa.timestamp("us", "UTC")),
            "timestamp",
            r"row 0: \+010000-01-01T00:00:00Z is outside",
        ),
        (
            pa.array([[0], None, [0, 2**62]], pa.list_(US)),
            "list<timestamp>",
            r"row 2: \+148108-.* is outside",
        ),
        (pa.array([1]), "timestamp", "the column is int64, the declared type is timestamp"),
        (pa.array([1]), "bool", "the column is int64"),
        (pa.array([1]), "string", "the column is int64"),
        (pa.array([True]), "int64", "the column is bool"),
        (pa.array(["a"]), "list<string>", "the column is string, the declared type is list<string>"),
        (pa.array([[1], [2, None]]), "list<int64>", "row 1: a list holds a null item"),
        (pa.array([[1], [2], [3, 2**40]]), "list<int32>", "row 2: 1099511627776"),
        (pa.array([[1, 2], None, [3]]), "list<int64>[2]", "row 2: the list has 1 items"),
    ],
)
def test_what_would_change_is_refused_naming_the_row(values, dtype, message):
    with pytest.raises(InvalidDataError, match=message):
        cast(values, dtype)


def test_the_first_bad_row_of_many_is_named():
    values = pa.array([1] * 100_000 + [2**40] + [1] * 70_000 + [2**41])
    with pytest.raises(InvalidDataError, match="row 100000: 1099511627776"):
        cast(values, "int32")
