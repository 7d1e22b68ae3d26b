"""A view over a query, from its file in the repo to answers: applied, materialized, served, trained on, verified."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import FeatureStore
from fastserve.definitions.serde import canonical_json, from_dict
from fastserve.errors import ConfigError, DefinitionError, InvalidDataError, RequestError
from fastserve.timeutil import DAY_US, format_timestamp
from tests.support import make_repo

ROOT = Path(__file__).parents[3]
TIME = pa.timestamp("us", "UTC")
T0 = 1_700_006_400_000_000  # a midnight
HOUR_US = 3_600_000_000

VIEW = '''
from fastserve import Entity, FeatureView, Field, FileInput, PushSource, SQLSource, sql_view

user = Entity("user")

@sql_view(
    inputs={"trips": FileInput("trips/"), "cities": FileInput("cities.csv", columns={"tax": "float64"})},
    parameters={"least": 0.0},
    created_timestamp_column="created",
    entities=[user],
    schema=[Field("trips_day", "int64"), Field("paid", "float64"), Field("city", "string", default="?")],
    ttl="10d",
)
def spending() -> str:
    """What a user spent on a day."""
    return """
        SELECT user, date_trunc('day', moment) + INTERVAL 1 DAY AS event_timestamp, max(loaded) AS created,
               count(*) AS trips_day, sum(fare * (1 + tax)) AS paid, any_value(city) AS city
        FROM trips LEFT JOIN cities USING (city)
        WHERE fare > $least
        GROUP BY user, date_trunc('day', moment)
    """
'''


def trips(repo: Path, name: str, rows: list[tuple[str, int, float, str]], loaded: int | None = None) -> None:
    """(user, time, fare, city) as a file of the input, loaded at their times or at one time."""
    users, times, fares, cities = zip(*rows, strict=True)
    when = pa.array(times, pa.int64())
    known = when if loaded is None else pa.array([loaded] * len(rows), pa.int64())
    columns = {
        "user": users,
        "moment": when.cast(TIME),
        "fare": pa.array(fares, pa.float64()),
        "city": cities,
    }
    (repo / "trips").mkdir(exist_ok=True)
    pq.write_table(pa.table({**columns, "loaded": known.cast(TIME)}), repo / "trips" / name)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    repo = make_repo(tmp_path / "repo", VIEW, online_store="lmdb://.fastserve/online?sync=off")
    (repo / "cities.csv").write_text("city,tax\nRome,0.5\nOslo,0\n")
    first = [("a", T0 + HOUR_US, 10.0, "Rome"), ("a", T0 + 2 * HOUR_US, 2.0, "Rome"), ("b", T0, 8.0, "Oslo")]
    trips(repo, "1.parquet", first)
    trips(repo, "2.parquet", [("a", T0 + 3 * DAY_US, 4.0, "Oslo")])
    return FeatureStore(repo)


LABELS = pa.table(
    {
        "user": ["a", "a", "b", "a"],
        "event_timestamp": pa.array(
            [T0 + DAY_US, T0 + 5 * DAY_US, T0 + 2 * DAY_US, T0 + 20 * DAY_US], pa.int64()
        ).cast(TIME),
    }
)
TRAINED = {
    "trips_day": [2, 1, 1, None],
    "paid": [18.0, 4.0, 8.0, None],
    "city": ["Rome", "Oslo", "Oslo", "?"],
}


ONLINE = {"paid": [4.0, 8.0], "city": ["Oslo", "Oslo"]}


def trained(store: FeatureStore, **options: Any) -> dict[str, list[Any]]:
    features = [f"spending:{name}" for name in TRAINED]
    made = store.get_historical_features(LABELS, features, **options).to_arrow()
    return {name: made[name].to_pylist() for name in TRAINED}


def online(store: FeatureStore) -> dict[str, Any]:
    found = store.get_online_features(
        ["spending:paid", "spending:city"], {"user": ["a", "b"]}, now=T0 + 5 * DAY_US
    )
    return {name: values for name, values in found.to_dict().items() if name in ("paid", "city")}


def test_before_and_after_materialization(store: FeatureStore) -> None:
    store.apply()
    assert trained(store) == TRAINED
    summary = store.materialize(now=T0 + 5 * DAY_US)
    assert summary.status == "ok", summary.views[0].error
    assert trained(store, allow_incomplete=True) == TRAINED
    assert online(store) == ONLINE


def test_incremental_runs_see_late_rows(store: FeatureStore) -> None:
    store.apply()
    assert store.materialize_incremental(now=T0 + 5 * DAY_US).status == "ok"
    late = [("b", T0 + HOUR_US, 1.0, "Oslo"), ("b", T0 + 4 * DAY_US, 7.0, "Rome")]
    trips(store.config.repo, "3.parquet", late, loaded=T0 + 5 * DAY_US + 1)
    summary = store.materialize_incremental(now=T0 + 6 * DAY_US)
    assert summary.status == "ok"
    again = {name: values[:3] for name, values in trained(store, allow_incomplete=True).items()}
    assert again == {"trips_day": [2, 1, 2], "paid": [18.0, 4.0, 9.0], "city": ["Rome", "Oslo", "Oslo"]}
    assert store.materialize_incremental(now=T0 + 6 * DAY_US).views[0].rows_offline_new == 0


def test_a_changed_query_is_planned_and_a_new_version_holds_its_rows(store: FeatureStore) -> None:
    store.apply()
    store.materialize(now=T0 + 5 * DAY_US)
    path = store.config.repo / "features.py"
    path.write_text(path.read_text().replace("(1 + tax)", "(2 + tax)"))
    plan = store.plan()
    assert "source.query" in str(plan) and "materialized again" in str(plan)
    store.apply()
    store.materialize(now=T0 + 5 * DAY_US)
    assert online(store)["paid"] == [4.0, 8.0]  # the same times under the same version: what is stored holds
    path.write_text(path.read_text().replace('ttl="10d"', 'ttl="10d", version=2'))
    store.apply()
    assert store.materialize(now=T0 + 5 * DAY_US, views=["spending"]).status == "ok"
    assert online(store)["paid"] == [8.0, 16.0]


def test_pushes_go_beside_it(store: FeatureStore) -> None:
    path = store.config.repo / "features.py"
    path.write_text(
        path.read_text()
        + "\npushed = PushSource('taps', spending.source)\n"
        + "spending = FeatureView('spending', entities=[user], schema=spending.schema, source=pushed)\n"
    )
    store.apply()
    row = {
        "user": ["b"],
        "event_timestamp": pa.array([T0 + 36 * HOUR_US]).cast(TIME),
        "trips_day": [9],
        "paid": [99.0],
        "city": ["x"],
    }
    store.push("taps", pa.table(row), to="online_and_offline")
    assert trained(store)["paid"] == [18.0, 4.0, 99.0, 4.0]
    store.materialize(now=T0 + 5 * DAY_US)
    assert trained(store, allow_incomplete=True)["paid"] == [18.0, 4.0, 99.0, 4.0]
    assert online(store)["paid"] == [4.0, 99.0]


def test_a_backfill_a_refresh_and_a_reconciliation_ask_the_query(store: FeatureStore) -> None:
    store.apply()
    now = T0 + 5 * DAY_US
    summary = store.backfill("spending", now=now, workers=2)
    assert summary.status == "ok", summary.error
    assert summary.rows_offline_new == 3
    assert (trained(store, allow_incomplete=True), online(store)) == (TRAINED, ONLINE)
    assert store.backfill("spending", now=now).dates_done == 0
    switched = store.refresh("spending", now=now)
    assert switched.status == "ok", switched.error
    assert online(store) == ONLINE
    report = store.reconcile(["spending"], sample=None, now=now)
    assert {kind: n for kind, n in report.views[0].counts.items() if n} == {"equal": 2}


def test_a_backfill_of_a_changed_input_writes_its_dates_alone(store: FeatureStore) -> None:
    store.apply()
    now = T0 + 5 * DAY_US
    store.backfill("spending", now=now)
    trips(store.config.repo, "2.parquet", [("a", T0 + 3 * DAY_US, 5.0, "Oslo")], loaded=T0 + 4 * DAY_US)
    summary = store.backfill("spending", now=now)
    assert summary.status == "ok", summary.error
    assert summary.rows_offline_new == 1
    assert trained(store, allow_incomplete=True)["paid"] == [18.0, 5.0, 8.0, None]
    assert online(store)["paid"] == [5.0, 8.0]


def test_definitions_survive_the_registry(store: FeatureStore) -> None:
    from fastserve.control.definitions import build, shown

    store.apply()
    view = store.get_feature_view("spending")
    assert view.description == "What a user spent on a day."
    assert from_dict("feature_view", json.loads(canonical_json(view))) == view == store.load()[1]
    assert build([json.loads(json.dumps(shown(view)))]) == [view]
    assert store.plan().is_empty


# ---- apply ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sum(fare", "sum(fair", 'column "fair" not found'),
        ("count(*) AS trips_day", "'x' || count(*) AS n", "answers no column 'trips_day'"),
        ("any_value(city)", "any_value(fare)", "the column is double, the declared type is string"),
        ("FROM trips LEFT", "FROM trip LEFT", "line 4, column 14: 'trip' is no input"),
        ("$least", "$most", "parameter $most has no value"),
        ("GROUP BY user", "GROUP user", "syntax error"),
        ('Field("paid", "float64")', 'Field("paid", "timestamp")', "column 'paid'"),
    ],
)
def test_apply_refuses(store: FeatureStore, old: str, new: str, message: str) -> None:
    path = store.config.repo / "features.py"
    path.write_text(path.read_text().replace(old, new))
    for verb in (store.plan, store.apply):
        with pytest.raises(DefinitionError) as caught:
            verb()
        assert message.lower() in str(caught.value).lower()
        assert "FeatureView 'spending', query of source 'spending'" in str(caught.value)
    assert store.snapshot.revision == 0


def test_apply_reads_no_rows_and_needs_none(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    (store.config.repo / "cities.csv").unlink()
    with caplog.at_level(logging.WARNING):
        store.apply()
    assert "is checked in part only" in caplog.text
    with pytest.raises(InvalidDataError, match="no file or directory"):
        trained(store)
    summary = store.materialize(now=T0 + 5 * DAY_US)
    assert summary.status == "failed" and "cities.csv" in str(summary.views[0].error)


def test_a_label_time_cannot_be_as_of(store: FeatureStore) -> None:
    path = store.config.repo / "features.py"
    path.write_text(path.read_text().replace("fare > $least", "fare > $least AND moment < $as_of"))
    store.apply()
    with pytest.raises(RequestError, match="label_time is another for every label"):
        trained(store, cutoff="label_time")
    assert trained(store, cutoff=format_timestamp(T0 + 90 * 60 * 1_000_000))["paid"] == [
        15.0,
        15.0,
        8.0,
        None,
    ]


# ---- data sets -----------------------------------------------------------------------------------


def test_data_sets_note_inputs_and_verify(store: FeatureStore) -> None:
    store.apply()
    made = store.create_training_dataset(LABELS, "spent", ["spending:paid"])
    (used,) = made.manifest.views
    origin = used["origin"]
    assert origin["kind"] == "query" and len(origin["code_sha256"]) == 64 and "as_of_us" not in origin
    files = {one["name"]: [file["path"] for file in one["files"]] for one in origin["inputs"]}
    assert files == {"cities": ["cities.csv"], "trips": ["trips/1.parquet", "trips/2.parquet"]}
    assert "duckdb" in made.manifest.software
    assert store.create_training_dataset(LABELS, "spent", ["spending:paid"]).id == made.id

    trips(store.config.repo, "3.parquet", [("b", T0 + HOUR_US, 1.0, "Oslo")])  # later files are left out
    assert store.verify_training_dataset("spent").outcome == "equal"
    (store.config.repo / "cities.csv").write_text("city,tax\nRome,0.7\nOslo,0\n")
    report = store.verify_training_dataset("spent")
    assert report.outcome == "different"
    assert "input 'cities', file 'cities.csv'" in str(report) and "paid" in str(report)
    (store.config.repo / "trips/1.parquet").unlink()
    assert store.verify_training_dataset("spent").outcome == "cannot_be_remade"


# ---- stopping ------------------------------------------------------------------------------------


def test_sigterm_ends_a_query(store: FeatureStore) -> None:
    repo = store.config.repo
    path = repo / "features.py"
    slow = "sum(fare * (1 + tax)) * (SELECT sum(a.r * b.r) FROM range(1000000) a(r), range(1000000) b(r)) AS paid"
    path.write_text(path.read_text().replace("sum(fare * (1 + tax)) AS paid", slow))
    store.apply()
    command = [sys.executable, "-m", "materializer.cli", "run", "--incremental", "--repo", str(repo)]
    spill = repo / "tmp"
    spill.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(spill)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    deadline = time.monotonic() + 60
    while not any(spill.glob("fastserve-sql-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert json.loads(out)["views"][0]["status"] == "stopped"
    assert list(spill.iterdir()) == []


# ---- transforms ----------------------------------------------------------------------------------

TRANSFORM = '''
import pyarrow as pa
from fastserve import Entity, Field, FileInput, batch_feature_view

user = Entity("user")

@batch_feature_view(
    inputs={"trips": FileInput("trips/")},
    entities=[user],
    schema=[Field("paid", "float64")],
    ttl="10d",
)
def spending(trips: pa.Table, *, end) -> pa.Table:
    """What a user spent on a trip."""
    assert end.tzinfo is not None
    return trips.rename_columns(["user", "event_timestamp", "paid", "city", "loaded"])
'''


def test_a_transform_of_python(store: FeatureStore) -> None:
    path = store.config.repo / "features.py"
    path.write_text(TRANSFORM)
    store.apply()
    paid = ["spending:paid"]
    before = store.get_historical_features(LABELS, paid).to_arrow()["paid"].to_pylist()
    assert before == [2.0, 4.0, 8.0, None]
    made = store.create_training_dataset(LABELS, "spent", paid)
    assert made.manifest.views[0]["origin"]["kind"] == "transform"
    assert store.verify_training_dataset("spent").outcome == "equal"
    assert store.materialize(now=T0 + 5 * DAY_US).status == "ok"
    found = store.get_online_features(paid, {"user": ["a", "b"]}, now=T0 + 5 * DAY_US).to_dict()
    assert found["paid"] == [4.0, 8.0]
    view = store.get_feature_view("spending")
    assert view == store.load()[1] and view.source is not None and view.source.call is None  # type: ignore[union-attr]


def test_a_transform_that_changed_or_fails(store: FeatureStore) -> None:
    path = store.config.repo / "features.py"
    path.write_text(TRANSFORM)
    store.apply()
    path.write_text(TRANSFORM.replace("return trips", 'raise KeyError("fare")\n    return trips'))
    summary = store.materialize(now=T0 + 5 * DAY_US)
    assert (
        isinstance(summary.views[0].error, ConfigError) and "fastserve apply" in summary.views[0].error.hint
    )
    assert "source.code" in str(store.plan())
    store.apply()
    error = store.materialize(now=T0 + 5 * DAY_US).views[0].error
    assert isinstance(error, InvalidDataError) and "KeyError: 'fare'" in error.message
    assert f"{path}:" in error.where
    path.write_text(TRANSFORM.replace("return trips.rename", "return 7 or trips.rename"))
    store.apply()
    error = store.materialize(now=T0 + 5 * DAY_US).views[0].error
    assert error is not None and "gave a int" in str(error)
