"""PostgreSQL as an input: a real server, one snapshot, read only, and no password anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from fastserve import FeatureStore
from fastserve.definitions import FeatureView, Field, PostgresInput, SQLSource
from fastserve.definitions.serde import canonical_json
from fastserve.errors import ConfigError, FastserveError, InvalidDataError
from fastserve.offline.options import ReadOptions, Spooled
from fastserve.offline.source import scan_source
from tests.servers import PG_BIN, PostgresServer, start_postgres
from tests.support import make_repo
from tests.unit.offline.views import registered

pytestmark = pytest.mark.skipif(not PG_BIN.exists(), reason="no PostgreSQL")
FIELDS = (Field("n", "int64"), Field("amount", "float64"))
QUERY = 'SELECT user_name AS "user", paid_at AS event_timestamp, n, amount FROM pays'


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with start_postgres() as made:
        yield made


@pytest.fixture
def url(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with three payments, whose URL is in $WAREHOUSE."""
    made = server.make_database()
    with psycopg.connect(made, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE pays (user_name text, paid_at timestamptz, n bigint, amount numeric(9, 2))"
        )
        connection.execute(
            "INSERT INTO pays VALUES ('a', '2024-01-01T00:00:00Z', 1, 1.25), ('b', '2024-01-02T03:00:00+02', 2, NULL),"
            " ('a', '2024-01-03T00:00:00Z', 3, 3.5)"
        )
    monkeypatch.setenv("WAREHOUSE", made)
    return made


def read(folder: Path, source: SQLSource, **options: Any) -> list[tuple[Any, ...]]:
    rv = registered(FeatureView("v", entities=["user"], schema=FIELDS, source=source), {"user": "string"})
    rows = [row for batch in scan_source(source, rv, folder, **options) for row in batch.to_pylist()]
    return [(r["user"], r["event_timestamp"].isoformat(), r["n"], r["amount"]) for r in rows]


A, B, C = (
    ("a", "2024-01-01T00:00:00+00:00", 1, 1.25),
    ("b", "2024-01-02T01:00:00+00:00", 2, None),
    ("a", "2024-01-03T00:00:00+00:00", 3, 3.5),
)


@pytest.mark.parametrize(
    "given",
    [
        PostgresInput("WAREHOUSE", table="pays"),
        PostgresInput("WAREHOUSE", table="public.pays"),
        PostgresInput("WAREHOUSE", query="SELECT user_name, paid_at, n, amount::float8 FROM pays;"),
    ],
)
def test_tables_and_queries(tmp_path: Path, url: str, given: PostgresInput) -> None:
    source = SQLSource(QUERY.replace("amount", "amount::DOUBLE AS amount"), {"pays": given})
    assert read(tmp_path, source) == [A, B, C]
    assert list(tmp_path.iterdir()) == []


def test_the_window_is_told_to_postgres(tmp_path: Path, url: str) -> None:
    text = "SELECT * FROM pays WHERE paid_at >= current_setting('fastserve.start')::timestamptz"
    counted: list[tuple[str, Spooled]] = []
    options = ReadOptions(spooled=lambda name, read: counted.append((name, read)))
    source = SQLSource(QUERY, {"pays": PostgresInput("WAREHOUSE", query=text)})
    start_us = 1_704_157_200_000_000  # B's time
    assert read(tmp_path, source, start_us=start_us, options=options) == [B, C]
    assert [(name, one.rows) for name, one in counted] == [("pays", 2)]


def test_inputs_of_one_database_are_one_snapshot(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is written after the first input was read is in neither."""
    from fastserve.offline import inputs

    spool = inputs.spool

    def spool_and_write(*args: Any) -> Any:
        made = spool(*args)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO pays VALUES ('z', now(), 9, 9)")
        return made

    monkeypatch.setattr(inputs, "spool", spool_and_write)
    pays = PostgresInput("WAREHOUSE", table="pays")
    text = f"{QUERY} WHERE user_name IN (SELECT user_name FROM others)"
    assert read(tmp_path, SQLSource(text, {"pays": pays, "others": pays})) == [A, B, C]


def test_it_is_read_only(tmp_path: Path, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION sneak() RETURNS SETOF pays LANGUAGE sql AS 'DELETE FROM pays RETURNING *'"
        )
    source = SQLSource(QUERY, {"pays": PostgresInput("WAREHOUSE", query="SELECT * FROM sneak()")})
    with pytest.raises(InvalidDataError, match="read-only transaction"):
        read(tmp_path, source)


def test_it_cannot_leave_its_select(tmp_path: Path, url: str) -> None:
    """The driver asks by COPY (…) TO STDOUT; a parenthesis in the text must not close that one."""
    program = f"SELECT * FROM pays) TO PROGRAM 'touch /tmp/{tmp_path.name}' --"
    source = SQLSource(QUERY, {"pays": PostgresInput("WAREHOUSE", query=program)})
    with pytest.raises(InvalidDataError, match="syntax error"):
        read(tmp_path, source)
    assert not Path(f"/tmp/{tmp_path.name}").exists()


def test_failures_say_what_and_hide_the_password(
    tmp_path: Path, url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(given: PostgresInput) -> FastserveError:
        with pytest.raises(FastserveError) as caught:
            read(tmp_path, SQLSource(QUERY, {"pays": given}))
        assert "s3cret" not in str(caught.value)
        return caught.value

    assert 'relation "nothing" does not exist' in failure(PostgresInput("WAREHOUSE", table="nothing")).message
    unset = failure(PostgresInput("NO_SUCH_VARIABLE", table="pays"))
    assert isinstance(unset, ConfigError) and "NO_SUCH_VARIABLE is not set" in unset.message
    monkeypatch.setenv("WAREHOUSE", url.replace(str(server.port), "1"))
    assert "refused" in failure(PostgresInput("WAREHOUSE", table="pays")).message
    monkeypatch.setenv("WAREHOUSE", url.replace("s3cret", "s3cret-and-wrong"))
    assert "password authentication failed" in failure(PostgresInput("WAREHOUSE", table="pays")).message


def test_stopping_ends_the_query_in_the_server(tmp_path: Path, url: str) -> None:
    source = SQLSource(
        QUERY, {"pays": PostgresInput("WAREHOUSE", query="SELECT pays.* FROM pays, pg_sleep(600)")}
    )

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, source, options=ReadOptions(check=stop))


REPO = '''
from fastserve import Entity, FeatureView, Field, PostgresInput, SQLSource

user = Entity("user")
source = SQLSource(
    """SELECT user_name AS "user", paid_at AS event_timestamp, n, amount FROM pays""",
    {"pays": PostgresInput("WAREHOUSE", table="pays")},
)
view = FeatureView(
    "pays",
    entities=[user],
    schema=[Field("n", "int64"), Field("amount", "float64")],
    source=source,
)
'''


def test_from_a_repo_to_a_data_set(tmp_path: Path, url: str) -> None:
    store = FeatureStore(make_repo(tmp_path, REPO, online_store="memory://"))
    store.apply()
    assert "s3cret" not in canonical_json(store.get_feature_view("pays"))
    times = pa.array(["2024-01-02T00:00:00Z", "2024-01-05T00:00:00Z"]).cast(pa.timestamp("us", "UTC"))
    labels = pa.table({"user": ["a", "a"], "event_timestamp": times})
    made = store.create_training_dataset(labels, "paid", ["pays:amount"])
    assert made.to_arrow()["amount"].to_pylist() == [1.25, 3.5]
    (origin,) = made.manifest.views[0]["origin"]["inputs"]
    assert (origin["kind"], origin["uri"], origin["rows"]) == ("postgres", "$WAREHOUSE pays", 3)
    assert "s3cret" not in json.dumps(made.manifest.to_dict())
    assert store.verify_training_dataset("paid").outcome == "equal"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM pays WHERE n = 3")
    report = store.verify_training_dataset("paid")
    assert report.outcome == "different" and "it had 3 rows, now 2" in str(report)
    assert store.materialize(target="offline").status == "ok"


def test_apply_asks_postgres_for_types(tmp_path: Path, url: str) -> None:
    repo = make_repo(tmp_path, REPO.replace("n, amount", "n, amont"), online_store="memory://")
    with pytest.raises(ValueError, match=r'(?i)column "amont" not found'):
        FeatureStore(repo).apply()
