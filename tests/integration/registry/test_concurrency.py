"""Applies that race: threads and processes, on both databases. None may lose what another wrote."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fastserve import Entity
from fastserve.errors import RegistryConflictError
from fastserve.registry import open_registry
from tests.integration.registry.conftest import Worker
from tests.integration.registry.objects import USER, view

PROCESSES, APPLIES = 8, 10


def _release(processes: list[subprocess.Popen[str]], said: str = "ready") -> None:
    """Wait until all are at their barrier, then let all go."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == said
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def _together(n: int, work: Callable[[int], object]) -> list[object]:
    barrier = threading.Barrier(n)

    def start(i: int) -> object:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(start, range(n)))


def test_processes_lose_nothing(url: str, worker: Worker) -> None:
    processes = [worker("apply", url, f"p{i}", APPLIES) for i in range(PROCESSES)]
    _release(processes)
    with open_registry(url, "demo") as registry:
        seen = 0
        while any(p.poll() is None for p in processes):  # readers see whole revisions meanwhile
            snapshot = registry.snapshot()
            assert len(snapshot.views) == len(snapshot.entities) == snapshot.revision >= seen
            seen = snapshot.revision
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[0].wait(0.1)
        assert [p.returncode for p in processes] == [0] * PROCESSES
        snapshot = registry.snapshot()
        names = {(f"p{p}_v{i}", 1) for p in range(PROCESSES) for i in range(APPLIES)}
        assert set(snapshot.views) == names
        assert len(snapshot.entities) == len(names)
        assert len({r.view_id for r in snapshot.views.values()}) == len(names)
        total = PROCESSES * APPLIES
        assert [r.revision for r in registry.history(1000)] == list(range(total, 0, -1))


def test_threads_lose_nothing(url: str) -> None:
    with open_registry(url, "demo") as registry:
        _together(8, lambda i: [registry.apply([Entity(f"e{i}_{k}")]) for k in range(5)])
        assert len(registry.snapshot().entities) == registry.revision() == 40


def test_racing_on_one_object_keeps_every_revision(url: str) -> None:
    """The same object applied differently by many: each revision is one of them, in some order."""
    with open_registry(url, "demo") as registry:
        registry.apply([USER, view()])
        _together(8, lambda i: registry.apply([view(description=f"by {i}")]))
        texts = {registry.snapshot(r).view("stats").view.description for r in range(2, 10)}
        assert texts == {f"by {i}" for i in range(8)}


def test_expected_revision_lets_one_through(url: str) -> None:
    with open_registry(url, "demo") as registry:

        def attempt(i: int) -> bool:
            try:
                registry.apply([Entity(f"e{i}")], expect_revision=0)
            except RegistryConflictError:
                return False
            return True

        assert sorted(_together(8, attempt)) == [False] * 7 + [True]  # type: ignore[type-var]
        assert len(registry.snapshot().entities) == registry.revision() == 1


def test_processes_migrate_a_new_database_at_once(url: str, worker: Worker) -> None:
    processes = [worker("open", url) for _ in range(5)]
    _release(processes)
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    ids = {out.strip() for out, _ in answers}
    assert len(ids) == 1
    assert len(ids.pop()) == 36


def test_threads_migrate_new_databases_at_once(tmp_path: Path) -> None:
    """Closer together than processes can start: all turn on WAL, one after the other."""
    for k in range(10):
        ids = _together(8, partial(_id_of, f"sqlite:///{tmp_path}/{k}.db"))
        assert len(set(ids)) == 1


def _id_of(url: str, _: int) -> str:
    with open_registry(url, "demo") as registry:
        return registry.registry_id


def test_projects_do_not_wait_for_the_same_names(url: str) -> None:
    def work(i: int) -> None:
        with open_registry(url, f"p{i}") as registry:
            for k in range(3):
                registry.apply([USER, view(f"v{k}")])

    _together(4, work)
    for i in range(4):
        with open_registry(url, f"p{i}") as registry:
            assert registry.revision() == 3
