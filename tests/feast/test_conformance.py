"""The real Feast, in an environment of its own: its SDK on our server, and its answers beside ours.

`make feast-conformance` makes the environment and runs this; without one these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastserve.timeutil import format_timestamp, parse_timestamp
from tests.feast.cases import by_name, differences
from tests.feast.data import NOW
from tests.feast.kit import REPOS, ROOT, Client, dump_of, fill, make_feast_repo, recorded
from tests.feast.record import ask, init_quick_start, interpreter, run_worker
from tests.servers import serving

PYTHON = interpreter()
pytestmark = [
    pytest.mark.feast,
    pytest.mark.skipif(
        PYTHON is None, reason="FASTSERVE_FEAST_VENV names no environment: make feast-conformance"
    ),
]
CLOCK = format_timestamp(parse_timestamp(NOW))


def import_feast(repo: Path, target: Path) -> dict[str, Any]:
    """Run the command; what it says."""
    options = ["--output", str(target), "--python", str(PYTHON), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "fastserve.cli.main", "import-feast", repo, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, str]]]:
    """Repo -> (Feast's repo, materialized by Feast; the URL of our server of the imported one)."""
    assert PYTHON is not None
    folder = tmp_path_factory.mktemp("conformance")
    with ExitStack() as stack:
        found = {}
        for name in REPOS:
            repo = make_feast_repo(folder, name)
            import_feast(repo, folder / f"{name}-new")
            fill(folder / f"{name}-new")
            run_worker(PYTHON, "prepare", repo, NOW.isoformat())
            options = ("--clock", CLOCK, "--compat", "feast")
            found[name] = (
                repo,
                f"http://127.0.0.1:{stack.enter_context(serving(folder / f'{name}-new', *options)).port}",
            )
        yield found


@pytest.mark.parametrize("name", REPOS)
def test_feast_itself_still_answers_what_is_recorded(world: dict[str, tuple[Path, str]], name: str) -> None:
    assert PYTHON is not None
    lines = [line for line in recorded() if line["repo"] == name]
    answers = ask(PYTHON, world[name][0], [line["request"] for line in lines])
    for line, found in zip(lines, answers, strict=True):
        assert by_name(found["answer"]) == by_name(line["answer"])


@pytest.mark.parametrize("name", REPOS)
def test_feasts_sdk_reads_the_same_from_our_server(world: dict[str, tuple[Path, str]], name: str) -> None:
    assert PYTHON is not None
    repo, url = world[name]
    lines = [line for line in recorded() if line["repo"] == name]
    answers = ask(PYTHON, repo, [line["request"] for line in lines], url)
    wrong = []
    for line, found in zip(lines, answers, strict=True):
        assert "answer" in found, found
        wrong += list(differences(line["answer"], found["answer"], times=False))
    assert not wrong


def test_feasts_sdk_tells_our_errors_as_its_own(world: dict[str, tuple[Path, str]]) -> None:
    assert PYTHON is not None
    repo, url = world["rides"]
    entities = {"driver_id": [1001]}
    asked = [
        {"features": ["driver_stats:trips"], "entities": {"driver_id": [None]}},
        {"features": ["nothing:trips"], "entities": entities},
        {"features": ["driver_stats:nothing"], "entities": entities},
    ]
    names = [found["error"] for found in ask(PYTHON, repo, asked, url)]
    assert names == ["FeastError", "FeatureViewNotFoundException", "FeastObjectNotFoundException"]


def test_the_dumps_are_as_recorded(tmp_path: Path) -> None:
    from fastserve.feast_import.importer import read_feast

    for name in REPOS:
        assert read_feast(make_feast_repo(tmp_path, name), str(PYTHON)) == dump_of(name)


def test_the_quick_start_serves_what_feast_serves(tmp_path: Path) -> None:
    assert PYTHON is not None
    repo = init_quick_start(PYTHON, tmp_path)
    said = import_feast(repo, tmp_path / "new")
    assert said["imported"]["feature_services"] == [
        "driver_activity_v1",
        "driver_activity_v2",
        "driver_activity_v3",
    ]
    # The last rows are of the last full hour: well before both ends.
    now = datetime.now(UTC) + timedelta(minutes=1)
    run_worker(PYTHON, "prepare", repo, now.isoformat())
    fill(tmp_path / "new", now.isoformat())
    keys = {"driver_id": [1001, 1002, 1003, 1004, 1005, 9999]}
    names = ("conv_rate", "acc_rate", "avg_daily_trips", "driver_config")
    refs = [
        f"{view}:{name}" for view in ("driver_hourly_stats", "driver_hourly_stats_fresh") for name in names
    ]
    asked: list[dict[str, Any]] = [{"features": refs, "entities": keys, "full_feature_names": True}]
    asked += [{"features": [ref], "entities": keys} for ref in refs]
    asked.append({"features": ["driver_quality_labels:quality_score"], "entities": keys})
    with serving(tmp_path / "new", "--compat", "feast") as (port, _):
        client = Client(port)
        for request, found in zip(asked, ask(PYTHON, repo, asked), strict=True):
            status, ours = client.post("/get-online-features", request)
            wrong = list(differences(found["answer"], ours))
            if (
                "labels" in request["features"][0]
            ):  # a label view's key is text to Feast, whatever the entity says
                wrong = [text for text in wrong if not text.startswith("driver_id[")]
            assert status == 200 and not wrong, request
        for service in said["imported"]["feature_services"]:
            status, ours = client.post("/get-online-features", {"feature_service": service, "entities": keys})
            values = by_name(ours)["conv_rate"]["values"]
            assert status == 200 and values[-1] is None and None not in values[:-1]
        client.close()


def test_feasts_sdk_pushes_and_writes_to_our_server(
    world: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    assert PYTHON is not None
    at = (NOW - timedelta(minutes=5)).isoformat()
    driver = {
        "driver_id": [5001, 5002], "conv_rate": [0.1, None], "rating": [4.5, 1.25], "trips": [2**53 + 1, 3],
        "level": [1, 2], "active": [True, False], "vehicle": ["żuk", ""], "event_timestamp": [at, at],
        "created": [at, at],
    }  # fmt: skip
    pair = {
        "driver_id": [5001],
        "customer_id": ["eve|x"],
        "rides": [7],
        "spent": [1.5],
        "at": [at],
        "known_at": [at],
    }
    click = {"item_id": [900], "n_clicks": [12], "event_timestamp": [at]}
    guess = {"item_id": [900], "score": [1e22], "visits": [2**53 + 1], "event_timestamp": [at]}
    writes = {
        "rides": [{"push_source": "driver_push", "df": driver}, {"feature_view": "pair_stats", "df": pair}],
        "odd": [{"feature_view": "clicks", "df": click}, {"feature_view": "inferred", "df": guess}],
    }
    for name, rows in writes.items():
        repo, url = world[name]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        run_worker(PYTHON, "write", repo, url, tmp_path / "rows.jsonl")
    asked = {
        "rides": {
            "features": [
                "driver_stats:trips",
                "driver_stats:conv_rate",
                "driver_stats:vehicle",
                "pair_stats:rides",
            ],
            "entities": {"driver_id": [5001, 5002], "customer_id": ["eve|x", "nobody"]},
        },
        "odd": {
            "features": ["clicks:n_clicks", "inferred:score", "inferred:visits"],
            "entities": {"item_id": [900]},
        },
    }
    found = {name: ask(PYTHON, world[name][0], [asked[name]], world[name][1])[0] for name in asked}
    rides = {name: result["values"] for name, result in by_name(found["rides"]["answer"]).items()}
    assert (
        rides["trips"] == [2**53 + 1, 3] and rides["vehicle"] == ["żuk", ""] and rides["rides"] == [7, None]
    )
    assert rides["conv_rate"] == [0.10000000149011612, None]
    odd = {name: result["values"][0] for name, result in by_name(found["odd"]["answer"]).items()}
    assert odd == {"item_id": 900, "n_clicks": 12, "score": 1e22, "visits": 2**53 + 1}
