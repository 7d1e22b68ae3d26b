"""An engine for tests: tasks run in this process, but what goes in and comes out is pickled, as for another."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from materializer.engine.processes import Inline
from materializer.stop import Stop


class Carried(Inline):
    """See the module's docstring.

    Attributes:
        tasks: how many were run.
    """

    def __init__(self, slots: int = 2) -> None:
        super().__init__(Stop())
        self.tasks = 0
        self._slots = slots

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks += 1
        return super().submit(_carried, pickle.dumps(partial(fn, *args, **kwargs)))


def _carried(task: bytes) -> Any:
    return pickle.loads(pickle.dumps(pickle.loads(task)()))
