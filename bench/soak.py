"""Ten million requests of one entity as a tensor: does memory grow, do requests slow down?

A server of one worker with a cache of a tenth of the entities, so that rows come and go all the time; zipf(0.99) keys
over HTTP/2, new connections every hundredth; a writer that changes a thousand rows a second. After the warm-up the
server's resident memory is looked at after every hundredth.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import uvloop

from bench.asker import Asked, ask_all
from bench.processes import CLIENT_CORE, cpu_s, rss_bytes
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import Server, World, metric, world
from bench.writer import Writer
from loadtest.keys import ZipfKeys

ENTITIES: Final = scaled(200_000, 2_000)
OPTIONS: Final = (
    "--cache-mb",
    str(scaled(6, 1)),
    "--deadline-ms",
    "10000",
)  # a tenth; what is late shows in p99
REQUESTS: Final = scaled(10_000_000, 2_000)
WARM_UP: Final = scaled(500_000, 1_000)
PARTS: Final = scaled(100, 10)  # ten of them a tenth
WRITES: Final = 1_000


def main() -> int:
    """Measure and write bench/results/soak.json."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    draw = ZipfKeys(ENTITIES, seed=1)
    with world(ENTITIES) as made, made.serving(*OPTIONS) as server:
        with writing(made):
            ask_all(server.port, draw.draw(WARM_UP).reshape(-1, 1))
            soak = Soak(server, rss_bytes(server.pid), metric(server, "cache_evictions_total"))
            for _ in range(PARTS):
                soak.part(ask_all(server.port, draw.draw(REQUESTS // PARTS).reshape(-1, 1)))
        report(soak)
    return 0


@contextmanager
def writing(made: World) -> Iterator[None]:
    """Rows change meanwhile, in a process of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        writer = runner.run(Writer.start(made.repo, ENTITIES, WRITES, 100))
        try:
            yield
        finally:
            runner.run(writer.stop())


@dataclass
class Soak:
    """What is seen of a server over the run.

    Attributes:
        rss: bytes after the warm-up.
        evictions: of the cache, by then.
        tenths: of each, the requests' times, the seconds, the server's CPU seconds, and its largest resident memory.
    """

    server: Server
    rss: int
    evictions: float
    asked: list[Asked] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cpu = cpu_s(self.server.pid)

    def part(self, asked: Asked) -> None:
        """A hundredth is over."""
        used = cpu_s(self.server.pid)
        self.asked.append(asked)
        self.cpu.append(used - self._cpu)
        self.resident.append(rss_bytes(self.server.pid))
        self._cpu = used

    def tenth(self, k: int) -> slice:
        """Its parts."""
        size = PARTS // 10
        return slice(k * size, (k + 1) * size)

    def p99_us(self, k: int) -> float:
        """Of the requests of a tenth."""
        return float(np.quantile(np.concatenate([a.times_us for a in self.asked[self.tenth(k)]]), 0.99))


def report(soak: Soak) -> None:
    """Table, targets, file."""
    table = Table(
        f"{REQUESTS:,} requests",
        {
            "requests_per_s": "",
            "cpu_us": "",
            "p50_us": "",
            "p99_us": "",
            "rss_mb": "at its end",
            "drift": "%",
        },
    )
    for k in range(10):
        asked, rss = soak.asked[soak.tenth(k)], soak.resident[soak.tenth(k)][-1]
        n = sum(len(a.times_us) for a in asked)
        table.add(
            f"tenth {k + 1}",
            requests_per_s=n / sum(a.seconds for a in asked),
            cpu_us=sum(soak.cpu[soak.tenth(k)]) * 1e6 / n,
            p50_us=float(np.median(np.concatenate([a.times_us for a in asked]))),
            p99_us=soak.p99_us(k),
            rss_mb=rss / 1e6,
            drift=drift(soak, rss),
        )
    targets = [
        Target("soak: resident memory at the end over that after the warm-up, %, drift",
               abs(drift(soak, soak.resident[-1])), at_most=1),
        Target("soak: p99 of the last tenth over that of the first", soak.p99_us(9) / soak.p99_us(0), at_most=1.1),
    ]  # fmt: skip
    evicted = metric(soak.server, "cache_evictions_total") - soak.evictions
    notes = [
        "One run: a row is a tenth of it, not a median of rounds.",
        f"After a warm-up of {WARM_UP:,} requests it was {soak.rss / 1e6:.1f} MB; the largest since, "
        f"looked at {PARTS} times, {max(soak.resident) / 1e6:.1f} MB.",
        f"Meanwhile the cache let {evicted:,.0f} entries go; {WRITES:,} rows a second changed.",
    ]
    save("soak", "Ten million requests", [table], targets=targets, notes=notes)


def drift(soak: Soak, rss: int) -> float:
    """Percent over what it was after the warm-up."""
    return (rss / soak.rss - 1) * 100


if __name__ == "__main__":
    sys.exit(main())
