"""Clients that ask without pause while a server is restarted, and what they make of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastserve.client import AsyncClient, Retry

WAIT_S = 60
PATH = "/online-features/batch"
ONCE = Retry(attempts=1)  # what fails, fails


class Told:
    """The lines of a server's stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._new.put(line)
        self._new.put("")

    def until(self, text: str) -> str:
        """The next line with that in it."""
        while True:
            line = self._new.get(timeout=WAIT_S)
            self.lines.append(line)
            assert line, f"it ended before it said {text!r}: {''.join(self.lines)}"
            if text in line:
                return line

    def restart(self, workers: int) -> None:
        """SIGHUP, until all are replaced."""
        self.process.send_signal(signal.SIGHUP)
        self.until(f"all {workers} workers are restarted")


class Load:
    """Threads that ask until they are told to stop.

    Attributes:
        counts: answers by client.
        wrong: what was not the right answer, by client.
    """

    def __init__(self, port: int, body: str, values: list[Any], tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.body = body
        self.values = values
        self.tls = tls
        self.counts: dict[str, int] = {}
        self.wrong: list[tuple[str, object]] = []
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._progress = threading.Condition()

    def start(self, name: str, run: Callable[[str], None]) -> None:
        """One client in a thread of its own."""
        self.counts[name] = 0
        thread = threading.Thread(target=self._guarded, args=(name, run), name=name)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, name: str, run: Callable[[str], None]) -> None:
        try:
            run(name)
        except Exception as error:
            self.wrong.append((name, error))

    def everybody_asked(self, more: int = 20) -> None:
        """Wait until each client has got that many more answers."""
        with self._progress:
            goal = {name: count + more for name, count in self.counts.items()}
            reached = self._progress.wait_for(
                lambda: self.wrong or all(self.counts[name] >= n for name, n in goal.items()), WAIT_S
            )
        assert reached and not self.wrong, (self.wrong, self.counts)

    def stop(self) -> None:
        """End all of them."""
        self._done.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), thread.name

    def _got(self, name: str, status: int, values: Any) -> None:
        if (status, values) != (200, self.values):
            self.wrong.append((name, (status, values)))
        with self._progress:
            self.counts[name] += 1
            self._progress.notify_all()

    # ---- clients ----

    def keep_alive(self, name: str) -> None:
        """http.client on one connection until the server says that it closes."""
        connection = self._connection()
        while not self._done.is_set():
            self._ask(name, connection)
        connection.close()

    def fresh(self, name: str) -> None:
        """A connection a request: some of them wait in the queue of a listener that ends."""
        while not self._done.is_set():
            connection = self._connection()
            self._ask(name, connection)
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        return http.client.HTTPSConnection("localhost", self.port, timeout=WAIT_S, context=self.tls)

    def _ask(self, name: str, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", PATH, self.body)
        answer = connection.getresponse()
        self._got(name, answer.status, json.loads(answer.read())["values"])

    def own_client(self, version: str, ca: Path | None = None) -> Callable[[str], None]:
        """The project's client, five calls at a time, without a second attempt."""

        async def ask(name: str, client: AsyncClient) -> None:
            asked = json.loads(self.body)
            while not self._done.is_set():
                found = await client.get_online_features(
                    service=asked["feature_service"], entities=asked["entities"], deadline_ms=WAIT_S * 1_000
                )
                self._got(name, 200, list(found.to_dict().values()))

        async def run(name: str) -> None:
            url = f"http://127.0.0.1:{self.port}" if ca is None else f"https://localhost:{self.port}"
            extra = {} if ca is None else {"ca": str(ca)}
            async with AsyncClient(url, http=version, retry=ONCE, **extra) as client:
                await asyncio.gather(*(ask(name, client) for _ in range(5)))

        return lambda name: asyncio.run(run(name))

    def h2load(self, *options: str, body: Path, requests: int = 400) -> Callable[[str], None]:
        """h2load, run after run."""
        command = ["h2load", "-n", str(requests), "-c", "4", "-t", "1", "-d", str(body), *options]
        command.append(f"http://127.0.0.1:{self.port}{PATH}")
        right = f"{requests} succeeded, 0 failed, 0 errored"

        def run(name: str) -> None:
            while not self._done.is_set():
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
                if right not in done.stdout or f"{requests} 2xx" not in done.stdout:
                    self.wrong.append((name, done.stdout))
                self._got(name, 200, self.values)

        return run
