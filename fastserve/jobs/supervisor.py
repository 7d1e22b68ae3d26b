"""Starts queued jobs in processes of their own, ends cancelled ones, and buries those whose process is gone.

What it knows of its children serves only to reap them and to tell why one never started. Everything else is read
from the registry in every round, so a supervisor that was killed is replaced by any other.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import IO, Final

from fastserve.config import Config
from fastserve.jobs.pids import send
from fastserve.registry import Job, JobStore
from fastserve.timeutil import MICROS, now_us

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
CANCEL_GRACE_US: Final = 10 * MICROS  # a cancelled job that goes on for longer is killed
KEEP_LOGS: Final = 200
_PACKAGES: Final = str(Path(__file__).resolve().parents[2])


class Supervisor:
    """Looks after the jobs of a project. Blocking, and not for two threads at once.

    Args:
        jobs: where they are.
        config: the repo they work on; their logs go to `.fastserve/jobs/` in it.
        max_jobs: how many may run at the same time in the project; 0 starts none.
    """

    def __init__(self, jobs: JobStore, config: Config, *, max_jobs: int) -> None:
        self._jobs = jobs
        self._config = config
        self._max_jobs = max_jobs
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._asked: dict[int, signal.Signals] = {}  # what a cancelled job was sent last
        self._logs = config.repo / ".fastserve" / "jobs"

    def tick(self, only: Collection[int] | None = None) -> None:
        """One round; raises RegistryError when the registry does not answer.

        Args:
            only: start none but these.
        """
        self._reap()
        for job in self._jobs.orphans():
            self._bury(job)
        running = self._jobs.list(status=("running",), limit=1_000)
        for job in running:
            if job.cancel_us is not None:
                self._stop(job)
        self._start_queued({job.job_id for job in running}, only)

    @property
    def children(self) -> int:
        """Processes that this supervisor started and that have not ended."""
        return len(self._children)

    def close(self) -> None:
        """Let go of the children; they go on."""
        self._reap()
        for child in self._children.values():
            child.returncode = 0  # or Popen would complain that nobody waited for it
        self._children.clear()

    def _reap(self) -> None:
        for job_id, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[job_id]
                if child.returncode:
                    log.info("the process of job %d ended with status %d", job_id, child.returncode)

    def _bury(self, job: Job) -> None:
        error = {
            "code": "ProcessLost",
            "message": f"its process (pid {job.pid} on {job.host}) ended without finishing it",
            "where": f"job {job.job_id}",
            "hint": f"its log may say why: {self._log_path(job.job_id)}; ask for it again, what it finished is kept",
        }
        if self._jobs.fail(job.job_id, error):
            log.warning("job %d lost its process", job.job_id)
        self._asked.pop(job.job_id, None)

    def _stop(self, job: Job) -> None:
        """SIGTERM at first, SIGKILL after the grace time."""
        assert job.cancel_us is not None
        number = signal.SIGKILL if now_us() - job.cancel_us > CANCEL_GRACE_US else signal.SIGTERM
        if self._asked.get(job.job_id) is not number and send(job, number):
            self._asked[job.job_id] = number

    def _start_queued(self, running: set[int], only: Collection[int] | None) -> None:
        # A child that has not claimed its job yet counts as running too.
        free = self._max_jobs - len(running | self._children.keys())
        if free <= 0:
            return
        for job in self._jobs.list(status=("queued",), limit=1_000, oldest_first=True):
            if free > 0 and job.job_id not in self._children and (only is None or job.job_id in only):
                free -= self._start(job)

    def _start(self, job: Job) -> bool:
        if job.attempts >= MAX_ATTEMPTS:
            self._give_up(job)
            return False
        if not self._jobs.note_attempt(job.job_id):
            return False
        command = [sys.executable, "-m", "fastserve.jobs.process", str(job.job_id)]
        path = os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")]))
        with self._open_log(job.job_id) as output:
            self._children[job.job_id] = subprocess.Popen(
                [*command, "--repo", str(self._config.repo)],
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # it outlives us, and our terminal
            )
        return True

    def _give_up(self, job: Job) -> None:
        error = {
            "code": "NotStarted",
            "message": f"{job.attempts} processes ended before they began it: {self._last_words(job.job_id)}",
            "where": f"job {job.job_id}",
            "hint": f"its log: {self._log_path(job.job_id)}",
        }
        self._jobs.fail(job.job_id, error)

    # ---- logs ------------------------------------------------------------------------------------

    def _log_path(self, job_id: int) -> Path:
        return self._logs / f"{job_id}.log"

    def _open_log(self, job_id: int) -> IO[bytes]:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            self._prune_logs()
            return self._log_path(job_id).open("ab")
        except OSError as error:
            log.warning("job %d has no log: %s", job_id, error)
            return open(os.devnull, "ab")

    def _prune_logs(self) -> None:
        kept = sorted(self._logs.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEEP_LOGS]:
            path.unlink(missing_ok=True)

    def _last_words(self, job_id: int) -> str:
        try:
            lines = self._log_path(job_id).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "no log"
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "they said nothing")


def wait_for(supervisor: Supervisor, jobs: JobStore, job_id: int, *, poll_s: float = 0.1) -> Job:
    """Start a job if it is queued, and wait for its end. Blocking: for a thread of its own."""
    while True:
        supervisor.tick(only=(job_id,))
        job = jobs.get(job_id)
        if job.is_ended:
            return job
        time.sleep(poll_s)
