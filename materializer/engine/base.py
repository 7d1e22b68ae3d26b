"""An executor with a number of slots, and the loop that keeps them busy."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any, ClassVar, Final, TypeVar

from fastserve.errors import MaterializeError
from materializer.stop import Stop

T = TypeVar("T")
R = TypeVar("R")

_POLL_S: Final = 0.2


class Engine(Executor):
    """Runs tasks. A context manager: leaving it ends the tasks that still run, and waits for their end.

    A future fails with what its task raised, and with BrokenExecutor when the worker died that ran it.

    Attributes:
        patience: so many deaths of workers, and no task done in between, are enough to give up.
        advice: what to do about workers that die.
    """

    patience: int = 3
    advice: ClassVar[str] = ""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks run at once, now; 1 or more."""

    def __exit__(self, *exc: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def run_tasks(
    engine: Engine,
    work: Callable[[T], R],
    tasks: Sequence[T],
    stop: Stop,
    *,
    taken: Callable[[T], Any] | None = None,
    where: str = "",
) -> Generator[tuple[T, R]]:
    """Each task and what became of it, as they are done. They are handed out in order, as slots are free.

    The tasks of a worker that died are handed out again, before those that wait.

    Args:
        work: a function of a module, or a `partial` of one.
        taken: told of a task before it is handed out.
        where: what the tasks are about, for errors.

    Raises:
        Stopped: asked to stop. Tasks that were being done end with the engine.
        MaterializeError: workers died again and again.
        Exception: what a task raised; likewise.
    """
    waiting = deque(range(len(tasks)))
    running: dict[Future[R], tuple[int, int]] = {}  # -> number of its task, deaths when it was handed out
    deaths = idle_deaths = 0
    while waiting or running:
        stop.check()
        while waiting and len(running) < engine.slots:
            number = waiting.popleft()
            if taken is not None:
                taken(tasks[number])
            running[engine.submit(work, tasks[number])] = number, deaths
        done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        stop.check()
        for future in done:
            number, before = running.pop(future)
            try:
                result = future.result()
            except BrokenExecutor as error:
                waiting.appendleft(number)
                if before == deaths:  # others of the same death are not counted
                    deaths, idle_deaths = deaths + 1, idle_deaths + 1
                if idle_deaths >= engine.patience:
                    raise _given_up(engine, error, idle_deaths, where) from None
            else:
                idle_deaths = 0
                yield tasks[number], result


def _given_up(engine: Engine, error: Exception, deaths: int, where: str) -> MaterializeError:
    times = "a worker died" if deaths == 1 else f"its workers died {deaths} times"
    return MaterializeError(
        f"{times} and no task was done in between: {error}", where=where, hint=engine.advice
    )
