"""Feast's materialize endpoints on the data plane: jobs in processes of their own, waited for or not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from tests.integration.control.conftest import Plane, make_repo, running

WINDOW = {"start_ts": "2023-11-01T00:00:00", "end_ts": "2023-12-01T00:00:00"}


@pytest.fixture(scope="module")
def feast_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repo(tmp_path_factory.mktemp("feast") / "repo")


@pytest.fixture(scope="module")
def serving(feast_repo: Path) -> Iterator[Plane]:
    with running(feast_repo, "serve") as plane:
        yield plane


def read(serving: Plane, view: str) -> Any:
    body = {"features": [f"{view}:clicks"], "entities": {"user_id": [2]}}
    return serving.ask("POST", "/get-online-features", body)[1]["results"][1]["values"]


def test_sync_answers_null_when_it_is_done(serving: Plane, feast_repo: Path) -> None:
    assert read(serving, "v0") == [0]
    body = {**WINDOW, "feature_views": ["v0"], "full_feature_names": False, "version": None}
    assert serving.raw("POST", "/materialize", body, {"content-type": "text/plain"})[::2] == (200, b"null")
    assert read(serving, "v0") == [2]
    incremental = {"end_ts": "2023-12-01T00:00:00", "feature_views": ["v1"]}
    assert serving.raw("POST", "/materialize-incremental", incremental)[::2] == (200, b"null")
    assert read(serving, "v1") == [2]
    everything = {"disable_event_timestamp": True, "feature_views": ["v2"]}
    assert serving.ask("POST", "/materialize", everything) == (200, None)
    with FeatureStore(feast_repo) as store:
        kept = store.registry.jobs.list()
        assert {job.status for job in kept} == {"complete"} and len(kept) == 3
        assert kept[0].args["start_us"] is None and kept[1].args["incremental"]


def test_async_answers_at_once(serving: Plane, feast_repo: Path) -> None:
    body = {**WINDOW, "feature_views": ["v3", "v4"]}
    status, found = serving.ask("POST", "/materialize?async=true", body)
    assert (status, found) == (202, {"status": "accepted", "feature_views": ["v3", "v4"]})
    deadline = time.monotonic() + 60
    while read(serving, "v4") != [2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_busy_views_are_a_conflict_unless_forced(serving: Plane, feast_repo: Path) -> None:
    with FeatureStore(feast_repo) as store:
        waiting = store.registry.jobs.submit("materialize", {"views": ["v5"], "target": "online"})
        body = {**WINDOW, "feature_views": ["v5@v1", "v6"]}
        status, found = serving.ask("POST", "/materialize", body)
        assert status == 409 and found["feature_views"] == ["v5@v1", "v6"] and "v5" in found["error"]
        assert serving.ask("POST", "/materialize-incremental?async=true", {"end_ts": "2024-01-01"})[0] == 409
        assert serving.ask("POST", "/materialize?force=true", body) == (200, None)
        with store.registry.lock_view(store.snapshot.view("v6").view_id):
            status, found = serving.ask("POST", "/materialize", {**WINDOW, "feature_views": ["v6"]})
        assert status == 409 and "v6" in found["error"]
        store.registry.jobs.cancel(waiting.job_id)


def test_the_job_goes_on_without_the_server(feast_repo: Path) -> None:
    with running(feast_repo, "serve") as plane, FeatureStore(feast_repo) as store:
        body = {**WINDOW, "feature_views": ["v7"]}
        assert plane.ask("POST", "/materialize?async=true", body)[0] == 202
        job_id = store.registry.jobs.list()[0].job_id
        deadline = time.monotonic() + 60
        while store.registry.jobs.get(job_id).status == "queued":
            assert time.monotonic() < deadline
        plane.kill()
        while not store.registry.jobs.get(job_id).is_ended:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert store.registry.jobs.get(job_id).status == "complete"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/materialize", b"", 422),
        ("/materialize", b"[]", 422),
        ("/materialize", {}, 422),
        ("/materialize", {"start_ts": "2023-11-01T00:00:00"}, 422),
        ("/materialize", {**WINDOW, "end_ts": 5}, 422),
        ("/materialize", {**WINDOW, "start_ts": "soon"}, 422),
        ("/materialize", {**WINDOW, "start_ts": "2030-01-01T00:00:00"}, 422),
        ("/materialize", {**WINDOW, "feature_views": "v0"}, 422),
        ("/materialize", {**WINDOW, "feature_views": [1]}, 422),
        ("/materialize", {**WINDOW, "feature_views": ["nope"]}, 404),
        ("/materialize", {**WINDOW, "feature_views": ["pushed"]}, 422),
        ("/materialize", {**WINDOW, "feature_views": ["v0"], "version": "x"}, 422),
        ("/materialize", {**WINDOW, "feature_views": ["v0"], "version": "9"}, 404),
        ("/materialize", {**WINDOW, "feature_views": ["v0"], "version": "9" * 5000}, 422),
        ("/materialize", {**WINDOW, "version": "1"}, 422),
        ("/materialize-incremental", {}, 422),
        ("/materialize-incremental", {"end_ts": "2024-13-01"}, 422),
        ("/materialize-incremental?async=true", {"end_ts": "2024-01-01", "feature_views": ["nope"]}, 404),
    ],
)
def test_bad_input_queues_nothing(
    serving: Plane, feast_repo: Path, path: str, body: Any, expected: int
) -> None:
    with FeatureStore(feast_repo) as store:
        before = store.registry.jobs.list()
        status, found = serving.ask("POST", path, body)
        assert status == expected, found
        assert set(json.loads(found)) == {"module", "class", "message"}
        assert store.registry.jobs.list() == before
