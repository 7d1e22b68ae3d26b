"""Queries as sources: what they may say, what they can reach, and that their answer is one answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve.definitions import FeatureView, Field, FileInput, FileSource, SQLSource
from fastserve.errors import ConfigError, DefinitionError, FastserveError, InvalidDataError
from fastserve.offline.options import Pin, ReadOptions
from fastserve.offline.source import scan_source
from fastserve.offline.sql.engine import connected, lock
from fastserve.offline.sql.grammar import parse
from fastserve.timeutil import DAY_US
from tests.unit.offline.views import registered

TIME = pa.timestamp("us", "UTC")
FIELDS = (Field("n", "int64"), Field("amount", "float64"))
PLAIN = "SELECT user, event_timestamp, n, amount FROM trips"


def rows_of(folder: Path, source: SQLSource, **options: Any) -> list[dict[str, Any]]:
    """The canonical rows without their layout, times in microseconds."""
    rv = registered(FeatureView("v", entities=["user"], schema=FIELDS, source=source), {"user": "string"})
    made = []
    for batch in scan_source(source, rv, folder, **options):
        times = [i for i, f in enumerate(batch.schema) if f.type == TIME]
        arrays = [c.cast(pa.int64()) if i in times else c for i, c in enumerate(batch.columns)]
        made += pa.RecordBatch.from_arrays(arrays, batch.schema.names).drop_columns(["_layout"]).to_pylist()
    return made


def trips(
    folder: Path, rows: Sequence[tuple[str, int, int, float | None]], name: str = "trips.parquet"
) -> None:
    """(user, day, n, amount) as a file."""
    users, days, ns, amounts = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = pa.table(
        {
            "user": pa.array(users, pa.string()),
            "event_timestamp": pa.array([d * DAY_US for d in days], pa.int64()).cast(TIME),
            "n": pa.array(ns, pa.int64()),
            "amount": pa.array(amounts, pa.float64()),
        }
    )
    (folder / name).parent.mkdir(exist_ok=True)
    pq.write_table(table, folder / name)


ROWS = [("a", 1, 1, 1.5), ("b", 2, 2, 2.5), ("a", 3, 3, None), ("c", 4, 4, 4.0)]


# ---- what a query answers ------------------------------------------------------------------------


def test_a_join_of_parquet_and_csv(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    (tmp_path / "prices.csv").write_text('user,price\na,0.5\nb,NA\n"c",\n')
    source = SQLSource(
        "SELECT t.user, t.event_timestamp, sum(n) + $more AS n, max(price) AS amount\n"
        "FROM trips t LEFT JOIN prices USING (user) GROUP BY ALL",
        {
            "trips": FileSource("trips.parquet"),
            "prices": FileInput("prices.csv", columns={"price": "float64"}),
        },
        parameters={"more": 100},
    )
    found = [(r["user"], r["n"], r["amount"]) for r in rows_of(tmp_path, source)]
    assert found == [("a", 101, 0.5), ("b", 102, None), ("a", 103, 0.5), ("c", 104, None)]


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv", "delta"])
def test_inputs_of_every_format(tmp_path: Path, format: str) -> None:
    import deltalake
    import pyarrow.csv
    import pyarrow.feather

    trips(tmp_path, ROWS)
    table = pq.read_table(tmp_path / "trips.parquet")
    path = tmp_path / "t"
    columns = None
    if format == "parquet":
        pq.write_table(table, path)
    elif format == "arrow":
        pyarrow.feather.write_feather(table, path)
    elif format == "csv":
        pyarrow.csv.write_csv(table, path)
        columns = {"n": "int64", "amount": "float64", "event_timestamp": "timestamp"}
    else:
        deltalake.write_deltalake(path, table)
    expected = rows_of(tmp_path, SQLSource(PLAIN, {"trips": "trips.parquet"}))
    assert (
        rows_of(tmp_path, SQLSource(PLAIN, {"trips": FileInput("t", format=format, columns=columns)}))
        == expected
    )
    assert len(expected) == 4


def test_partitions_and_columns_of_later_files(tmp_path: Path) -> None:
    trips(tmp_path, ROWS[:1], "t/n2=7/a.parquet") if (tmp_path / "t").mkdir() is None else None
    table = pq.read_table(tmp_path / "t/n2=7/a.parquet", partitioning=None)
    (tmp_path / "t/n2=8").mkdir()
    pq.write_table(table.append_column("extra", pa.array([9], pa.int64())), tmp_path / "t/n2=8/b.parquet")
    text = "SELECT user, event_timestamp, n2::BIGINT + coalesce(extra, 0) AS n, amount FROM t"
    assert sorted(r["n"] for r in rows_of(tmp_path, SQLSource(text, {"t": "t"}))) == [7, 17]


def test_the_window_reaches_the_query(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    told = (
        "SELECT 'a' AS \"user\", event_timestamp, epoch_us($start) AS n, epoch_us($end)::DOUBLE AS amount"
        " FROM trips"
    )
    source = SQLSource(told, {"trips": "trips.parquet"})
    found = rows_of(tmp_path, source, start_us=2 * DAY_US, end_us=3 * DAY_US)
    assert [(r["event_timestamp"], r["n"], r["amount"]) for r in found] == [
        (2 * DAY_US, 2 * DAY_US, 3.0 * DAY_US)
    ]


@pytest.mark.parametrize(
    ("query", "created", "expected"),
    [
        ("$start", "", 1 * DAY_US + 1),  # created at the event time: so far back rows may be late
        ("$start", "event_timestamp", None),  # any event time may have been created since
        ("least($start, $created_after + INTERVAL 9 YEAR)", "event_timestamp", 3 * DAY_US),
    ],
)
def test_start_misses_no_late_row(tmp_path: Path, query: str, created: str, expected: int | None) -> None:
    trips(tmp_path, ROWS[3:])
    text = f"SELECT 'a' AS \"user\", event_timestamp, epoch_us({query}) AS n, 0 AS amount FROM trips"
    source = SQLSource(text, {"trips": "trips.parquet"}, created_timestamp_column=created)
    (row,) = rows_of(tmp_path, source, start_us=3 * DAY_US, created_after_us=DAY_US)
    assert row["n"] == expected if expected is not None else row["n"] < 0


def test_as_of_is_the_present_of_the_run(tmp_path: Path) -> None:
    trips(tmp_path, ROWS[:1])
    text = "SELECT user, event_timestamp, epoch_us($as_of) AS n, amount FROM trips"
    found = rows_of(
        tmp_path, SQLSource(text, {"trips": "trips.parquet"}), options=ReadOptions(as_of_us=12345)
    )
    assert found[0]["n"] == 12345


def test_a_pinned_input_has_no_other_files(tmp_path: Path) -> None:
    for i, row in enumerate(ROWS):
        trips(tmp_path, [row], f"t/{i}.parquet")
    options = ReadOptions(pins={"t": Pin(frozenset(["t/1.parquet", "t/3.parquet"]))})
    found = rows_of(tmp_path, SQLSource(PLAIN.replace("trips", "t"), {"t": "t"}), options=options)
    assert [r["n"] for r in found] == [2, 4]


ROW = st.tuples(
    st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 2), st.one_of(st.none(), st.floats(width=32))
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, max_size=12), seed=st.integers(0, 9))
def test_row_order_does_not_matter(tmp_path: Path, rows: list[Any], seed: int) -> None:
    source = SQLSource(PLAIN, {"trips": "trips.parquet"})
    answers = []
    for _ in range(2):
        trips(tmp_path, rows)
        answers.append(rows_of(tmp_path, source))
        random.Random(seed).shuffle(rows)
    assert repr(answers[0]) == repr(answers[1])
    times = [r["event_timestamp"] for r in answers[0]]
    assert times == sorted(times)


def test_ties_do_not_depend_on_the_columns_read(tmp_path: Path) -> None:
    trips(tmp_path, [("a", 1, 2, 1.0), ("a", 1, 1, 2.0), ("a", 1, 1, None)])
    source = SQLSource(PLAIN, {"trips": "trips.parquet"})
    whole = rows_of(tmp_path, source)
    assert [(r["n"], r["amount"]) for r in whole] == [(1, None), (1, 2.0), (2, 1.0)]
    assert [r["amount"] for r in rows_of(tmp_path, source, columns=["amount"])] == [None, 2.0, 1.0]


def test_float_sums_are_the_same_every_time(tmp_path: Path) -> None:
    rng = random.Random(5)
    for i in range(4):
        rows = [("a", 1, n, rng.uniform(-1e9, 1e9) * 10.0 ** rng.randint(-9, 9)) for n in range(20_000)]
        trips(tmp_path, rows, f"t/{i}.parquet")
    text = "SELECT user, event_timestamp, count(*) AS n, sum(amount) AS amount FROM t GROUP BY ALL"
    found = {repr(rows_of(tmp_path, SQLSource(text, {"t": "t"}))) for _ in range(4)}
    assert len(found) == 1


# ---- what it may not say -------------------------------------------------------------------------

REFUSED = {
    "syntax": ("SELECT n\nFROM trips WHERE WHERE", "line 2, column 18"),
    "two": ("SELECT 1; SELECT 2", "not one SELECT"),
    "copy": ("COPY trips TO '/tmp/x.csv'", "no SELECT"),
    "attach": ("ATTACH '/tmp/x.db'", "no SELECT"),
    "install": ("INSTALL httpfs", "no SELECT"),
    "load": ("LOAD '/tmp/x.so'", "no SELECT"),
    "pragma": ("PRAGMA database_list", "no SELECT"),
    "set": ("SET lock_configuration = false", "no SELECT"),
    "create": ("CREATE TABLE x AS SELECT 1", "no SELECT"),
    "insert": ("INSERT INTO trips SELECT * FROM trips", "no SELECT"),
    "call": ("CALL pragma_version()", "no SELECT"),
    "escape": ("SELECT 1) AS x; COPY trips TO '/tmp/x.csv' --", "syntax error"),
    "comment": ("SELECT 1; -- and no more", "not one SELECT"),
    "file": ("SELECT * FROM '/etc/passwd'", "'/etc/passwd' is no input"),
    "csv": ("SELECT * FROM read_csv('/etc/passwd')", "read_csv() is not for queries"),
    "text": ("SELECT * FROM trips, read_text('/etc/passwd')", "read_text()"),
    "parquet": ("SELECT * FROM read_parquet('http://127.0.0.1/x')", "read_parquet()"),
    "glob": ("SELECT (SELECT count(*) FROM glob('/*'))", "glob()"),
    "query": ("SELECT * FROM query('SELECT 1')", "query()"),
    "query_table": ("SELECT * FROM query_table('trips')", "query_table()"),
    "pointer": ("SELECT * FROM arrow_scan(1, 2, 3)", "arrow_scan()"),
    "settings": ("SELECT * FROM duckdb_settings()", "duckdb_settings()"),
    "catalog": ("SELECT * FROM duckdb_views", "'duckdb_views' is no input"),
    "schema": ("SELECT * FROM information_schema.tables", "'information_schema.tables' is no input"),
    "cte": ("WITH duckdb_views AS (SELECT 1) SELECT * FROM trips", "the engine's own"),
    "show": ("SHOW TABLES", "SHOW_REF"),
    "clock": ("SELECT *, now() FROM trips", "line 1, column 11: now goes by the clock"),
    "clock_bare": ("SELECT current_timestamp FROM trips", "current_timestamp goes by the clock"),
    "clock_deep": ("SELECT * FROM trips WHERE n IN (SELECT epoch(today()) FROM trips)", "today"),
    "age": ("SELECT age(event_timestamp) FROM trips", "age() of one time"),
    "chance": ("SELECT * FROM trips ORDER BY random()", "random"),
    "lambda": ("SELECT list_transform([n], x -> x + random()) FROM trips", "random"),
    "uuid": ("SELECT uuid() FROM trips", "uuid"),
    "sample": ("SELECT * FROM trips USING SAMPLE 3", "random sample"),
    "setting": ("SELECT current_setting('temp_directory') FROM trips", "current_setting"),
    "parameter": ("SELECT $nothing FROM trips", "parameter $nothing has no value"),
    "positional": ("SELECT ? FROM trips", "parameter $1 has no value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    text, message = REFUSED[name]
    trips(tmp_path, ROWS)
    with pytest.raises(DefinitionError) as caught:
        rows_of(tmp_path, SQLSource(text, {"trips": "trips.parquet"}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{PLAIN};",
        "FROM trips",
        "WITH x AS (FROM trips) SELECT * FROM x",
        "SELECT x.* FROM (SELECT * FROM Trips) x, range(1)",
        "SELECT t.*, u.now FROM trips t JOIN (SELECT 1 AS now, 2 AS today) u ON true",
        "SELECT t.* FROM trips t ASOF JOIN trips b ON t.n = b.n AND t.event_timestamp >= b.event_timestamp",
        "SELECT * FROM trips UNION ALL SELECT * FROM trips -- the end",
    ],
)
def test_allowed(tmp_path: Path, text: str) -> None:
    trips(tmp_path, ROWS)
    assert len(rows_of(tmp_path, SQLSource(text, {"trips": "trips.parquet"}))) >= 4


def test_a_parameter_nobody_uses(tmp_path: Path) -> None:
    with connected("64MiB", tmp_path) as connection:
        parsed = parse(connection, SQLSource(PLAIN, {"trips": "t"}, parameters={"x": 1}), "here")
    assert [p.message for p in parsed.problems] == ["parameter 'x' is not used"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM secret",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/x.db'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 4",
        "PRAGMA threads = 4",
        "CREATE SECRET (TYPE s3)",
    ],
)
def test_the_engine_itself_reaches_nothing(tmp_path: Path, text: str) -> None:
    """The second wall: what the grammar did not stop would fail here."""
    import duckdb

    secret = pa.table({"a": [1]})  # a variable that a query by its name must not find
    (tmp_path / "spill").mkdir()  # the one directory that it may use
    with connected("64MiB", tmp_path / "spill") as connection:
        lock(connection)
        with pytest.raises(duckdb.Error):
            connection.sql(text.format(folder=tmp_path)).fetchall()
    assert secret.num_rows == 1 and list(tmp_path.iterdir()) == [tmp_path / "spill"]


# ---- failures ------------------------------------------------------------------------------------


def failure(folder: Path, source: SQLSource, **options: Any) -> FastserveError:
    with pytest.raises(FastserveError) as caught:
        rows_of(folder, source, **options)
    return caught.value


def test_what_an_answer_lacks(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    error = failure(
        tmp_path, SQLSource("SELECT user, event_timestamp, n FROM trips", {"trips": "trips.parquet"})
    )
    assert isinstance(error, InvalidDataError) and "has no column 'amount'" in str(error)
    error = failure(tmp_path, SQLSource(PLAIN.replace("n,", "n + 0.5 AS n,"), {"trips": "trips.parquet"}))
    assert "does not fit int64" in str(error) and "column 'n', row 0" in str(error)
    null = "SELECT user, nullif(event_timestamp, event_timestamp) AS event_timestamp, n, amount FROM trips"
    assert "event time is null" in str(
        failure(tmp_path, SQLSource(null, {"trips": "trips.parquet"}), start_us=5)
    )


def test_a_failing_query_says_where(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    text = "SELECT user, event_timestamp, n,\n  ('x' || n)::DOUBLE AS amount FROM trips"
    error = failure(tmp_path, SQLSource(text, {"trips": "trips.parquet"}, name="mine"))
    assert error.where == "source 'mine'" and "Could not convert" in error.message


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    assert "no file or directory" in str(failure(tmp_path, SQLSource(PLAIN, {"trips": "trips.parquet"})))
    (tmp_path / "t.csv").write_text("user,event_timestamp,n,amount\na,2020-01-01,x,1\n")
    columns = {"n": "int64", "event_timestamp": "timestamp"}
    error = failure(tmp_path, SQLSource(PLAIN, {"trips": FileInput("t.csv", columns=columns)}))
    assert "t.csv', column 'n', row 0" in error.where
    error = failure(tmp_path, SQLSource(PLAIN, {"trips": FileInput("t.csv", columns={"m": "int64"})}))
    assert "has no column 'm'" in error.message


def test_memory_is_bounded_and_said(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    text = 'SELECT any_value(user) AS "user", any_value(event_timestamp) AS event_timestamp, 1 AS n,'
    text += " len(list(r || 'xxxxxxxxxxxxxxxxxxxxxxxx'))::DOUBLE AS amount FROM trips, range(3000000) x(r)"
    source = SQLSource(text, {"trips": "trips.parquet"})
    error = failure(tmp_path, source, options=ReadOptions(memory="32MiB"))
    assert "sql_memory" in error.hint
    error = failure(tmp_path, source, options=ReadOptions(memory="lots"))
    assert isinstance(error, ConfigError) and error.where == "sql_memory"


def test_a_run_that_stops_ends_the_query(tmp_path: Path) -> None:
    trips(tmp_path, ROWS)
    text = "SELECT user, event_timestamp, n, (SELECT sum(a.r * b.r) FROM range(1000000) a(r), range(1000000) b(r))"
    source = SQLSource(f"{text}::DOUBLE AS amount FROM trips", {"trips": "trips.parquet"})

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # the query itself would take many minutes
        rows_of(tmp_path, source, options=ReadOptions(check=stop))


def test_without_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    trips(tmp_path, ROWS)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    error = failure(tmp_path, SQLSource(PLAIN, {"trips": "trips.parquet"}))
    assert isinstance(error, ConfigError) and error.hint == "pip install 'fastserve[sql]'"
