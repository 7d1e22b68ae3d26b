"""kill -9 of the control plane while jobs wait, start, run and end: none is lost, none runs twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastserve import FeatureStore
from tests.integration.control.conftest import Plane, make_repo, running

JOBS = int(os.environ.get("FASTSERVE_TEST_JOBS", "6"))  # at most the 20 views of the repo
ENDED = {"complete", "failed", "cancelled"}


def until(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(0.05)


def jobs_of(plane: Plane) -> list[dict[str, Any]]:
    status, found = plane.ask("GET", "/jobs?limit=1000")
    assert status == 200
    return list(found["items"])


def count(plane: Plane, *status: str) -> int:
    return len([job for job in jobs_of(plane) if job["status"] in status])


def test_every_job_ends_once_however_often_the_plane_is_killed(tmp_path: Path, registry_url: str) -> None:
    repo = make_repo(tmp_path / "repo", registry_url)
    with running(repo, "control", "--max-jobs", "3") as plane:
        for i in range(JOBS):
            status, job = plane.ask("POST", f"/feature-views/v{i}/materialize", {})
            assert (status, job["status"]) == (202, "queued")
        plane.kill()  # nothing has run yet, or hardly
    with running(repo, "control", "--max-jobs", "3") as plane:
        until(lambda: count(plane, "complete") and count(plane, "running"), "job in full swing")
        plane.kill()
    with running(repo, "control", "--max-jobs", "3") as plane:
        until(lambda: count(plane, *ENDED) == JOBS, "end of all jobs")
        found = jobs_of(plane)
    assert {job["status"] for job in found} == {"complete"}  # no job's own process was killed
    assert [job["rows"] for job in found] == [3] * JOBS
    with FeatureStore(repo) as store:
        for i in range(JOBS):
            view_id = store.snapshot.view(f"v{i}").view_id
            runs = store.registry.runs(view_id=view_id)
            assert [run.status for run in runs] == ["complete"], f"v{i} ran {len(runs)} times"
            assert store.registry.intervals(view_id, "online", raw=True)[0].rows == 3


def test_a_job_whose_process_is_killed_with_the_plane_says_so(tmp_path: Path, registry_url: str) -> None:
    repo = make_repo(tmp_path / "repo", registry_url, days=40)
    with running(repo) as plane:
        _, job = plane.ask("POST", "/materialize", {})
        path = f"/jobs/{job['id']}"
        until(lambda: plane.ask("GET", path)[1]["status"] == "running", "process")
        pid = plane.ask("GET", path)[1]["process"]["pid"]
        plane.kill()
        os.kill(pid, 9)
    with running(repo) as plane:
        until(lambda: plane.ask("GET", path)[1]["status"] in ENDED, "burial")
        job = plane.ask("GET", path)[1]
        assert job["status"] == "failed" and str(pid) in job["error"]["message"]
        assert job["error"]["hint"]
        _, again = plane.ask("POST", "/materialize", {})
        until(lambda: plane.ask("GET", f"/jobs/{again['id']}")[1]["status"] in ENDED, "second job")
        assert plane.ask("GET", f"/jobs/{again['id']}")[1]["status"] == "complete"


def test_cancelling_after_a_restart(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", days=400)
    with running(repo) as plane:
        _, job = plane.ask("POST", "/materialize", {"target": "offline"})
        path = f"/jobs/{job['id']}"
        until(lambda: plane.ask("GET", path)[1]["status"] == "running", "process")
        plane.kill()
    with running(repo) as plane:
        status, job = plane.ask("POST", f"{path}/cancel")
        assert status in (200, 202)
        until(lambda: plane.ask("GET", path)[1]["status"] in ENDED, "end")
        job = plane.ask("GET", path)[1]
        assert job["status"] == "cancelled" and job["cancel_requested"]
