"""The process that asks: the project's client on uvloop, away from locust's greenlets, which would delay its clock.

Lines of JSON. In: the settings, then {"users": n} (users that ask in a closed loop), {"start": true} (the open loop's
arrivals begin) and {"stop": true}. Out: {"results": [[variant, second, latency µs, lag µs, bytes, error, message]]} ten
times a second, then {"end": …}. A closed standard input is a stop.

A latency counts from the moment the request was *meant* to leave. When the server stalls, the requests that had to wait
for it count with their waiting: no coordinated omission. `lag` is how late this process was by its own fault.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import uvloop

from fastserve.client import wire
from fastserve.client.aio import open_transport
from fastserve.client.options import Endpoint, Options
from fastserve.client.transport import Transport
from fastserve.errors import FastserveError, UnreachableError
from loadtest.check import Checker, WrongAnswerError
from loadtest.clock import Alarm
from loadtest.keys import ZipfKeys
from loadtest.settings import FORMATS, Settings

FLUSH_S: Final = 0.1
NS: Final = 1_000_000_000
Result = tuple[int, float, int, int, int, str, str]


class _Output(asyncio.Protocol):
    """The pipe to whoever started this process."""

    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class Engine:
    """One load test; lives on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._data = settings.data
        self._keys = ZipfKeys(settings.entities, settings.zipf)
        self._keys.draw(1)  # the tables are made now, not at the first request
        self._checker = Checker(self._data)
        self._variants = list(enumerate(settings.variants))
        self._next_variant = itertools.cycle(self._variants)
        self._opened: list[Transport] = []
        self._transports = {http: self._pool(http) for http in settings.http}
        self._results: list[Result] = []
        self._users: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[bool]] = set()
        self._begun_ns = 0
        self._begun = asyncio.Event()
        self._stop = asyncio.Event()
        self._spent = (0.0, 0.0, 0.0)  # seconds while measuring: in all, on a core, waiting for one
        self.unsent = 0

    def _pool(self, http: str) -> Iterator[Transport]:
        """Transports in turns: HTTP/2 has one for each connection; HTTP/1.1 shares its connections by itself."""
        settings = self._settings
        share = 1 if http == "2" else settings.connections
        options = Options(http=http, max_connections=share)
        endpoint = Endpoint.parse(settings.host)
        made = [open_transport(endpoint, options) for _ in range(settings.connections // share)]
        self._opened += made
        return itertools.cycle(made)

    # ---- one request ----

    async def _ask(self, intended_ns: int = 0) -> bool:
        """Ask once and note what came; intended_ns is 0 for now. Whether the answer was right."""
        index, (http, format, batch) = next(self._next_variant)
        ids = self._keys.draw(batch)
        call: wire.Call[Any] = wire.online_features(
            None, {self._data.key: ids}, service=self._data.view, full_feature_names=False,
            deadline_ms=None, format="json", expect_fingerprint=None,
        )  # fmt: skip
        headers = {"accept": FORMATS[format], "content-type": wire.JSON, "user-agent": "fastserve-loadtest"}
        sent_ns = time.monotonic_ns()
        intended_ns = intended_ns or sent_ns
        size, error, message = 0, "", ""
        answered_ns = 0
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await next(self._transports[http]).send(call.method, call.path, headers, call.body)
            answered_ns = time.monotonic_ns()
            size = len(answer.body)
            self._checker.check(format, answer, ids)
        except WrongAnswerError as wrong:
            error, message = wrong.args
        except TimeoutError:
            error, message = "timeout", f"no answer within {self._settings.timeout_s} s"
        except UnreachableError as lost:
            error, message = "unreachable", str(lost)
        except FastserveError as failed:
            error, message = type(failed).__name__, str(failed)
        latency_us = ((answered_ns or time.monotonic_ns()) - intended_ns) // 1_000
        second = (intended_ns - self._begun_ns) / NS - self._settings.warmup_s
        lag_us = (sent_ns - intended_ns) // 1_000
        self._results.append((index, round(second, 4), latency_us, lag_us, size, error, message))
        return not error

    # ---- how often ----

    def _begin(self) -> None:
        if not self._begun.is_set():
            self._begun_ns = time.monotonic_ns()
            self._begun.set()

    async def _open_loop(self) -> None:
        """Send at the given rate, whatever comes back."""
        settings, rate = self._settings, self._settings.rate
        alarm = Alarm()
        end_s = settings.warmup_s + settings.seconds if settings.seconds else float("inf")
        at_s = 0.0
        try:
            while at_s < end_s and not self._stop.is_set():
                at_ns = self._begun_ns + int(at_s * NS)
                await alarm.until(at_ns)
                if time.monotonic_ns() - at_ns > settings.timeout_s * NS:
                    self.unsent += (
                        1  # hopelessly late: to send it now would only load the server at another rate
                    )
                else:
                    task = asyncio.create_task(self._ask(at_ns))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)
                at_s += random.expovariate(rate) if settings.arrivals == "poisson" else 1 / rate
        finally:
            alarm.close()

    async def _user(self) -> None:
        """Ask, wait for the answer, ask again."""
        while True:
            if not await self._ask():
                await asyncio.sleep(0.01)  # a server that is gone refuses faster than anybody can count

    def _set_users(self, n: int) -> None:
        while len(self._users) < n:
            self._users.append(asyncio.create_task(self._user()))
        for task in self._users[n:]:
            task.cancel()
        del self._users[n:]

    # ---- the run ----

    async def run(self) -> None:
        """Until the time is over or a stop comes."""
        loop = asyncio.get_running_loop()
        pipe, output = await loop.connect_write_pipe(_Output, sys.stdout)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        commands = asyncio.create_task(self._obey(reader))
        flushing = asyncio.create_task(self._flush(pipe))
        gc.collect()
        gc.freeze()
        await self._work()
        commands.cancel()
        flushing.cancel()
        for transport in self._opened:
            await transport.close()
        self._send_results(pipe)
        if not pipe.is_closing():
            pipe.write(json.dumps({"end": self._end()}).encode() + b"\n")
            pipe.close()
        await output.closed

    async def _work(self) -> None:
        settings = self._settings
        stopped = asyncio.create_task(self._stop.wait())
        begun = asyncio.create_task(self._begun.wait())
        await asyncio.wait([stopped, begun], return_when=asyncio.FIRST_COMPLETED)
        arrivals = None
        if settings.rate and self._begun.is_set():
            arrivals = asyncio.create_task(self._open_loop())
        await asyncio.wait([stopped], timeout=settings.warmup_s)
        before = _spent()
        await asyncio.wait([stopped], timeout=settings.seconds or None)
        wall, cpu, waited = (now - then for now, then in zip(_spent(), before, strict=True))
        self._spent = (wall, cpu, waited)
        if arrivals is not None:
            await arrivals
        if self._asking:  # they end by themselves, within timeout_s
            await asyncio.wait(self._asking)
        self._set_users(0)
        begun.cancel()
        self._stop.set()

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            command = json.loads(line)
            if "users" in command:
                self._begin()
                self._set_users(command["users"])
            elif "start" in command:
                self._begin()
            else:
                break
        self._stop.set()

    async def _flush(self, pipe: asyncio.WriteTransport) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._send_results(pipe)

    def _send_results(self, pipe: asyncio.WriteTransport) -> None:
        if self._results and not pipe.is_closing():  # closed: nobody is left to be told
            results, self._results = self._results, []
            pipe.write(json.dumps({"results": results}).encode() + b"\n")

    def _end(self) -> dict[str, float]:
        seconds, cpu, waited = self._spent
        shares = {"cpu_share": cpu / max(seconds, 1e-9), "wait_share": waited / max(seconds, 1e-9)}
        return {"seconds": seconds, "unsent": self.unsent, **shares}


def _spent() -> tuple[float, float, float]:
    """Seconds by the clock, on a core, and ready to run while others had the core; the last is 0 without schedstat."""
    try:
        with open("/proc/self/schedstat") as stat:
            waited = int(stat.read().split()[1]) / NS
    except OSError:
        waited = 0.0
    return time.monotonic(), time.process_time(), waited


async def _main() -> None:
    settings = Settings.loads(sys.stdin.buffer.raw.readline())  # type: ignore[union-attr]  # not a byte further
    await Engine(settings).run()


def main() -> int:
    """Read the settings and run; started by loadtest.run."""
    if len(sys.argv) > 1 and int(sys.argv[1]) >= 0:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(_main())
    return 0


if __name__ == "__main__":
    sys.exit(main())
