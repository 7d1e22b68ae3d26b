"""Work that blocks in native code, on a thread of its own, so that the one who waits for it can end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

_LOOK_S: Final = 0.1
_T = TypeVar("_T")


class Cancel:
    """How to end what runs at the moment; from any thread."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []

    def always(self, end: Callable[[], None]) -> None:
        """`end` ends whatever runs."""
        self._ends.append(end)

    @contextmanager
    def by(self, end: Callable[[], None]) -> Iterator[None]:
        """Within, `end` ends it."""
        self._ends.append(end)
        try:
            yield
        finally:
            self._ends.remove(end)

    def __call__(self) -> None:
        for end in list(self._ends):
            with suppress(Exception):  # it may have ended by itself
                end()


class Watched:
    """One thread, and the waiting for what it does. A context manager; leaving it ends what still runs.

    Args:
        check: called every tenth of a second of waiting; what it raises ends the work.

    Attributes:
        cancel: what works tells it how it can be ended.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.cancel = Cancel()
        self._check = check
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fastserve-query")
        self._running: Future[object] | None = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        running = self._running
        while running is not None and not running.done():
            self.cancel()  # again: one that comes before the work is under way ends nothing
            with suppress(BaseException):
                running.result(_LOOK_S)
        self._pool.shutdown()

    def start(self, work: Callable[[], _T]) -> Future[_T]:
        """Begin it; `wait` for it before the next."""
        future = self._pool.submit(work)
        self._running = future  # type: ignore[assignment]
        return future

    def wait(self, future: Future[_T]) -> _T:
        """Its result, or what it raised, or what `check` raised."""
        while True:
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                if future.done():
                    return future.result()
                self._check()

    def do(self, work: Callable[[], _T]) -> _T:
        """Start it and wait."""
        return self.wait(self.start(work))
