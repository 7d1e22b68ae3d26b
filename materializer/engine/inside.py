"""What a task finds in the process that runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from materializer.stop import Stop

T = TypeVar("T")


class _Place(threading.local):
    """Of the thread that runs tasks: one in a worker's process, the caller's where they run in its own."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.key: Hashable = None
        self.kept: AbstractContextManager[Any] | None = None
        self.value: Any = None


_place = _Place()


def stop() -> Stop:
    """To be asked between batches: whether the work that the task belongs to was asked to stop.

    On Spark nobody asks: a worker whose task is cancelled is killed.
    """
    return _place.stop


def hear(stop: Stop) -> None:
    """From now on tasks of this thread find this Stop."""
    _place.stop = stop


def keep(key: Hashable, make: Callable[[], AbstractContextManager[T]]) -> T:
    """What an earlier task of this process made for the same key, and if there is none, what `make` makes.

    It is entered once, and left when something is kept for another key, or the engine ends in this process. A
    worker's process may end without: so it holds what may be lost, like connections.
    """
    if _place.kept is None or _place.key != key:
        drop()
        made = make()
        _place.value = made.__enter__()
        _place.key, _place.kept = key, made
    value: T = _place.value
    return value


def drop() -> None:
    """Leave what is kept."""
    kept, _place.kept, _place.key, _place.value = _place.kept, None, None, None
    if kept is not None:
        kept.__exit__(None, None, None)
