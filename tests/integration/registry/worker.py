"""A process of its own for the concurrency tests: what it does is its first argument.

Each command prints one line when it is ready and waits for a line on stdin, so that all start at once.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import date

from fastserve import Entity, FeatureView, Field
from fastserve.errors import AlreadyRunningError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.rewrite import rewriting
from fastserve.registry import open_registry
from tests.unit.offline.views import registered


def _barrier(said: str = "ready") -> None:
    print(said, flush=True)
    sys.stdin.readline()


def apply(url: str, prefix: str, n: str) -> None:
    """n applies, each of one further entity and view."""
    with open_registry(url, "demo") as registry:
        _barrier()
        for i in range(int(n)):
            entity = Entity(f"{prefix}_e{i}", dtype="int64")
            view = FeatureView(f"{prefix}_v{i}", entities=[entity], schema=[Field("x", "int64")])
            registry.apply([entity, view], author=prefix)
    print("done", flush=True)


def open_(url: str) -> None:
    """Open a database that nobody has migrated yet; print its id."""
    _barrier()
    with open_registry(url, "demo") as registry:
        print(registry.registry_id, flush=True)


def hold(url: str, view_id: str) -> None:
    """Hold a view's lock until stdin ends."""
    with open_registry(url, "demo") as registry, registry.lock_view(int(view_id)):
        _barrier("held")


def rewrite(url: str, root: str) -> None:
    """Each time told to, join the files of a day of 1970, unless another does; say how many, or that."""
    rv = registered(FeatureView("w", schema=[Field("a", "int64")]), {"u": "int64"})
    with open_registry(url, "demo") as registry:
        _barrier()
        while True:
            try:
                with rewriting(registry, OfflineTable(root, "demo", rv)) as files:
                    said = str(files.compact([date(1970, 1, 1)], 2))
            except AlreadyRunningError:
                said = "busy"
            _barrier(said)


def hold_files(url: str, view_id: str) -> None:
    """Hold the files of a view's table until stdin ends."""
    with open_registry(url, "demo") as registry, registry.lock_rewrite(int(view_id)):
        _barrier("held")


def job(url: str, job_id: str) -> None:
    """Work on a job until stdin ends."""
    with open_registry(url, "demo") as registry, registry.jobs.lock(int(job_id)):
        registry.jobs.claim(int(job_id), os.getpid(), 1)
        _barrier("held")


def fork(url: str, view_id: str) -> None:
    """Hold a view's lock in a process that has a forked child; print the child's id."""
    with open_registry(url, "demo") as registry, registry.lock_view(int(view_id)):
        child = os.fork()
        if child == 0:
            signal.pause()
        _barrier(f"held {child}")


def alembic(url: str) -> None:
    """Say whether opening a migrated registry imports alembic."""
    with open_registry(url, "demo") as registry:
        registry.snapshot()
    print("alembic" in sys.modules, flush=True)


if __name__ == "__main__":
    commands = {"apply": apply, "open": open_, "hold": hold, "job": job, "fork": fork, "alembic": alembic}
    commands |= {"rewrite": rewrite, "hold-files": hold_files}
    commands[sys.argv[1]](*sys.argv[2:])
