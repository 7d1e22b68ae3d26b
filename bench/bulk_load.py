"""Bulk load: rows a second from Arrow batches into Redis, beside `redis-cli --pipe` sending the same rows ready made.

The writer has core 0, Redis core 1. `fresh`: into an empty store. `newer`: every row replaces an older one, and is
compared with it. `older`: none does. `expiring`: as fresh, with a ttl. What redis-cli sends compares nothing, and
replaces whatever is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.bulk_writer import flush
from bench.measure import Figure, alternate
from bench.processes import SERVER_CORE, cpu_s, pinned
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from bench.world import ROOT, redis

ENTITIES: Final = scaled(400_000, 5_000)
KINDS: Final = {  # label, and which of redis-cli's loads it stands beside
    "fresh": ("into an empty store", "fresh"),
    "expiring": ("the same, rows with a ttl", "expiring"),
    "newer": ("newer rows over older ones", "newer"),
    "older": ("older rows, none of which is taken", "newer"),
}


def main(rounds: int = ROUNDS) -> int:
    """Measure and write bench/results/bulk_load.json."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder, redis(folder) as (port, pid):
        files = {kind: Path(folder, f"{kind}.resp") for kind in ("fresh", "newer", "expiring")}
        writer("ready", port, *map(str, files.values()))
        verify(port, files)
        systems = {"fastserve": partial(fastserve, port, pid), "pipe": partial(pipe, port, pid, files)}
        found = alternate(systems, rounds=rounds)
    report(found)
    return 0


def report(found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Table, aims and file."""
    figures = {
        system: {
            name: Figure(tuple(values), not name.endswith("rows_per_s")) for name, values in all_.items()
        }
        for system, all_ in found.items()
    }
    ours, theirs = figures["fastserve"], figures["pipe"]
    columns = {"rows_per_s": "", "over_pipe": "x", "redis_cpu": "us a row", "writer_cpu": "us a row"}
    table = Table(f"{ENTITIES:,} rows of 50 float32", columns)
    ratios = {}
    for kind, (label, beside) in KINDS.items():
        ratios[kind] = ours[f"{kind} rows_per_s"].over(theirs[f"{beside} rows_per_s"])
        table.add(
            label,
            rows_per_s=ours[f"{kind} rows_per_s"],
            over_pipe=ratios[kind],
            redis_cpu=ours[f"{kind} redis_cpu"],
            writer_cpu=ours[f"{kind} writer_cpu"],
        )
    for kind in ("fresh", "expiring", "newer"):
        table.add(
            f"redis-cli --pipe, {KINDS[kind][0]}",
            rows_per_s=theirs[f"{kind} rows_per_s"],
            redis_cpu=theirs[f"{kind} redis_cpu"],
        )
    aims = [
        Target("bulk load over `redis-cli --pipe`: owner writes (rows that are not there)",
               ratios["fresh"].median, at_least=0.8, reach=1.5),
        Target("bulk load over `redis-cli --pipe`: newest wins, every row compared and replaced",
               ratios["newer"].median, at_least=0.3, reach=0.45),
    ]  # fmt: skip
    notes = [
        "From canonical Arrow batches in memory to the last reply: latest row of each key, keys, rows, commands.",
        "Redis is the bound of all of these: its CPU a row is the time a row takes.",
    ]
    save("bulk_load", "Bulk load", [table], targets=aims, notes=notes)


def verify(port: int, files: Mapping[str, Path]) -> None:
    """Both systems leave the same rows, to the byte; raises subprocess.CalledProcessError where not."""
    for kind, path in files.items():
        flush(port)
        redis_cli(port, path)
        writer("check", port, kind)
        flush(port)
        writer("memory", port, kind)
        writer("check", port, kind)


def fastserve(port: int, pid: int) -> Mapping[str, float]:
    """One load of each kind by a new process."""
    found: dict[str, dict[str, float]] = json.loads(writer("load", port, str(pid)))
    quantities = {}
    for kind, took in found.items():
        quantities[f"{kind} rows_per_s"] = ENTITIES / took["seconds"]
        quantities[f"{kind} writer_cpu"] = took["cpu_s"] * 1e6 / ENTITIES
        quantities[f"{kind} redis_cpu"] = took["redis_cpu_s"] * 1e6 / ENTITIES
    return quantities


def pipe(port: int, pid: int, files: Mapping[str, Path]) -> Mapping[str, float]:
    """The same loads by redis-cli, but those that write nothing."""
    quantities = {}
    for kind, path in files.items():
        if kind != "newer":
            flush(port)
        before = cpu_s(pid)
        took = redis_cli(port, path)
        quantities[f"{kind} rows_per_s"] = ENTITIES / took
        quantities[f"{kind} redis_cpu"] = (cpu_s(pid) - before) * 1e6 / ENTITIES
    return quantities


def redis_cli(port: int, path: Path) -> float:
    """Seconds that `redis-cli --pipe` takes for a file."""
    command = pinned(SERVER_CORE, ["redis-cli", "-p", str(port), "--pipe"])
    with path.open("rb") as sent:
        begun = time.perf_counter()
        done = subprocess.run(command, stdin=sent, capture_output=True, text=True, check=True)
        took = time.perf_counter() - begun
    assert f"errors: 0, replies: {ENTITIES}" in done.stdout, done.stdout
    return took


def writer(what: str, port: int, *more: str, entities: int = ENTITIES) -> str:
    """Run bench.bulk_writer on the writer's core; what it prints."""
    command: list[Any] = [sys.executable, "-m", "bench.bulk_writer", what, port, entities, *more]
    command = pinned(SERVER_CORE, list(map(str, command)))
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    sys.exit(main())
