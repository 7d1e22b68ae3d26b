"""The floors that the read path is held against. Each is a process of its own: `python -m bench.floors NAME …`.

ready                                       F1: our front end; POST /<size> answers so many ready bytes
mget PORT KEYS SECONDS PREFIX ENTITIES      F2: a bare uvloop protocol with hiredis.Reader: MGETs of random keys,
                                            one after another, no HTTP; prints {"cpu_us", "requests"} per MGET
pauses SECONDS                              the machine's: looks at the clock and does nothing else; prints {"gaps_us"}
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from typing import Any, Final, cast

import hiredis
import numpy as np
import uvloop

from fastserve.http.message import Request, Response
from fastserve.http.server import Server

LEAST_GAP_NS: Final = 10_000  # less is an interrupt, or a look at the clock


async def ready() -> None:
    """Serve until it is killed."""
    answers: dict[str, Response] = {}

    def handler(request: Request) -> Response:
        found = answers.get(request.path)
        if found is None:
            body = bytes(int(request.path[1:]))
            found = answers[request.path] = Response(200, "application/octet-stream", body)
        return found

    server = Server(handler)
    await server.start("127.0.0.1", 0)
    print(json.dumps({"ready": True, "port": server.port}), flush=True)
    await asyncio.Event().wait()


class Mget(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(self, keys: list[list[bytes]], until: float) -> None:
        self._reader = hiredis.Reader()
        self._keys = keys
        self._until = until
        self.requests = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        keys = self._keys[self.requests % len(self._keys)]
        self._transport.write(hiredis.pack_command(("MGET", *keys)))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply: Any = self._reader.gets()
        if reply is False:
            return
        assert all(row is not None for row in reply)
        self.requests += 1
        if asyncio.get_running_loop().time() >= self._until:
            self.done.set_result(None)
        else:
            self._ask()


async def mget(port: int, n: int, seconds: float, prefix: str, entities: int) -> None:
    """Run F2 and print what it took."""
    loop = asyncio.get_running_loop()
    picks = np.random.default_rng(1).integers(0, entities, (1_000, n))
    keys = [[f"{prefix}{i}".encode() for i in row] for row in picks.tolist()]
    before = _cpu_s()
    _, protocol = await loop.create_connection(lambda: Mget(keys, loop.time() + seconds), "127.0.0.1", port)
    await protocol.done
    cpu_us = (_cpu_s() - before) * 1e6 / protocol.requests
    print(json.dumps({"cpu_us": cpu_us, "requests": protocol.requests}), flush=True)


def pauses(seconds: float) -> None:
    """Print the times in which this thread did not run."""
    gc.disable()
    gaps = []
    last = time.perf_counter_ns()
    end = last + int(seconds * 1e9)
    while last < end:
        now = time.perf_counter_ns()
        if now - last > LEAST_GAP_NS:
            gaps.append((now - last) / 1e3)
        last = now
    print(json.dumps({"gaps_us": gaps}), flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    if arguments[0] == "ready":
        uvloop.run(ready())
    elif arguments[0] == "pauses":
        pauses(float(arguments[1]))
    else:
        port, n, seconds, prefix, entities = arguments[1:]
        uvloop.run(mget(int(port), int(n), float(seconds), prefix, int(entities)))


if __name__ == "__main__":
    main(sys.argv[1:])
