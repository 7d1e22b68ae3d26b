"""Filters: SQL's expression language with SQL's null, checked against DuckDB; and what is refused."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from fastserve.definitions.filters import compile_filter
from fastserve.errors import DefinitionError
from fastserve.types import arrow_type, parse_dtype

TYPES = {"a": "int64", "b": "float64", "s": "string", "f": "bool", "ts": "timestamp", "i": "int32"}
ROWS: dict[str, list[Any]] = {
    "a": [1, None, 3, 4, -5, 2**62],
    "b": [1.5, 2.0, None, -0.0, 1e300, 4.0],
    "s": ["paid", None, "x", "p%", "", "PAID"],
    "f": [True, False, None, True, False, None],
    "ts": [0, 1, 2, None, 86_400_000_000, -1],
    "i": [1, 2, 3, None, 2**30, 0],
}
TABLE = pa.table({name: pa.array(ROWS[name], arrow_type(parse_dtype(kind))) for name, kind in TYPES.items()})
CONDITIONS = [
    "s = 'paid'",
    "\"s\" <> 'paid'",
    "s != 'paid' OR a = 3",
    "NOT s = 'paid'",
    "a NOT IN (1, NULL)",
    "a IN (1, NULL)",
    "NOT (a IN (1, 3))",
    "b BETWEEN 1 AND 1.5 OR b NOT BETWEEN -1 AND 4",
    "f",
    "NOT f",
    "f IS TRUE",
    "f IS NOT TRUE",
    "f IS FALSE",
    "s LIKE 'p%'",
    "s NOT LIKE 'p_id'",
    "s ILIKE 'P%'",
    "ts < TIMESTAMPTZ '1970-01-01 00:00:00.000002+00'",
    "ts >= TIMESTAMPTZ '1970-01-02T00:00:00Z'",
    "a + i * 2 - 1 > 5 AND i < 100",
    "-a < -2 AND a > 0",
    "a / 2 = 1.5",
    "s IS NULL OR b IS NOT NULL AND a = 1",
    "(s IS NULL OR b IS NOT NULL) AND a = 1",
    "i = 3000000000",
    "a = 2.5",
    "b > a",
    "a = NULL",
    "1 = 1",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_filter_keeps_what_duckdb_keeps(condition: str) -> None:
    made, _ = compile_filter(condition, TYPES, "filter")
    numbered = TABLE.append_column("row", pa.array(range(len(TABLE))))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", numbered)
        expected = [row for (row,) in connection.sql(f"SELECT row FROM given WHERE {condition}").fetchall()]
    assert numbered.filter(made)["row"].to_pylist() == expected


def test_the_columns_it_reads() -> None:
    assert compile_filter("i > 1 AND s = 'x' OR i IS NULL", TYPES, "filter")[1] == ("i", "s")


WRONG = {
    "s = 5": "no kernel matching input types",
    "a": "must evaluate to bool",
    "zz = 1": "unknown column 'zz'",
    "x.a = 1": "x.a is no column",
    "s =": "does not parse: an operand is missing",
    "s = 'x": "does not parse",
    "a = 1; drop table x": "is not for filters",
    "SELECT 1": "SELECT 1 is not for filters",
    "abs(a) = 1": "ABS(a) is not for filters",
    "a IN (SELECT 1)": "is not for filters",
    "s LIKE s": "is not for filters",
    "s LIKE 'a' ESCAPE 'x'": "is not for filters",
    "a BETWEEN SYMMETRIC 3 AND 1": "is not for filters",
    "s LIKE ANY ('a', 'b')": "is not for filters",
    "a IS DISTINCT FROM i": "is not for filters",
    "CAST(a AS VARCHAR) = '1'": "is not for filters",
    "a = 99999999999999999999": "beyond int64",
    "ts > TIMESTAMP 'soon'": "is not a time",
    "(" * 300 + "f" + ")" * 300: "is nested too deep",
    " AND ".join(["f"] * 300): "is nested too deep",
}


@pytest.mark.parametrize("condition", WRONG)
def test_what_is_refused(condition: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        compile_filter(condition, TYPES, "view 'v', filter")
    (problem,) = caught.value.problems
    assert WRONG[condition] in problem.message and problem.where.startswith("view 'v', filter")
    assert problem.fix


def test_where_it_does_not_parse() -> None:
    with pytest.raises(DefinitionError) as caught:
        compile_filter("a = 1\nAND s =", TYPES, "filter")
    assert caught.value.problems[0].where == "filter, line 2, column 7"
