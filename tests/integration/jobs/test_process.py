"""Jobs as processes: what they do, how they end, and what is left of those that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from fastserve.jobs.pids import send, start_of
from fastserve.jobs.supervisor import MAX_ATTEMPTS, Supervisor, wait_for
from fastserve.registry import Job, Registry
from tests.integration.materializer.repo import DAY, T0, Repo, stats_view

ROW = {"user": "u1", "event_timestamp": T0, "created": T0, "amount": 1.0, "visits": 1, "city": "x"}


@pytest.fixture
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = Repo.make(tmp_path_factory.mktemp("jobs") / "repo", stats_view(), stats_view("other"))
    made.write([ROW | {"event_timestamp": T0 + i * DAY, "created": T0 + i * DAY} for i in range(5)])
    return made


@pytest.fixture
def registry(repo: Repo) -> Iterator[Registry]:
    with repo.registry() as opened:
        yield opened


@pytest.fixture
def supervisor(repo: Repo, registry: Registry) -> Iterator[Supervisor]:
    made = Supervisor(registry.jobs, repo.config, max_jobs=2)
    yield made
    until(lambda: not registry.jobs.list(status=("running",)) or made.tick(only=()), "jobs to end")
    made.close()


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {seconds} s"
        time.sleep(0.02)


def running(registry: Registry, supervisor: Supervisor, job_id: int) -> Job:
    """The job once its process works on it."""

    def is_running() -> bool:
        supervisor.tick()
        return registry.jobs.get(job_id).status == "running"

    until(is_running, "process")
    return registry.jobs.get(job_id)


def test_materialize(repo: Repo, registry: Registry, supervisor: Supervisor) -> None:
    job = wait_for(
        supervisor, registry.jobs, registry.jobs.submit("materialize", {"views": ["stats"]}).job_id
    )
    assert (job.status, job.error) == ("complete", {})
    assert job.result["status"] == "ok" and job.result["totals"]["rows_read"] == 5
    assert job.progress["rows"] == 5 and job.progress["partitions"] == 10 and job.progress["eta_s"] == 0
    assert len(repo.offline_rows()) == 5 and len(repo.offline_rows("other")) == 0
    assert job.attempts == 1 and job.host and job.pid


@pytest.mark.parametrize(
    ("kind", "args", "code"),
    [
        ("materialize", {"views": ["nowhere"]}, "UnknownObjectError"),
        ("materialize", {"start_us": 5, "end_us": 1}, "RequestError"),
        ("materialize", {"colour": "red"}, "TypeError"),
        ("no_such_kind", {}, "RequestError"),
    ],
)
def test_failures_have_a_reason(
    registry: Registry, supervisor: Supervisor, kind: str, args: dict[str, object], code: str
) -> None:
    job = wait_for(supervisor, registry.jobs, registry.jobs.submit(kind, args).job_id)
    assert (job.status, job.error["code"]) == ("failed", code)
    assert job.error["message"] and "Traceback" not in job.error["message"]


def test_a_bad_row_fails_the_job(repo: Repo, registry: Registry, supervisor: Supervisor) -> None:
    repo.write([ROW | {"user": None}], "b.parquet")
    job = wait_for(
        supervisor, registry.jobs, registry.jobs.submit("materialize", {"views": ["stats"]}).job_id
    )
    assert (job.status, job.error["code"]) == ("failed", "MaterializeError")
    assert "stats" in job.error["message"]


def test_a_view_that_is_held_by_another_run(repo: Repo, registry: Registry, supervisor: Supervisor) -> None:
    with registry.lock_view(repo.view().view_id):
        job_id = registry.jobs.submit("materialize", {"views": ["stats"]}).job_id
        job = wait_for(supervisor, registry.jobs, job_id)
    assert (job.status, job.error["code"]) == ("failed", "AlreadyRunningError")


def test_a_killed_process_is_buried_by_another_supervisor(
    repo: Repo, registry: Registry, supervisor: Supervisor
) -> None:
    job_id = registry.jobs.submit("materialize", {}).job_id
    job = running(registry, supervisor, job_id)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGSTOP)
    try:
        if registry.jobs.get(job_id).status == "running":
            Supervisor(registry.jobs, repo.config, max_jobs=2).tick(only=())
            assert registry.jobs.get(job_id).status == "running"  # stopped, yet alive
    finally:
        os.kill(job.pid, signal.SIGKILL)
    successor = Supervisor(registry.jobs, repo.config, max_jobs=2)

    def buried() -> bool:
        successor.tick(only=())
        return registry.jobs.get(job_id).is_ended

    until(buried, "burial")
    job = registry.jobs.get(job_id)
    assert job.status == "complete" or (job.error["code"], str(job.pid) in job.error["message"]) == (
        "ProcessLost",
        True,
    )


def test_cancelling_ends_the_process(registry: Registry, supervisor: Supervisor) -> None:
    job = running(registry, supervisor, registry.jobs.submit("materialize", {}).job_id)
    assert job.pid is not None and job.pid_start == start_of(job.pid)
    os.kill(job.pid, signal.SIGSTOP)
    if registry.jobs.get(job.job_id).status == "running":
        registry.jobs.cancel(job.job_id)
    supervisor.tick()  # SIGTERM waits for it
    os.kill(job.pid, signal.SIGCONT)
    ended = wait_for(supervisor, registry.jobs, job.job_id)
    assert ended.status in ("cancelled", "complete")  # complete: it was faster


def test_a_pid_given_to_another_process_is_left_alone(registry: Registry) -> None:
    job_id = registry.jobs.submit("materialize", {}).job_id
    job = registry.jobs.claim(job_id, os.getpid(), (start_of(os.getpid()) or 0) + 1)
    assert job is not None
    assert not send(job, signal.SIGKILL)  # or this test would not go on
    registry.jobs.fail(job_id, {"code": "", "message": "", "where": "", "hint": ""})


def test_a_job_that_cannot_start_is_given_up(repo: Repo, registry: Registry) -> None:
    job_id = registry.jobs.submit("materialize", {}).job_id
    (repo.path / "fastserve.toml").write_text("nonsense")
    supervisor = Supervisor(registry.jobs, repo.config, max_jobs=1)

    def given_up() -> bool:
        supervisor.tick()
        return registry.jobs.get(job_id).is_ended

    until(given_up, "end")
    job = registry.jobs.get(job_id)
    assert (job.status, job.error["code"], job.attempts) == ("failed", "NotStarted", MAX_ATTEMPTS)
    assert "TOML" in job.error["message"] or "fastserve.toml" in job.error["message"]
    assert supervisor.children == 0


def test_no_more_than_allowed_run_at_once(registry: Registry, supervisor: Supervisor) -> None:
    ids = [registry.jobs.submit("materialize", {"views": [name]}).job_id for name in ("stats", "other") * 2]
    most = 0

    def done() -> bool:
        nonlocal most
        supervisor.tick()
        most = max(most, len(registry.jobs.list(status=("running",))))
        return all(registry.jobs.get(job_id).is_ended for job_id in ids)

    until(done, "end")
    assert 1 <= most <= 2
