"""Writes rows at a steady rate through the online store's own path: newest wins, and told to the servers.

    python -m bench.writer REPO ENTITIES ROWS_PER_S ROWS_A_WRITE

Rows are of random entities, with the values they had and a later event time: answers stay checkable. A line
`<entity> <number>` on stdin puts a row of that entity into the next write, its first feature the number; once that is
acknowledged the line comes back with the monotonic clock's nanoseconds. At the end of stdin it tells how much it wrote.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.processes import CLIENT_CORE, pinned
from bench.world import ROOT, Rows, values
from fastserve import FeatureStore
from fastserve.config import Config
from fastserve.online import open_store
from loadtest.clock import Alarm


@dataclass
class Writer:
    """This module as a process on the clients' core, and what it says."""

    process: Any

    @classmethod
    async def start(cls, repo: Path, entities: int, rate: int, size: int) -> Writer:
        """One that writes so many rows a second, `size` at a time."""
        command = [sys.executable, "-m", "bench.writer", str(repo), str(entities), str(rate), str(size)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *pinned(CLIENT_CORE, command), stdin=pipe, stdout=pipe, env=env
        )
        await process.stdout.readline()  # type: ignore[union-attr]
        return cls(process)

    async def write(self, entity: int, number: int) -> int:
        """Nanoseconds of the monotonic clock at the acknowledgement."""
        self.process.stdin.write(f"{entity} {number}\n".encode())
        line = await self.process.stdout.readline()
        assert line.split()[:2] == [str(entity).encode(), str(number).encode()], line
        return int(line.split()[2])

    async def stop(self) -> float:
        """Rows a second that it wrote."""
        self.process.stdin.close()
        told = json.loads(await self.process.stdout.readline())
        assert not await self.process.wait()
        return float(told["rows"] / told["seconds"])


class Probes:
    """What stdin asks for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.ended = False
        self._rest = b""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 65_536)
        if not data:
            self.ended = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            entity, number = line.split()
            self.asked.append((int(entity), int(number)))


async def write(repo: Path, entities: int, rate: float, size: int) -> None:
    """Until stdin ends."""
    with FeatureStore(repo) as registered:
        rows = Rows(registered.snapshot.view("load"))
    store = open_store(Config.from_repo(repo).online_store)
    draw = np.random.default_rng(2)
    probes, alarm = Probes(), Alarm()
    written, begun = 0, time.monotonic_ns()
    print(json.dumps({"ready": True}), flush=True)
    while not probes.ended:
        ids = draw.integers(0, entities, size)
        block = values(ids)
        taken, probes.asked = probes.asked[:size], probes.asked[size:]
        for row, (entity, number) in enumerate(taken):
            ids[row] = entity
            block[row] = values([entity])[0]
            block[row, 0] = number
        await store.put_many(*rows.encode(ids, block))
        acknowledged = time.monotonic_ns()
        for entity, number in taken:
            print(entity, number, acknowledged, flush=True)
        written += size
        await alarm.until(begun + int(written / rate * 1e9))
    print(json.dumps({"rows": written, "seconds": (time.monotonic_ns() - begun) / 1e9}), flush=True)
    alarm.close()
    await store.close()


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    repo, entities, rate, size = arguments
    uvloop.run(write(Path(repo), int(entities), float(rate), int(size)))


if __name__ == "__main__":
    main(sys.argv[1:])
