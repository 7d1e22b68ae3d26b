"""Tasks on this machine: in this process, or in several of its own.

A worker process that dies takes its pool with it; the next task makes a new one. Workers end with the process that
started them, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from typing import Any, TypeVar

from materializer.engine import inside
from materializer.engine.base import Engine
from materializer.stop import Stop

R = TypeVar("R")


class Inline(Engine):
    """This thread: a task is done when `submit` returns.

    Args:
        stop: that tasks find; None: the one that those of this thread find already.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        self._before = inside.stop()
        inside.hear(stop or self._before)

    @property
    def slots(self) -> int:
        return 1

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        inside.drop()
        inside.hear(self._before)


class Processes(Engine):
    """Processes of their own, as many as there are workers."""

    advice = "the system may have killed them for their memory (see dmesg): take fewer --workers"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")  # a fork would share locks, threads, connections
        self._asked = self._context.Event()
        self._pool = self._made()

    @property
    def slots(self) -> int:
        return self._workers

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._made()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            self._asked.set()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _made(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, self._context, initializer=_begin, initargs=(self._asked,))


# ---- in a worker's process -----------------------------------------------------------------------


class _Asked(Stop):
    """A Stop that hears of it from the process that started this one."""

    def __init__(self, asked: Any) -> None:
        super().__init__()
        self._asked = asked

    def check(self) -> None:
        if self._asked.is_set():
            self.signum = self.signum or int(SIGTERM)
        super().check()


def _begin(asked: Any) -> None:
    """Set up a worker's process."""
    signal(SIGINT, SIG_IGN)  # of a terminal: it goes to all, and the process that started us decides
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    inside.hear(_Asked(asked))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
