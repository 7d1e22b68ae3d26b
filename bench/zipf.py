"""The cache under a zipf(0.99) load: a million entities, memory for a tenth of them. One entity a request.

Requests are GET /feature-views/load/online-features?user_id=…, from a list that h2load goes through. Redis' own count
says how many keys it read. Latency is of one connection with one stream at a time, both servers in turns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bench.measure import Figure, alternate
from bench.processes import CLIENT_CORE, pinned
from bench.record import Table, Target, save
from bench.stampede import keys_read
from bench.world import Server, World, metric, world

ENTITIES = 1_000_000
SKEW = 0.99
BYTES_EACH = 365  # of an entry, table and key with it: bench.kernels measures it


def main(requests: int = 200_000, rounds: int = 5) -> int:
    """Measure and write bench/results/zipf.json."""
    with (
        tempfile.TemporaryDirectory() as folder,
        world(ENTITIES) as made,
        made.serving("--cache-mb", str(ENTITIES // 10 * BYTES_EACH >> 20)) as cached,
        made.serving("--cache-mb", "0") as bare,
    ):
        draw = np.random.default_rng(1)
        warm = Path(folder, "warm.txt")
        paths(warm, cached, zipf(draw, 600_000))
        run(warm, 600_000, connections=8, streams=20)
        systems: dict[str, Callable[[], Mapping[str, float]]] = {}
        for name, server in (("cache of a tenth", cached), ("no cache", bare)):
            systems[name] = once(made, server, Path(folder, f"{server.port}.txt"), requests, draw)
        found = alternate(systems, rounds=rounds)
        report(found, metric(cached, "cache_entries"))
    return 0


def zipf(draw: np.random.Generator, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64[n]: ids, those of small rank scattered over the range."""
    weights = 1 / np.arange(1, ENTITIES + 1) ** SKEW
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), draw.random(n))
    return ranks.astype(np.int64) * 7_919 % ENTITIES


def paths(target: Path, server: Server, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """The list for h2load."""
    url = f"http://127.0.0.1:{server.port}/feature-views/load/online-features?user_id="
    target.write_text("".join(f"{url}{i}\n" for i in ids.tolist()))


def run(urls: Path, requests: int, *, connections: int, streams: int) -> tuple[float, float]:
    """Microseconds, p50 and p99, of so many requests."""
    log = urls.with_suffix(".log")
    command = ["h2load", "-c", str(connections), "-m", str(streams), "-n", str(requests), "-i", str(urls)]
    command += [f"--log-file={log}"]
    done = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True)
    assert f"{requests} succeeded" in done.stdout, done.stdout
    times = np.sort(np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()]))
    log.unlink()
    return float(times[len(times) // 2]), float(times[int(len(times) * 0.99)])


def once(
    made: World, server: Server, urls: Path, requests: int, draw: np.random.Generator
) -> Callable[[], Mapping[str, float]]:
    """Keys read per request, of many at once; latency, of one at a time."""

    def measure() -> Mapping[str, float]:
        paths(urls, server, zipf(draw, requests))
        before = keys_read(made)
        run(urls, requests, connections=8, streams=20)
        read = keys_read(made) - before
        p50, p99 = run(urls, requests // 10, connections=1, streams=1)
        return {"keys_read": read / requests, "p50_us": p50, "p99_us": p99}

    return measure


def report(found: dict[str, dict[str, list[float]]], entries: float) -> None:
    """Table, targets, file."""
    table = Table("zipf 0.99, 1,000,000 entities", {"keys_read": "per request", "p50_us": "", "p99_us": ""})
    figures = {name: {q: Figure(tuple(v)) for q, v in rounds.items()} for name, rounds in found.items()}
    for name, row in figures.items():
        table.add(name, **row)
    cached, bare = figures["cache of a tenth"], figures["no cache"]
    targets = [
        Target("zipf, cache of a tenth: keys read over those of no cache",
               cached["keys_read"].over(bare["keys_read"]).median, at_most=0.25, reach=0.21),
        Target("zipf, cache of a tenth: p50 over that of no cache",
               cached["p50_us"].over(bare["p50_us"]).median, at_most=0.6, reach=0.4),
    ]  # fmt: skip
    notes = [
        f"The cache held {entries:,.0f} entities.",
        "Requests of one tick share keys, with and without a cache.",
    ]
    save("zipf", "The cache under a skewed load", [table], targets=targets, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
