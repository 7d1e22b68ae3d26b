"""View locks: exclusive between threads and processes, and gone with their process."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from fastserve.errors import AlreadyRunningError
from fastserve.registry import Registry
from tests.integration.registry.conftest import Worker


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_excludes_and_ends(registry: Registry) -> None:
    with registry.lock_view(1):
        with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()} on "), registry.lock_view(1):
            pass
        with registry.lock_view(2):
            pass
    with registry.lock_view(1):
        pass


def test_a_lock_ends_with_an_error(registry: Registry) -> None:
    with pytest.raises(KeyError), registry.lock_view(1):
        raise KeyError
    with registry.lock_view(1):
        pass


def test_another_process_holds_it(registry: Registry, url: str, worker: Worker) -> None:
    holder = worker("hold", url, 7)
    assert line(holder) == "held"
    with pytest.raises(AlreadyRunningError, match=f"pid {holder.pid} on .*, since 20") as caught:
        registry.lock_view(7).__enter__()
    assert caught.value.where == "view id 7"
    holder.communicate("\n")
    with registry.lock_view(7):
        pass


def test_kill_9_frees_it(registry: Registry, url: str, worker: Worker) -> None:
    holder = worker("hold", url, 7)
    assert line(holder) == "held"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    _wait_until_free(registry, 7)


def test_a_forked_child_does_not_keep_it(registry: Registry, url: str, worker: Worker) -> None:
    holder = worker("fork", url, 7)
    child = int(line(holder).split()[1])
    try:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # still there
        _wait_until_free(registry, 7)
    finally:
        os.kill(child, signal.SIGKILL)


def _wait_until_free(registry: Registry, view_id: int) -> None:
    """PostgreSQL notices a dead client in its own time, a few milliseconds."""
    for _ in range(1000):
        try:
            with registry.lock_view(view_id):
                return
        except AlreadyRunningError:
            continue
    pytest.fail("still locked")
