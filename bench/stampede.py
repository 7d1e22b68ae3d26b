"""A stampede: 1,000 identical requests of 100 cold keys. How many keys does Redis read?

Twenty connections of fifty streams send one request each: all at once, or a connection a millisecond; to a server
with a cache, and to one without. Then with a leader that goes away: Redis is stopped, one request asks for the keys,
the thousand find them in flight, the first one is cancelled or its connection drops, and Redis goes on. All the others
are answered, with the right values.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from bench.asker import connect
from bench.measure import Figure, alternate
from bench.processes import h2load
from bench.record import Table, Target, save
from bench.world import TENSOR, Server, World, ask, body_of, check, metric, until_cached, world
from fastserve.client.session import Buffer

REQUESTS: Final = 1_000
CONNECTIONS: Final = 20
KEYS: Final = 100
GIVE_UP_S: Final = 10.0

Round = Callable[[World, Server, list[int]], None]


def main() -> int:
    """Measure and write bench/results/stampede.json."""
    patient = ("--max-queue-ms", "10000", "--deadline-ms", "10000")  # Redis is stopped meanwhile
    with (
        tempfile.TemporaryDirectory() as folder,
        world(10_000) as made,
        made.serving(*patient) as cached,
        made.serving(*patient, "--cache-mb", "0") as bare,
    ):
        until_cached(cached, [0])
        at_once, staggered = partial(burst, Path(folder)), partial(burst, Path(folder), staggered=True)
        cold = iter(range(KEYS, 10_000, KEYS))
        systems: dict[str, Callable[[], Mapping[str, float]]] = {
            name: partial(once, made, server, cold, run)
            for name, server, run in (
                ("with the cache", cached, at_once),
                ("with the cache, a connection a millisecond", cached, staggered),
                ("with the cache, the first one is cancelled", cached, partial(leaderless, cancel=True)),
                (
                    "with the cache, the first one's connection drops",
                    cached,
                    partial(leaderless, cancel=False),
                ),
                ("without", bare, at_once),
                ("without, a connection a millisecond", bare, staggered),
            )
        }
        report(alternate(systems))
    return 0


def once(made: World, server: Server, cold: Iterator[int], run: Round) -> Mapping[str, float]:
    """Keys that Redis read for all requests, of a hundred that nobody has asked for."""
    start = next(cold)
    ids = list(range(start, start + KEYS))
    before = keys_read(made)
    run(made, server, ids)
    read = keys_read(made) - before
    check(ask(server.url, body_of(ids), TENSOR), TENSOR, ids)
    return {"keys_read": read, "over_distinct": read / KEYS}


def burst(folder: Path, made: World, server: Server, ids: list[int], *, staggered: bool = False) -> None:
    """By h2load."""
    body = folder / "request.json"
    body.write_bytes(body_of(ids))
    load = h2load(
        server.url,
        server.pid,
        connections=CONNECTIONS,
        streams=REQUESTS // CONNECTIONS,
        requests=REQUESTS,
        body=body,
        headers=[f"accept: {TENSOR}"],
        options=["-r", "1", "--rate-period", "1ms"] if staggered else [],
    )
    assert not load.failed


def leaderless(made: World, server: Server, ids: list[int], *, cancel: bool) -> None:
    """With one request before all others, which goes away before Redis answers."""
    answers: list[Buffer] = uvloop.run(_leaderless(made, server, body_of(ids), cancel))
    assert len(answers) == REQUESTS
    for answer in answers:
        check(bytes(answer), TENSOR, ids)


async def _leaderless(made: World, server: Server, body: bytes, cancel: bool) -> list[Buffer]:
    leader, *others = [await connect(server.port) for _ in range(CONNECTIONS + 1)]
    reads, gone = metric(server, "store_reads_total"), metric(server, "http_cancelled_total")
    os.kill(made.redis_pid, signal.SIGSTOP)
    try:
        stream = leader.ask(body, lambda _: None)
        await _until(server, "store_reads_total", reads + 1)
        asked = [asyncio.ensure_future(other.answer(body)) for other in others * (REQUESTS // CONNECTIONS)]
        await _until(server, "store_reads_total", reads + 1 + REQUESTS)
        if cancel:
            leader.cancel(stream)
        else:
            leader.transport.abort()
        await _until(server, "http_cancelled_total", gone + 1)
    finally:
        os.kill(made.redis_pid, signal.SIGCONT)
    answers = await asyncio.gather(*asked)
    for connection in (leader, *others):
        connection.transport.abort()
    return answers


async def _until(server: Server, name: str, wanted: float) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while await asyncio.to_thread(metric, server, name) < wanted:
            await asyncio.sleep(0)


def keys_read(made: World) -> int:
    """Keys looked up in Redis so far."""
    command = ["redis-cli", "-p", str(made.redis_port), "info", "stats"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(found["keyspace_hits"]) + int(found["keyspace_misses"])


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Table, target, file."""
    table = Table("1,000 requests of the same 100 cold keys", {"keys_read": "", "over_distinct": "x"})
    for name, rounds in found.items():
        table.add(name, **{q: Figure(tuple(values)) for q, values in rounds.items()})
    worst = {name: Figure(tuple(rounds["over_distinct"])).worst for name, rounds in found.items()}
    targets = [
        Target(f"stampede: keys read over distinct keys, {name}, worst round", over, at_most=1.05, reach=1.0)
        for name, over in worst.items()
        if name.startswith("with the cache")
    ]
    save("stampede", "A stampede", [table], targets=targets)


if __name__ == "__main__":
    sys.exit(main())
