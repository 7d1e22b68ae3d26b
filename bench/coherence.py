"""From the acknowledgement of a write to the first answer with the new value, from each of four workers.

    writer    10,000 rows a second through the store's own path: newest wins, told by PUBLISH; one is the probe's
    prober    a connection to each worker; the probe's row is in the cache of each before it is written again
    time      the writer's acknowledgement -> the first answer with the new value, asked without pause since then

A worker that was told drops the row, and its next answer is what Redis has; one that was not goes on answering its
copy. That every copy was there shows in the end: each worker has dropped it as often as it was written. All workers
share the servers' core.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import uvloop

from bench.asker import Connection, connect
from bench.measure import Figure, alternate, quiet
from bench.processes import CLIENT_CORE, children, holder
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import Server, World, body_of, metric, until_cached, world
from bench.writer import Writer

WORKERS: Final = 4
ENTITIES: Final = 10_000
PROBE: Final = ENTITIES - 1  # the one entity that the writer writes only when told
RATE: Final = 10_000
WRITES: Final = (100, 10)  # rows a write
PROBES: Final = scaled(500, 20)
GIVE_UP_S: Final = 10.0
QUANTILES: Final = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}


def main() -> int:
    """Measure and write bench/results/coherence.json."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with world(ENTITIES) as made, made.serving("--workers", str(WORKERS)) as server:
        until_cached(server, [0])
        prober = Prober(made, server)
        systems = {str(size): partial(prober.round, size) for size in WRITES}
        report(alternate(systems))
    return 0


@dataclass
class Prober:
    """Measures rounds against one server.

    Attributes:
        number: the probe's value, as written last.
        stale: answers with an older value, asked for after the acknowledgement.
    """

    made: World
    server: Server
    number: int = 0
    stale: int = 0
    _body: bytes = field(default_factory=lambda: body_of([PROBE]))

    def round(self, size: int) -> Mapping[str, float]:
        """PROBES writes, while so many rows go into every write."""
        with quiet():
            return uvloop.run(self._round(size))

    async def _round(self, size: int) -> Mapping[str, float]:
        workers = await self._connect()
        writer = await Writer.start(self.made.repo, ENTITIES - 1, RATE, size)
        dropped, self.stale = metric(self.server, "cache_drops_total"), 0
        times = np.array([await self._probe(writer, workers) for _ in range(PROBES)])
        rate = await writer.stop()
        for connection in workers:
            connection.transport.abort()
        await self._dropped(dropped)
        slowest = times.max(axis=1)
        found = {name: float(np.quantile(slowest, q)) for name, q in QUANTILES.items()}
        one = {"one_worker_p99_ms": float(np.quantile(times, 0.99)), "stale": self.stale / PROBES}
        return {**found, **one, "rows_per_s": rate}

    async def _connect(self) -> list[Connection]:
        """A connection to each worker; the kernel picks one for a connection, so there are some in vain."""
        pids, found = children(self.server.pid), dict[int, Connection]()
        give_up = time.monotonic() + GIVE_UP_S
        while len(found) < WORKERS:
            assert time.monotonic() < give_up, f"connections to {len(found)} of {WORKERS} workers only"
            connection = await connect(self.server.port)
            await connection.answer(self._body)
            pid = holder(self.server.port, connection.transport.get_extra_info("sockname")[1], pids)
            if pid in found or not pid:
                connection.transport.abort()
            else:
                found[pid] = connection
        return list(found.values())

    async def _probe(self, writer: Writer, workers: list[Connection]) -> list[float]:
        """One write: milliseconds until each worker answered it."""
        for _ in range(2):  # what a worker was still fetching when it was told is not kept: ask again
            await asyncio.gather(*(connection.answer(self._body) for connection in workers))
        self.number += 1
        acknowledged = await writer.write(PROBE, self.number)
        seen = await asyncio.gather(*(self._until_seen(connection) for connection in workers))
        return [max(0.0, (at - acknowledged) / 1e6) for at in seen]

    async def _until_seen(self, connection: Connection) -> int:
        give_up = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up:
            answer = await connection.answer(self._body)
            at = time.monotonic_ns()
            if np.frombuffer(answer, "<f4", 1)[0] == self.number:
                return at
            self.stale += 1
        raise AssertionError(f"a worker still does not answer write {self.number}")

    async def _dropped(self, before: float) -> None:
        """Every worker had the row each time. They share their figures once a second."""
        give_up = time.monotonic() + GIVE_UP_S
        while (dropped := metric(self.server, "cache_drops_total") - before) < PROBES * WORKERS:
            assert time.monotonic() < give_up, (
                f"the row was dropped {dropped:g} times, not {PROBES * WORKERS}"
            )
            await asyncio.sleep(0.2)


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Table, targets, file."""
    table = Table(
        f"{WORKERS} workers on one core",
        {
            "p50_ms": "",
            "p99_ms": "",
            "max_ms": "",
            "one_worker_p99_ms": "",
            "stale": "answers a write",
            "rows_per_s": "written",
        },
    )
    for size, rounds in found.items():
        figures = {name: Figure(tuple(v), name != "rows_per_s") for name, v in rounds.items()}
        table.add(f"{size} rows a write", **figures)
    aimed = {name: float(np.median(v)) for name, v in found[str(WRITES[0])].items()}
    targets = [
        Target(f"write -> all of {WORKERS} workers answer the new value, {RATE:,} rows/s, p99, ms",
               aimed["p99_ms"], at_most=20, reach=2),
        Target("rows/s written meanwhile", aimed["rows_per_s"], at_least=0.99 * RATE),
    ]  # fmt: skip
    notes = [
        f'{PROBES} probes a round. Of each write the slowest worker counts, but for "one worker".',
        "The time has an answer's way over HTTP/2 in it, from servers that share a core, and the prober's own wait for "
        "the core that it shares with Redis and the writer.",
    ]
    save("coherence", "From a write to every cache", [table], targets=targets, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
