"""From an event to an answer that has it, at a steady rate of events and reads; and the producer, a process of its own.

    python -m bench.stream_latency REPO     sends 10,000 events a second, a hundred every 10 ms, until stdin ends

A line `<number>` on the producer's stdin puts an event of the probe's card with this amount among the next hundred. The
time counts from when the line was written; amounts rise, so the maximum tells which event an answer has.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import uvloop

from bench.asker import Connection
from bench.measure import quiet
from bench.processes import CLIENT_CORE, cpu_s, pinned
from bench.scale import scaled
from bench.stream_world import SHARDS, Stream, stream
from bench.world import ARROW, ROOT, TENSOR, World
from fastserve.client.session import Buffer
from fastserve.config import Config
from fastserve.registry import open_registry
from fastserve.streaming.feeds import feeds_of
from fastserve.streaming.producer import Producer
from fastserve.streaming.stores import open_feeds
from fastserve.timeutil import now_us
from loadtest.clock import Alarm

CARDS: Final = scaled(100_000, 1_000)
PROBE: Final = CARDS
EVENTS_PER_S: Final = scaled(10_000, 1_000)
READS_PER_S: Final = scaled(1_000, 100)
READ_CARDS: Final = 100
PROBES: Final = scaled(1_000, 20)
EVERY_S: Final = 0.01
PAUSE_S: Final = 0.01
QUANTILES: Final = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}


def latency() -> dict[str, float]:
    """Milliseconds, of probes and of reads, and the rates that were kept."""
    with stream(ids=True) as made, made.worker() as worker:
        made.until_owned(1)
        port = int(made.url.rpartition(":")[2])
        with World(made.repo, port, made.redis_pid, CARDS).serving("--cache-mb", "64") as server:
            pids = {"server": server.pid, "worker": worker, "redis": made.redis_pid}
            with quiet():
                return uvloop.run(_latency(made, server.port, pids))


async def _latency(made: Stream, port: int, pids: Mapping[str, int]) -> dict[str, float]:
    producer = await Sending.start(made.repo)
    reads = Reads([await Reader.connect(port, ARROW) for _ in range(4)])
    reader = asyncio.create_task(reads.run())
    prober = await Reader.connect(port, TENSOR)
    await asyncio.sleep(scaled(3.0, 0.5))  # rows and cache as they will be
    reads.times_ns = array("q")
    used, begun = {name: cpu_s(pid) for name, pid in pids.items()}, time.perf_counter()
    took = np.array([await _probe(producer, prober, 1 + n) for n in range(PROBES)])
    seconds = time.perf_counter() - begun
    busy = {f"{name}_busy": (cpu_s(pid) - used[name]) / seconds for name, pid in pids.items()}
    reads.ended = True
    await reader
    rate = await producer.stop()
    read = np.array(reads.times_ns) / 1e6
    found = {name: float(np.quantile(took, q)) for name, q in QUANTILES.items()}
    found |= {f"read_{name}": float(np.quantile(read, q)) for name, q in QUANTILES.items()}
    refused = sum(connection.refused for connection in reads.connections)
    return {**found, "reads_per_s": reads.rate, "refused": refused, "events_per_s": rate, **busy}


class Reader(Connection):
    """A connection whose requests may be refused by a server that is at its limit.

    Attributes:
        refused: how many were.
    """

    refused: int = 0

    @classmethod
    async def connect(cls, port: int, accept: str) -> Reader:
        """To a server on this machine."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: cls(port, accept), "127.0.0.1", port)
        return made

    def on_answer(
        self, stream_id: int, status: int, headers: list[tuple[bytes, bytes]], body: Buffer
    ) -> None:
        self.refused += status == 429
        super().on_answer(stream_id, 200 if status == 429 else status, headers, body)


async def _probe(producer: Sending, prober: Connection, number: int) -> float:
    """Milliseconds until an answer has event `number`."""
    body = orjson.dumps({"features": ["spend:amount_max_24h"], "entities": {"card_id": [PROBE]}})
    begun = time.monotonic_ns()
    producer.send(number)
    while True:
        answer = await prober.answer(body)
        now = time.monotonic_ns()
        if np.frombuffer(answer, "<f8", 1)[0] == number:
            await asyncio.sleep(PAUSE_S * (number % 7) / 6)  # not in step with the producer
            return (now - begun) / 1e6
        if now - begun > 30e9:
            raise RuntimeError(f"event {number} is in no answer after 30 s")
        await asyncio.sleep(0.0005)


@dataclass
class Reads:
    """Batch reads at a steady rate, whether or not those before were answered.

    Attributes:
        times_ns: of each, from when it was due.
        ended: set to end it.
        rate: reads a second that were answered.
    """

    connections: list[Reader]
    times_ns: array[int] = field(default_factory=lambda: array("q"))
    ended: bool = False
    rate: float = 0.0

    async def run(self) -> None:
        """Until `ended`."""
        draw, alarm = np.random.default_rng(3), Alarm()
        cards = draw.integers(0, CARDS, (512, READ_CARDS)).tolist()
        bodies = [orjson.dumps({"feature_service": "model", "entities": {"card_id": ids}}) for ids in cards]
        begun, number = time.monotonic_ns(), 0
        while not self.ended:
            due = begun + int(number * 1e9 / READS_PER_S)
            await alarm.until(due)
            self._ask(number, bodies[number % len(bodies)], due)
            number += 1
        self.rate = number / (time.monotonic_ns() - begun) * 1e9
        alarm.close()

    def _ask(self, number: int, body: bytes, due: int) -> None:
        connection = self.connections[number % len(self.connections)]
        if connection.lost.done():
            connection.lost.result()
        connection.ask(body, lambda _: self.times_ns.append(time.monotonic_ns() - due))


@dataclass
class Sending:
    """This module as a process on the clients' core."""

    process: Any

    @classmethod
    async def start(cls, repo: Path) -> Sending:
        """One that sends events from now on."""
        command = pinned(CLIENT_CORE, [sys.executable, "-m", "bench.stream_latency", str(repo)])
        env, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=env)
        await process.stdout.readline()  # type: ignore[union-attr]
        return cls(process)

    def send(self, number: int) -> None:
        """Put a probe among the next events."""
        self.process.stdin.write(b"%d\n" % number)

    async def stop(self) -> float:
        """Events a second that it sent."""
        self.process.stdin.close()
        told = json.loads(await self.process.stdout.readline())
        assert not await self.process.wait()
        return float(told["events"] / told["seconds"])


async def produce(repo: Path) -> None:
    """Until stdin ends."""
    config = Config.from_repo(repo)
    with open_registry(config.registry, config.project) as registry:
        feeds = feeds_of(registry.snapshot(), "payments")
    producer, alarm, draw = (
        Producer(open_feeds(config), feeds, shards=SHARDS),
        Alarm(),
        np.random.default_rng(4),
    )
    probes, ended = _asked()
    sent, size, begun = 0, int(EVENTS_PER_S * EVERY_S), time.monotonic_ns()
    print(json.dumps({"ready": True}), flush=True)
    while not ended.is_set():
        cards, amounts = draw.integers(0, CARDS, size), draw.random(size)
        for row, number in enumerate(probes):
            cards[row], amounts[row] = PROBE, number
        probes.clear()
        times = np.full(size, now_us()).astype("datetime64[us]")
        ids = [str(sent + i) for i in range(size)]
        producer.send({"card_id": cards, "event_timestamp": times, "amount": amounts, "payment_id": ids})
        sent += size
        await asyncio.sleep(0)  # `until` does not wait where it is late, and probes are read while it does
        await alarm.until(begun + int(sent / EVENTS_PER_S * 1e9))
    print(json.dumps({"events": sent, "seconds": (time.monotonic_ns() - begun) / 1e9}), flush=True)
    alarm.close()


def _asked() -> tuple[list[int], asyncio.Event]:
    """Numbers as they come on stdin, and whether it has ended."""
    probes: list[int] = []
    ended, rest = asyncio.Event(), bytearray()

    def read() -> None:
        data = os.read(sys.stdin.fileno(), 65_536)
        if not data:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            ended.set()
        rest.extend(data)
        *lines, left = bytes(rest).split(b"\n")
        rest[:] = left
        probes.extend(map(int, lines))

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), read)
    return probes, ended


if __name__ == "__main__":
    uvloop.run(produce(Path(sys.argv[1])))
