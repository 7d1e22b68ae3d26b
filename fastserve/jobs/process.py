"""The process of one job: ``python -m fastserve.jobs.process JOB_ID --repo DIR``.

    lock      the job; ends with this process, so that everybody can see whether it lives
    claim     queued -> running; not queued any more: nothing to do
    work      the kind's function; a thread tells its progress meanwhile, and hears of a cancellation
    end       complete, failed with the reason, or cancelled

SIGTERM asks the function to stop; a second one kills.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from fastserve.config import Config
from fastserve.errors import AlreadyRunningError, FastserveError, RegistryError
from fastserve.jobs.context import JobContext, JobStopped
from fastserve.jobs.kinds import function_of
from fastserve.jobs.pids import start_of
from fastserve.registry import Job, JobStore, open_registry

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0


def run_job(config: Config, job_id: int) -> int:
    """Do a queued job; the exit status: 0 done or not ours to do, 1 failed."""
    with open_registry(config.registry, config.project) as registry:
        jobs = registry.jobs
        try:
            with jobs.lock(job_id):
                job = jobs.claim(job_id, os.getpid(), start_of(os.getpid()) or 0)
                return 0 if job is None else _work(jobs, JobContext(config, job_id), job)
        except AlreadyRunningError:
            log.info("job %d has a process already", job_id)
            return 0


def _work(jobs: JobStore, context: JobContext, job: Job) -> int:
    with _stopping_on_signals(context), _heart(jobs, context):
        try:
            result = function_of(job.kind)(context, job.args)
            error = None
        except JobStopped:
            error = {"code": "JobStopped", "message": "it was asked to stop", "where": "", "hint": ""}
        except Exception as failure:
            error = error_dict(failure)
            if not isinstance(failure, FastserveError):
                log.exception("job %d failed", job.job_id)
    if error is None:
        jobs.heartbeat(job.job_id, context.progress)
        jobs.finish(job.job_id, result)
        return 0
    jobs.heartbeat(job.job_id, context.progress)
    jobs.fail(job.job_id, error)
    return 1


def error_dict(error: Exception) -> dict[str, str]:
    """An error as it is stored: code, message, where, hint."""
    if isinstance(error, FastserveError):
        found = {"message": error.message, "where": error.where, "hint": error.hint}
    else:
        found = {
            "message": str(error) or "no message",
            "where": "",
            "hint": "the job's log has the traceback",
        }
    return {"code": type(error).__name__, **found}


@contextmanager
def _stopping_on_signals(context: JobContext) -> Iterator[None]:
    def ask(signum: int, frame: FrameType | None) -> None:
        context.stop()
        signal.signal(signum, signal.SIG_DFL)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _heart(jobs: JobStore, context: JobContext) -> Iterator[None]:
    """Tell the progress once a second, and stop the job when somebody cancelled it or took it away."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            try:
                if jobs.heartbeat(context.job_id, context.progress):
                    context.stop()
            except RegistryError as error:  # it may come back; the work itself goes on
                log.warning("the registry does not answer: %s", error.message)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="fastserve.jobs.process")
    parser.add_argument("job_id", type=int)
    parser.add_argument("--repo", default=".")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run_job(Config.from_repo(options.repo), options.job_id)


if __name__ == "__main__":
    sys.exit(main())
