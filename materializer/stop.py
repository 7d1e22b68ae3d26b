"""Stop a run between two batches: what it finished is kept, and the next run goes on from there.

And how the work on one view ended, whichever command it is of.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from fastserve.errors import AlreadyRunningError, FastserveError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The run was asked to stop."""


class Stop:
    """A request to stop that the steps of a run look at between batches.

    Attributes:
        signum: the signal that asked for it; 0 while nobody has.
    """

    def __init__(self) -> None:
        self.signum = 0

    def check(self) -> None:
        """Raise Stopped when asked to stop."""
        if self.signum:
            raise Stopped

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within, SIGTERM and SIGINT ask to stop; a second one kills as it would have. Main thread only."""
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)


class Outcome(Protocol):
    """What is told of one view. The values of `status` are each command's own."""

    view: str
    status: Any
    error: Any


@contextmanager
def told_in(
    about: Outcome, busy: Callable[[AlreadyRunningError], Exception] = lambda error: error
) -> Iterator[None]:
    """Within, whatever goes wrong ends up in `about`; `busy` says more of a lock that another process holds."""
    try:
        yield
    except AlreadyRunningError as error:
        about.status, about.error = "already_running", busy(error)
    except Stopped:
        about.status = "stopped"
    except Exception as error:
        about.status, about.error = "failed", error
        if not isinstance(error, FastserveError):
            log.exception("view %s failed", about.view)
