"""`fastserve verify` of answers read now: equal while nobody interferes, and each interference by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from fastserve import FeatureStore
from fastserve.cli.main import cli
from fastserve.codec.status import Status
from fastserve.offline.answers import TIME, Answers
from fastserve.serving.answers import read_now
from fastserve.serving.computing import Computing
from fastserve.timeutil import MICROS, format_timestamp
from materializer.served.run import Judgement, verify_answers
from tests.integration.served.kit import CARDS, FEATURES, add, make, overwrite, run, times
from tests.support import NOW_US

MINUTE = 60 * MICROS
HOUR = 60 * MINUTE


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return make(tmp_path)


def kinds(report: Any, feature: str) -> dict[str, int]:
    return {kind: n for kind, n in report.features[feature].items() if kind != "equal"}


def test_all_is_equal_as_time_goes_on(store: FeatureStore) -> None:
    for later in (0, 7 * MINUTE + 1, 40 * MINUTE):
        report = store.verify_answers(sample=1_000, seed=1, now=NOW_US + later)
        assert report.counts == {"equal": report.values}, str(report)
        assert report.ok and report.values == report.answers * 13 and report.answers >= 0.9 * CARDS
    assert len(report.features) == 13


def test_what_history_gets_later_is_late_or_a_correction(store: FeatureStore) -> None:
    repo = store.config.repo
    now = NOW_US + MINUTE
    add(repo / "profiles.parquet", card_id=14, ts=NOW_US, created=now + MINUTE, mean=1.5)
    newest = NOW_US + 5
    add(repo / "profiles.parquet", card_id=12, ts=newest, created=newest, mean=3.0)
    run(store, NOW_US + 10)
    add(repo / "profiles.parquet", card_id=12, ts=newest, created=now + MINUTE, mean=4.0)
    add(
        repo / "payments.parquet",
        card_id=13,
        ts=NOW_US - MINUTE,
        created=now + 1,
        id="new",
        amount=9.0,
        status="paid",
    )
    report = store.verify_answers(service="scoring", seed=1, now=now)
    assert kinds(report, "profile@v1:mean") == {"late": 1, "correction": 1}, str(report)
    assert kinds(report, "spend@v1:amount_sum_1h") == {"late": 1}
    assert kinds(report, "spend@v1:count_1h") == {"late": 1}
    assert kinds(report, "unusual@v1:times_mean") == {"late": 1, "correction": 1}
    assert set(kinds(report, "unusual@v1:share")) <= {"late", "correction"}
    assert not report.ok
    assert store.verify_answers(seed=1, now=now, allow=("late", "correction")).ok
    late = next(e for e in report.examples if e.feature == "profile@v1:mean" and e.kind == "late")
    assert late.entity["card_id"] == 14 and late.rebuilt == 1.5
    assert "correction" in str(report) and "card_id=14" in str(report)


def test_what_is_not_online_yet_lags_for_the_grace(store: FeatureStore) -> None:
    repo = store.config.repo
    add(repo / "profiles.parquet", card_id=14, ts=NOW_US + 1, created=NOW_US + 1, mean=1.5)
    add(
        repo / "payments.parquet",
        card_id=13,
        ts=NOW_US + 1,
        created=NOW_US + 1,
        id="new",
        amount=9.0,
        status="paid",
    )
    now = NOW_US + 2 * MINUTE
    report = store.verify_answers(seed=1, now=now)
    assert kinds(report, "profile@v1:mean") == {"lag": 1}, str(report)
    assert kinds(report, "spend@v1:amount_sum_10m") == {"lag": 1}
    assert kinds(report, "unusual@v1:hours") == {"lag": 1}
    strict = store.verify_answers(seed=1, now=now, grace="1m")
    assert kinds(strict, "profile@v1:mean") == {"unexplained": 1}
    assert kinds(strict, "spend@v1:amount_sum_10m") == {"unexplained": 1}


def test_rows_that_history_never_had(store: FeatureStore) -> None:
    overwrite(store, 11, {"mean": -1.0, "home": "nowhere"}, NOW_US - MINUTE)
    overwrite(store, 12, None)
    now = NOW_US + MINUTE
    report = store.verify_answers(["profile:mean", "profile:home", "spend:count_1h"], seed=1, now=now)
    assert kinds(report, "profile@v1:mean") == {"unexplained": 1, "corrupt": 1}
    assert kinds(report, "spend@v1:count_1h") == {"corrupt": 1}
    assert {e.entity["card_id"] for e in report.examples} == {11, 12}
    assert not store.verify_answers(["profile:mean"], seed=1, now=now, allow=["corrupt"]).ok


def test_a_row_that_had_expired(store: FeatureStore) -> None:
    snapshot = store.snapshot
    parts = tuple(snapshot.service_parts("scoring"))
    asked = {"card_id": list(range(CARDS)), "price": [1.0] * CARDS, "shop": ["a"] * CARDS}
    (answers,) = read_now(
        store.config.online_store,
        snapshot,
        parts,
        asked,
        service="scoring",
        now_us=NOW_US,
        computing=Computing(store.config.repo),
    )
    table = answers.table
    at = table.column_names.index(TIME)
    later = Answers(answers.asked, table.set_column(at, TIME, times([NOW_US + 2 * HOUR] * CARDS)))
    report = verify_answers(store.config, store.registry, [later], Judgement())
    statuses = answers.statuses("home")
    assert kinds(report, "profile@v1:home") == {"ttl": int((statuses == Status.PRESENT).sum())} != {"ttl": 0}
    assert set(kinds(report, "unusual@v1:times_mean")) == {"ttl"}


def test_what_is_personal_is_not_told(tmp_path: Path) -> None:
    store = make(tmp_path, features=FEATURES.replace('"int64")', '"int64", tags={"pii": "true"})', 1))
    overwrite(store, 11, {"home": "her address"}, NOW_US - 1)
    report = store.verify_answers(["profile:home"], seed=1, now=NOW_US)
    (example,) = report.examples
    assert example.kind == "unexplained" and example.served is None and "pii" in example.note
    assert example.entity["card_id"] != 11 and "address" not in str(report)


def test_history_is_given_time(store: FeatureStore) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        add(store.config.repo / "profiles.parquet", card_id=14, ts=NOW_US, created=NOW_US, mean=1.5)

    overwrite(store, 14, {"mean": 1.5}, NOW_US)
    with patch("fastserve.verifying.sleep", sleep):
        report = store.verify_answers(["profile:mean"], seed=1, now=NOW_US, settle="7s")
    assert report.ok and waits == [7.0], str(report)


def test_what_has_no_history_does_not_hide_the_rest(tmp_path: Path) -> None:
    features = (
        FEATURES
        + """
pushed = FeatureView("pushed", entities=[card], schema=[Field("x", "int64")])
alone = FeatureService("alone", [pushed])
"""
    )
    store = make(tmp_path, features=features)
    report = store.verify_answers(seed=1, now=NOW_US)
    assert report.errors.keys() == {"alone"} and "has no history" in report.errors["alone"] and not report.ok
    assert report.counts == {"equal": report.values} and report.values > CARDS
    assert "error: alone" in str(report) and report.to_dict()["errors"] == report.errors


def test_the_command(store: FeatureStore) -> None:
    repo = str(store.config.repo)
    at = ["--repo", repo, "--now", format_timestamp(NOW_US), "--seed", "3", "--sample", "20"]
    done = CliRunner().invoke(cli, ["verify", *at, "--service", "scoring"])
    assert done.exit_code == 0 and "equal: 20 rows" in done.output and "seed 3" in done.output, done.output
    overwrite(store, 11, {"mean": -1.0}, NOW_US - 1)
    done = CliRunner().invoke(cli, ["verify", *at, "--json", "--sample", "1000", "profile:mean"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["counts"]["unexplained"] == 1 and told["examples"][0]["served"] == -1.0
    for wrong in (["--allow", "nothing"], ["--log", repo, "--now", "2024-01-01"], ["--service", "none"]):
        with pytest.raises(Exception, match=r"unknown kind|neither features|unknown feature service"):
            CliRunner().invoke(cli, ["verify", "--repo", repo, *wrong], catch_exceptions=False)


def test_a_view_of_other_entities_that_has_no_rows(tmp_path: Path) -> None:
    """Nothing of its can be drawn; what nobody knows is asked for in its place."""
    more = """
shop = Entity("shop", "shop_id", "string")
rating = FeatureView("rating", entities=[shop], source=FileSource("ratings.parquet", "ts"),
    schema=[Field("stars", "float64")], offline=False)
scoring = FeatureService("scoring", [profile, rating])
"""
    none = {"shop_id": pa.array([], pa.string()), "ts": times([]), "stars": pa.array([], pa.float64())}
    pq.write_table(pa.table(none), tmp_path / "ratings.parquet")
    store = make(tmp_path, features=FEATURES[: FEATURES.index("scoring = ")] + more)
    report = store.verify_answers(service="scoring", seed=1, now=NOW_US)
    assert report.ok and report.counts == {"equal": 7 * report.answers}, str(report)
