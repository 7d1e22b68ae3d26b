"""Tasks on Spark: each is a job of one task, which Spark schedules and runs again when its executor is lost.

What is sent is a pickled function with its arguments, and what comes back is a pickled result or error: Spark sees
bytes. A job costs the driver some ten milliseconds, so tasks are to be a second or more.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

from fastserve.errors import ConfigError, MaterializeError
from materializer.engine.base import Engine

R = TypeVar("R")

MOST_JOBS: Final = 1024
_POOL: Final = "spark.scheduler.pool"
_CANCEL_S: Final = 0.5
_DEATHS: Final = (
    "ExecutorLostFailure",
    "Python worker exited unexpectedly",
    "Python worker failed to connect",
)


class SparkEngine(Engine):
    """A SparkContext: the active one, which stays open, or one of its own.

    Args:
        settings: of fastserve.toml: `spark.*` -> value. An active session has its own.
        master: URL; None for what the settings or Spark's own configuration say, and else `local[*]`.
        workers: tasks at once; None for as many as Spark has cores at the moment.

    Attributes:
        master: the URL it is.

    Raises:
        ConfigError: pyspark is not installed, Spark does not start, or a session on another master is active.
    """

    advice = (
        "the system may have killed them for their memory: give executors more (spark.executor.memoryOverhead),"
        " or fewer cores (spark.executor.cores)"
    )

    def __init__(self, settings: Mapping[str, str], master: str | None, workers: int | None) -> None:
        self._context, self._is_ours = open_context(settings, master)
        self._workers = workers
        self._group = f"fastserve-{uuid4().hex}"
        self._threads = ThreadPoolExecutor(MOST_JOBS, "spark-job")
        self._running: set[Future[Any]] = set()
        self._ended = False
        self._call = _caller()
        self.master = str(self._context.master)
        # Of a local master Spark itself does not try a task again.
        self.patience = 3 if re.fullmatch(r"local(\[[^,]*\])?", self.master) else 1

    @property
    def slots(self) -> int:
        return self._workers or max(1, int(self._context.defaultParallelism))

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        task = pickle.dumps(partial(fn, *args, **kwargs))
        pool = self._context.getLocalProperty(_POOL)  # such properties are a thread's
        future: Future[R] = self._threads.submit(self._job, task, _name(fn), pool)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait=wait and not cancel_futures, cancel_futures=cancel_futures)
        if cancel_futures:
            self._ended = True
            self._cancel()
        if wait and self._is_ours:
            self._context.stop()

    def _cancel(self) -> None:
        """End the jobs that run; again, until they have: one may be about to begin."""
        while running := set(self._running):
            with suppress(Exception):  # a Spark that is gone runs nothing
                self._context.cancelJobGroup(self._group)
            wait(running, timeout=_CANCEL_S)

    def _job(self, task: bytes, name: str, pool: str | None) -> Any:
        """In a thread of its own: run a task, and wait for it."""
        if self._ended:
            raise MaterializeError("the engine was closed")
        self._context.setLocalProperty(_POOL, pool)
        self._context.setJobGroup(self._group, f"fastserve: {name}", interruptOnCancel=True)
        try:
            [answer] = self._context.parallelize([task], 1).map(self._call).collect()
        except Exception as error:
            raise _failure(error) from None
        kind, found = pickle.loads(answer)
        if kind == "lacking":
            raise ConfigError(
                f"a Spark worker cannot import what the task needs: {found}",
                where="--engine spark",
                hint="install this version of fastserve into the Python of the workers, which PYSPARK_PYTHON or"
                " spark.pyspark.python names",
            )
        if kind == "error":
            raise found
        return found


def _caller() -> Callable[[bytes], bytes]:
    """What runs on a worker. Made here, since cloudpickle sends such a function whole: it needs no fastserve there."""

    def call(task: bytes) -> bytes:
        import pickle  # noqa: PLC0415
        import sys  # noqa: PLC0415
        import traceback  # noqa: PLC0415

        try:
            work = pickle.loads(task)
        except ImportError as error:
            return pickle.dumps(("lacking", f"{error} (Python {sys.version.split()[0]}, {sys.executable})"))
        try:
            return pickle.dumps(("value", work()))
        except Exception as error:
            error.add_note("in a Spark worker:\n" + traceback.format_exc())
            try:
                answer = pickle.dumps(("error", error))
                pickle.loads(answer)
            except Exception:
                answer = pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))
            return answer

    return call


def _name(fn: Callable[..., Any]) -> str:
    """What Spark's pages call the job."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__qualname__", type(fn).__name__)


def _failure(error: Exception) -> Exception:
    """Why Spark gave a job up. Whatever a task itself raises comes back as an answer."""
    text = str(error)
    reason = reason_of(text)
    if any(sign in text for sign in _DEATHS):
        return BrokenExecutor(reason)
    return MaterializeError(f"Spark gave a task up: {reason}", where="--engine spark")


def reason_of(text: str) -> str:
    """Of some pages of stack traces the line that Spark ends with, and the one that Python ends with."""
    last = text.rpartition("most recent failure: ")[2]
    lines = [line.strip() for line in re.split(r"\n\s*at ", last)[0].splitlines() if line.strip()]
    if not lines:
        return "it does not say why"
    return lines[0] if lines[-1] == lines[0] else f"{lines[0]} … {lines[-1]}"


# ---- the context ---------------------------------------------------------------------------------


def open_context(settings: Mapping[str, str], master: str | None) -> tuple[Any, bool]:
    """A SparkContext, and whether it is ours to stop; see SparkEngine."""
    try:
        from pyspark import SparkConf, SparkContext  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "pyspark is not installed",
            where="--engine spark",
            hint="pip install 'fastserve[spark]'; it runs on Java 17 or newer",
        ) from None
    master = master or settings.get("spark.master")
    active = SparkContext._active_spark_context
    if active is not None:
        if master and master != active.master:
            raise ConfigError(
                f"a Spark session on {active.master} is active in this process",
                where=f"master {master}",
                hint="leave the master out to use that session, or stop it first",
            )
        return active, False
    if "SPARK_CONNECT_MODE_ENABLED" in os.environ or (master or "").startswith("sc://"):
        raise ConfigError(
            "Spark Connect cannot run tasks: it has no SparkContext",
            where="--engine spark",
            hint="name the cluster itself: spark://HOST:PORT, yarn, k8s://… or local[*]",
        )
    conf = SparkConf().setAppName("fastserve").set("spark.ui.showConsoleProgress", "false")
    conf.setAll(list(settings.items()))
    if master:
        conf.setMaster(master)
    with _own_signals(), _python_of(settings):
        try:
            return SparkContext(conf=conf), True
        except Exception as error:
            raise ConfigError(
                f"Spark does not start: {_start_failure(error)}",
                where=f"master {master}" if master else "--engine spark",
                hint="it runs on Java 17 or newer (JAVA_HOME), and the master must answer",
            ) from None


def session_of(context: Any) -> Any:
    """A SparkSession over it, for what knows columns."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    return SparkSession(context)


@contextmanager
def _own_signals() -> Iterator[None]:
    """SparkContext takes SIGINT for itself; whoever had it gets it back."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if is_main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _python_of(settings: Mapping[str, str]) -> Iterator[None]:
    """The workers' Python: PYSPARK_PYTHON, or the one set, or this one. SparkContext looks into the environment."""
    if "PYSPARK_PYTHON" in os.environ:
        yield
        return
    os.environ["PYSPARK_PYTHON"] = settings.get("spark.pyspark.python", sys.executable)
    try:
        yield
    finally:
        del os.environ["PYSPARK_PYTHON"]


def _start_failure(error: Exception) -> str:
    java = getattr(error, "java_exception", None)
    text = str(java.toString() if java is not None else error)
    return text.strip().partition("\n")[0]
