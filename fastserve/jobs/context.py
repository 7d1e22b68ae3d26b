"""What a job's function gets to see of its job."""

from __future__ import annotations

import threading
from typing import Any

from fastserve.config import Config


class JobStopped(Exception):
    """A job's function stopped because it was asked to."""


class JobContext:
    """The job, to its function. `report` and `stopping` may be used from any thread.

    Attributes:
        config: the repo's settings.
        job_id: the job's number.
    """

    def __init__(self, config: Config, job_id: int) -> None:
        self.config = config
        self.job_id = job_id
        self._progress: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def report(self, **progress: Any) -> None:
        """Say how far it is: ``rows``, ``partitions``, ``partitions_total``, ``eta_s``, whatever people want to know.

        JSON values. Cheap: they are stored about once a second.
        """
        with self._lock:
            self._progress |= progress

    @property
    def progress(self) -> dict[str, Any]:
        """All that was reported last, by name."""
        with self._lock:
            return dict(self._progress)

    @property
    def stopping(self) -> bool:
        """Whether the job was asked to stop: finish the step, then raise JobStopped."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask the function to stop."""
        self._stopping.set()
