"""A log of what real servers answered, in every form, verified: equal, and what changes afterwards by its name."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import FeatureStore
from fastserve.client import Client
from fastserve.errors import ConfigError, InvalidDataError, RequestError
from fastserve.offline.answers import TIME, Answers, Asked, read_answers, write_answers
from fastserve.serving.answer_log import AnswerLog, AnswerLogSettings
from fastserve.timeutil import MICROS, format_timestamp
from tests.integration.served.kit import CARDS, add, make, overwrite, times
from tests.servers import serving, start_redis
from tests.support import NOW_US

ROOT = Path(__file__).resolve().parents[3]
MINUTE = 60 * MICROS
TIMES = (NOW_US, NOW_US + 17 * MINUTE + 3)
ROUNDS = 4


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return make(tmp_path / "repo")


def ask_all(port: int) -> int:
    """Ask a server in every form; how many rows were answered."""
    rng, rows = np.random.default_rng(port), 0
    with Client(f"http://127.0.0.1:{port}", http="2") as client:
        for i in range(ROUNDS):
            ids = rng.permutation(CARDS + 5).tolist()
            prices = rng.lognormal(3, 1, len(ids)).tolist()
            given = {"card_id": ids, "price": prices, "shop": ["x", None] * 62 + ["y"]}
            client.get_online_features(service="scoring", entities=given, format=("json", "arrow")[i % 2])
            refs = ["spend:count_1h", "profile:home"]
            client.get_online_features(features=refs, entities={"card_id": ids})
            rows += 2 * len(ids)
    base = f"http://127.0.0.1:{port}"
    for card in (1, 11):
        with urllib.request.urlopen(f"{base}/feature-views/spend/online-features?entity_id={card}") as answer:
            assert answer.status == 200
    feast = {"features": ["profile:mean", "profile:rank"], "entities": {"card_id": [1, 2, 3]}}
    request = urllib.request.Request(f"{base}/get-online-features", json.dumps(feast).encode())
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    return rows + 2 + 3


def serve_and_ask(store: FeatureStore, log: Path, *options: str, moments: tuple[int, ...] = TIMES) -> int:
    rows = 0
    for t in moments:
        at = ("--clock", format_timestamp(t), "--log-answers", str(log), "--log-rate", "1", *options)
        with serving(store.config.repo, *at) as running:
            rows += ask_all(running.port)
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics") as answer:
                told = answer.read().decode()
    assert "fastserve_answer_log_dropped_total" in told
    return rows


def command(store: FeatureStore, *words: str) -> Any:
    """Another process: it imports the repo anew."""
    return subprocess.run(
        [sys.executable, "-m", "fastserve.cli.main", *words],
        cwd=store.config.repo,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def differing(report: Any, feature: str) -> dict[str, int]:
    return {kind: n for kind, n in report.features[feature].items() if kind != "equal"}


def test_what_was_served_is_equal_until_something_changes(store: FeatureStore, tmp_path: Path) -> None:
    log, repo = tmp_path / "answers", store.config.repo
    rows = serve_and_ask(store, log)
    assert stat.S_IMODE(log.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.iterdir()} == {0o600}
    report = store.verify_answers(log=log, sample=10**6)
    assert report.answers == rows and report.values > 10_000
    assert report.counts == {"equal": report.values}, str(report)
    assert store.verify_answers(log=log, service="scoring", sample=100).answers == 100
    assert store.verify_answers(log=log, service="scoring", sample=100, settle="1s").answers == 100

    # Later: a late row, a correction, a late event.
    late = TIMES[-1] + 1
    add(repo / "profiles.parquet", card_id=14, ts=NOW_US - 1, created=late, mean=1.5)
    table = pq.read_table(repo / "profiles.parquet")
    newest = max(
        t for c, t in zip(*(table[n].to_pylist() for n in ("card_id", "ts")), strict=True) if c == 13
    )
    newest_us = int(newest.timestamp() * MICROS)
    add(repo / "profiles.parquet", card_id=13, ts=newest_us, created=late, mean=-2.5)
    add(
        repo / "payments.parquet",
        card_id=15,
        ts=NOW_US - 1,
        created=late,
        id="late",
        amount=9.0,
        status="paid",
    )
    report = store.verify_answers(log=log, sample=10**6)
    seen = len(TIMES) * ROUNDS
    assert differing(report, "profile@v1:mean") == {"late": seen, "correction": seen}, str(report)
    assert differing(report, "spend@v1:count_1h") == {"late": 2 * seen}
    assert set(report.counts) == {"equal", "late", "correction"}
    assert not report.ok and store.verify_answers(log=log, allow=["late", "correction"]).ok


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


def test_another_function_and_a_row_that_history_never_had(redis_url: str, tmp_path: Path) -> None:
    store = make(tmp_path / "repo", online_store=redis_url)
    log, repo = tmp_path / "answers", store.config.repo
    overwrite(store, 11, {"mean": -1.0, "home": "nowhere"}, NOW_US - 1)
    serve_and_ask(store, log, "--workers", "2", moments=TIMES[:1])
    features = (repo / "features.py").read_text()
    (repo / "features.py").write_text(features.replace("(1.0 +", "(2.0 +"))
    for applied in (False, True):
        if applied:
            assert command(store, "apply").returncode == 0
        done = command(store, "verify", "--log", str(log), "--sample", "1000000", "--json")
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)["features"]
        assert told["profile@v1:home"]["unexplained"] == 2 * ROUNDS
        assert told["unusual@v1:share"]["code"] > CARDS
        assert told["spend@v1:amount_sum_1h"].keys() == {"equal"}
        assert ("equal" in told["unusual@v1:hours"]) == applied, told
    some = store.verify_answers(log=log, service="", allow=["unexplained"])
    assert some.ok and "allowed" in str(some)


def asked(**other: Any) -> Asked:
    return Asked(**{"service": "s", "parts": (), "full_feature_names": False, "revision": 1, "fingerprint": "f",
                    "reads": {}, **other})  # fmt: skip


def test_files_of_a_log(tmp_path: Path, store: FeatureStore) -> None:
    parts = store.snapshot.service("scoring").features
    answers = Answers(asked(parts=parts, reads={"a": "b"}), pa.table({TIME: times([1, 2])}))
    write_answers(answers, tmp_path / "1.parquet")
    (read,) = read_answers(tmp_path)
    assert read.asked == answers.asked and read.table.equals(answers.table)
    (tmp_path / "2.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidDataError, match="no file of answers"):
        list(read_answers(tmp_path))
    with pytest.raises(RequestError, match="no answers of service 'none'"):
        (tmp_path / "2.parquet").unlink()
        store.verify_answers(log=tmp_path, service="none")
    with pytest.raises(RequestError, match="answers of registry"):
        store.verify_answers(log=tmp_path)


def test_settings(tmp_path: Path) -> None:
    of = AnswerLogSettings.of
    assert of({}, tmp_path) is None
    assert of({"dir": "a", "rate": 0.5}, tmp_path) == AnswerLogSettings(tmp_path / "a", 0.5)
    assert of({"dir": "a", "rate": 0.5}, tmp_path, "/b", 0.25) == AnswerLogSettings(Path("/b"), 0.25)
    for table, rate in (({"dir": 1}, None), ({"dir": "a", "rate": 2}, None), ({"dir": "a", "keep_mb": 0}, None),
                        ({"at": "a"}, None), ({}, 0.5)):  # fmt: skip
        with pytest.raises(ConfigError):
            of(table, tmp_path, "", rate)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be kept"):
        AnswerLog(AnswerLogSettings(tmp_path / "file" / "x"), registry_id="", project="")


def test_the_share_that_is_logged(tmp_path: Path) -> None:
    for rate in (1.0, 0.25, 0.01):
        log = AnswerLog(AnswerLogSettings(tmp_path, rate), registry_id="", project="")
        due = [log.due() for _ in range(20_000)]
        assert abs(sum(due) - 20_000 * rate) <= 6 * (20_000 * rate * (1 - rate)) ** 0.5
    gaps = np.diff(np.flatnonzero(due))
    assert len(set(gaps.tolist())) > 20


def test_the_oldest_files_go(tmp_path: Path) -> None:
    log = AnswerLog(AnswerLogSettings(tmp_path, 1.0, keep_mb=1), registry_id="", project="")
    others = [tmp_path / name for name in ("mine.parquet", ".mine.parquet.part")]
    begun = tmp_path / ".20260101T000000.000000-1-1.parquet.part"
    for path in (*others, begun):
        path.write_bytes(bytes(2 << 20))
        os.utime(path, (0, 0))
    noise = np.random.default_rng(1)
    for i in range(6):
        log._waiting = {"": [Answers(asked(), pa.table({"x": [noise.bytes(300_000)], "y": [i]}))]}
        log._flush()
    assert all(path.exists() for path in others) and not begun.exists()
    others[0].unlink()
    kept = [some.table["y"][0].as_py() for some in read_answers(tmp_path)]
    assert kept == [3, 4, 5] and log.counters()["files"] == 6
