"""The life of jobs, on both databases: every step is taken once, whoever tries."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastserve.errors import (
    AlreadyRunningError,
    OverloadedError,
    RegistryConflictError,
    UnknownObjectError,
)
from fastserve.registry import Registry, jobs, open_registry
from tests.integration.registry.conftest import Worker

REASON = {"code": "X", "message": "because", "where": "", "hint": ""}


def test_from_queued_to_complete(registry: Registry) -> None:
    store = registry.jobs
    job = store.submit("materialize", {"views": ["a"], "end_us": 5})
    assert (job.status, job.kind, job.attempts, job.pid) == ("queued", "materialize", 0, None)
    assert job.args == {"views": ["a"], "end_us": 5}
    assert store.note_attempt(job.job_id) == 1
    claimed = store.claim(job.job_id, 42, 4242)
    assert claimed is not None
    assert (claimed.status, claimed.pid, claimed.pid_start) == ("running", 42, 4242)
    assert store.note_attempt(job.job_id) == 0
    assert store.heartbeat(job.job_id, {"rows": 7}) is False
    assert store.get(job.job_id).progress == {"rows": 7}
    assert store.finish(job.job_id, {"ok": 1})
    done = store.get(job.job_id)
    assert (done.status, done.result, done.is_ended) == ("complete", {"ok": 1}, True)
    assert done.submitted_us <= (done.started_us or 0) <= (done.finished_us or 0)
    assert store.heartbeat(job.job_id, {"rows": 8}) is True  # not ours any more
    assert not store.fail(job.job_id, REASON)
    assert store.get(job.job_id) == done


def test_of_many_claims_one_wins(registry: Registry) -> None:
    job = registry.jobs.submit("materialize", {})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pid: registry.jobs.claim(job.job_id, pid, pid), range(1, 17)))
    winners = [one for one in found if one is not None]
    assert len(winners) == 1
    assert registry.jobs.get(job.job_id).pid == winners[0].pid


def test_of_many_submissions_with_one_key_one_is_made(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: registry.jobs.submit("materialize", {"a": 1}, key="k"), range(16)))
    assert len({job.job_id for job in found}) == 1
    assert len(registry.jobs.list()) == 1
    with pytest.raises(RegistryConflictError, match="another request"):
        registry.jobs.submit("materialize", {"a": 2}, key="k")


def test_projects_do_not_see_each_others_jobs(registry: Registry, url: str) -> None:
    job = registry.jobs.submit("materialize", {}, key="k")
    with open_registry(url, "other") as other:
        assert other.jobs.list() == [] and other.jobs.counts()["queued"] == 0
        assert other.jobs.submit("materialize", {}, key="k").job_id != job.job_id
        assert other.jobs.claim(job.job_id, 1, 1) is None
        with pytest.raises(UnknownObjectError):
            other.jobs.cancel(job.job_id)


def test_cancelling(registry: Registry) -> None:
    store = registry.jobs
    queued, running, ended = (store.submit("materialize", {}).job_id for _ in range(3))
    assert store.cancel(queued).status == "cancelled"
    assert store.claim(queued, 1, 1) is None
    store.claim(running, 1, 1)
    first = store.cancel(running)
    assert first.status == "running" and first.cancel_us is not None
    assert store.cancel(running).cancel_us == first.cancel_us
    assert store.heartbeat(running, {}) is True
    store.fail(running, REASON)
    assert store.get(running).status == "cancelled"
    store.claim(ended, 1, 1)
    store.finish(ended, {})
    assert store.cancel(ended).status == "complete"
    for unknown in (0, -1, 999, 2**31, 2**80):
        with pytest.raises(UnknownObjectError):
            store.get(unknown)


def test_lists_and_counts(registry: Registry) -> None:
    store = registry.jobs
    ids = [store.submit(kind, {}).job_id for kind in ("materialize", "training_dataset", "materialize")]
    store.cancel(ids[0])
    assert [job.job_id for job in store.list()] == ids[::-1]
    assert [job.job_id for job in store.list(status=("queued",), oldest_first=True)] == ids[1:]
    assert [job.job_id for job in store.list(kind="materialize", limit=1)] == [ids[2]]
    assert [job.job_id for job in store.list(before=ids[1])] == [ids[0]]
    assert store.counts() == {"queued": 2, "running": 0, "complete": 0, "failed": 0, "cancelled": 1}


def test_jobs_are_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_QUEUED", 3)
    monkeypatch.setattr(jobs, "KEEP_ENDED", 4)
    monkeypatch.setattr(jobs, "_PRUNE_EVERY", 2)
    store = registry.jobs
    first = [store.submit("materialize", {}).job_id for _ in range(3)]
    with pytest.raises(OverloadedError):
        store.submit("materialize", {})
    for _ in range(10):
        store.cancel(store.list(status=("queued",))[-1].job_id)
        store.submit("materialize", {})
    kept = store.list()
    assert len([job for job in kept if job.is_ended]) <= 6
    assert len([job for job in kept if job.status == "queued"]) == 3
    assert first[0] not in {job.job_id for job in kept}


def test_a_lock_says_whether_the_process_lives(registry: Registry, url: str, worker: Worker) -> None:
    store = registry.jobs
    mine, theirs = store.submit("materialize", {}).job_id, store.submit("materialize", {}).job_id
    process = worker("job", url, theirs)
    assert process.stdout is not None and process.stdout.readline().strip() == "held"
    with store.lock(mine):
        store.claim(mine, os.getpid(), 1)
        assert store.orphans() == []
        with pytest.raises(AlreadyRunningError, match="job id"), store.lock(theirs):
            pass
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while [job.job_id for job in store.orphans()] != [theirs]:
            assert time.monotonic() < deadline, "PostgreSQL did not notice the end of its client"
        store.finish(mine, {})
    assert store.fail(theirs, REASON)
    assert store.orphans() == []
