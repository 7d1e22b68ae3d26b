"""Locust's side: its users switch asking on and off in the engine; what the engine measured becomes locust's events.

A greenlet that also parsed answers would add its own waiting to every latency; so the users' loops are in the engine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from locust import User, task
from locust.env import Environment

from loadtest.data import tool_environ
from loadtest.record import Recorder
from loadtest.settings import Settings


class Run:
    """The engine's process during one test.

    Args:
        settings: of the test.
        environment: locust's, whose `request` event hears of every request.

    Attributes:
        recorder: what came of it so far.
        heard: set when the first answer is in, or failed.
        end: the engine's last words, when `finished` is set.
    """

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self.settings = settings
        self.recorder = Recorder(settings)
        self.end: dict[str, float] = {}
        self.heard = Event()
        self.finished = Event()
        self._environment = environment
        self._names = [f"{format} x {batch}" for _, format, batch in settings.variants]
        self._kinds = [f"HTTP/{http}" for http, _, _ in settings.variants]
        self._users = 0
        command = [sys.executable, "-m", "loadtest.engine", str(settings.core)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=tool_environ()
        )
        self._say_line(settings.dumps())
        self._reading = gevent.spawn(self._read)

    def add_users(self, change: int) -> None:
        """So many users more, or fewer; in an open loop the first one starts the arrivals."""
        self._users += change
        if not self.settings.rate:
            self._say_line(json.dumps({"users": self._users}))
        elif self._users > 0:
            self._say_line(json.dumps({"start": True}))

    def stop(self) -> None:
        """End the test, wait for the answers that are due, and for the engine."""
        self._say_line(json.dumps({"stop": True}))
        self.finished.wait()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()

    def _say_line(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: `finished` says so
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = json.loads(line)
            self.heard.set()
            if "results" in found:
                self.recorder.take(found["results"])
                self._fire(found["results"])
            else:
                self.end = found["end"]
        if not self.end:
            self.recorder.errors["the load generator died"] += 1
        self.heard.set()
        self.finished.set()

    def _fire(self, results: list[Any]) -> None:
        for variant, _, latency_us, _, size, error, message in results:
            self._environment.events.request.fire(
                request_type=self._kinds[variant],
                name=self._names[variant],
                response_time=latency_us / 1_000,
                response_length=size,
                exception=RuntimeError(f"{error}: {message}") if error else None,
                context={},
            )


class _FeatureUser(User):
    """Asks for features for as long as locust lets it."""

    abstract = True

    @property
    def _run(self) -> Run:
        run: Run = self.environment.load_run
        return run

    def on_start(self) -> None:
        """Begin."""
        self._run.add_users(1)

    def on_stop(self) -> None:
        """Cease."""
        self._run.add_users(-1)

    @task
    def asking(self) -> None:
        """The engine asks; this greenlet only exists."""
        self._run.finished.wait()
        gevent.sleep(0.05)


class ClosedLoopUser(_FeatureUser):
    """Waits for each answer before it asks again."""


class OpenLoopUser(_FeatureUser):
    """Asks at the given rate, whatever comes back. One is all it takes."""

    fixed_count = 1


def attach(environment: Environment, settings_of: Callable[[], Settings]) -> AsyncResult[Run]:
    """Make an environment run load tests: an engine for each test, and its end.

    Returns:
        the run of the first test, once it has begun; wait for it with `get()`.
    """
    begun: AsyncResult[Run] = AsyncResult()

    def begin(**_: Any) -> None:
        try:
            environment.load_run = Run(settings_of(), environment)  # type: ignore[attr-defined]
        except Exception as error:  # locust would only log it
            begun.set_exception(error)
        else:
            begun.set(environment.load_run)  # type: ignore[attr-defined]

    def finish(**_: Any) -> None:
        environment.load_run.stop()  # type: ignore[attr-defined]

    environment.events.test_start.add_listener(begin)
    environment.events.test_stop.add_listener(finish)
    return begun
