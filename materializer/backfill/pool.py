"""The workers of a backfill: this process, or several of their own.

Tasks are handed out one at a time, in order. A worker process that dies takes the pool with it: its tasks go back,
and new processes take them, unless that happens again and again. Workers end with the process of the backfill,
however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from typing import Any, Final

from fastserve.errors import MaterializeError
from materializer.backfill.work import Spec, Task, Worker, Written
from materializer.stop import Stop

Taken = Callable[[Task], None]
_POLL_S: Final = 0.2
_DEATHS: Final = 3


def run_tasks(
    spec: Spec, tasks: Sequence[Task], workers: int, stop: Stop, taken: Taken
) -> Iterator[tuple[Task, list[Written]]]:
    """Each task and what became of it, as they are done.

    Args:
        taken: told of a task when a worker takes it.

    Raises:
        Stopped: asked to stop; tasks that were being done are not.
        MaterializeError: workers died again and again.
        FastserveError: what a task raised; the others are stopped.
    """
    if workers == 1 or len(tasks) < 2:
        with Worker(spec, stop) as worker:
            for task in tasks:
                taken(task)
                yield task, worker.do(task)
        return
    waiting, deaths = deque(tasks), 0
    while waiting:
        stop.check()  # a signal to all processes ends the workers first
        before = len(waiting)
        yield from _until_broken(spec, waiting, min(workers, len(tasks)), stop, taken)
        deaths = deaths + 1 if len(waiting) == before else 1
        if waiting and deaths >= _DEATHS:
            raise MaterializeError(
                f"its worker processes died {deaths} times without finishing a date",
                where=f"view {spec.view}",
                hint="the system may have killed them for their memory (see dmesg): take fewer --workers",
            )


def _until_broken(
    spec: Spec, waiting: deque[Task], workers: int, stop: Stop, taken: Taken
) -> Iterator[tuple[Task, list[Written]]]:
    """Do tasks until none is left or a worker dies; those that are not done are in `waiting` then."""
    context = multiprocessing.get_context("spawn")  # a fork would share locks, threads and store connections
    asked = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(spec, asked))
    running: dict[Future[list[Written]], Task] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting[0]
                running[pool.submit(_do, task)] = task
                waiting.popleft()
                taken(task)
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            stop.check()
            for future in done:
                result = future.result()
                yield running.pop(future), result
    except BrokenProcessPool:
        waiting.extendleft(sorted(running.values(), key=lambda task: task.start_us))
    finally:
        asked.set()
        pool.shutdown(wait=True, cancel_futures=True)


# ---- in a worker's process -----------------------------------------------------------------------

_make: Callable[[], Worker] | None = None
_worker: Worker | None = None


class _Asked(Stop):
    """A Stop that hears of it from the process of the backfill."""

    def __init__(self, asked: Any) -> None:
        super().__init__()
        self._asked = asked

    def check(self) -> None:
        if self._asked.is_set():
            self.signum = self.signum or int(SIGTERM)
        super().check()


def _begin(spec: Spec, asked: Any) -> None:
    """Set up a worker's process."""
    global _make
    signal(SIGINT, SIG_IGN)  # of a terminal: it goes to all, and the backfill's process decides
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _make = partial(Worker, spec, _Asked(asked))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(task: Task) -> list[Written]:
    global _worker
    if _worker is None:  # here, and not in _begin, whose errors would be lost
        assert _make is not None
        _worker = _make()
    return _worker.do(task)
