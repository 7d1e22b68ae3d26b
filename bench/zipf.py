"""The cache under a zipf(0.99) load: a million entities, memory for a tenth of them.

Requests are of 1, 10, 100 entities as a tensor. Redis' own count says how many keys it read; latency is of one request
at a time, both servers in turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from bench.asker import ask_all, ask_in_turn
from bench.measure import Figure, alternate
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.stampede import keys_read
from bench.world import Server, World, metric, world
from loadtest.keys import ZipfKeys

ENTITIES: Final = scaled(1_000_000, 5_000)
KEYS: Final = scaled(200_000, 1_000)  # asked for in a round, in requests of each size
SIZES: Final = (1, 10, 100)
BYTES_EACH: Final = 304  # of an entry with its key, row and share of the table, when the cache is full
SYSTEMS: Final = ("a tenth", "none")


def main() -> int:
    """Measure and write bench/results/zipf.json."""
    budget = max(1, round(ENTITIES / 10 * BYTES_EACH / (1 << 20)))
    draw = ZipfKeys(ENTITIES, seed=1)
    with (
        world(ENTITIES, max_staleness="1h") as made,
        made.serving("--cache-mb", str(budget)) as cached,
        made.serving("--cache-mb", "0") as bare,
    ):
        for server in (cached, bare):
            ask_all(server.port, draw.draw(scaled(2_000_000, 1_000)).reshape(-1, 100))
        systems: dict[str, Callable[[], Mapping[str, float]]] = {
            f"{n} {name}": partial(once, made, server, draw, n)
            for n in SIZES
            for name, server in zip(SYSTEMS, (cached, bare), strict=True)
        }
        found = alternate(systems)
        report(found, metric(cached, "cache_entries"))
    return 0


def once(made: World, server: Server, draw: ZipfKeys, n: int) -> Mapping[str, float]:
    """Keys read over keys asked for, with ten requests at a time; latency, of one at a time."""
    before = keys_read(made)
    ask_all(server.port, draw.draw(KEYS).reshape(-1, n), connections=1)
    read = keys_read(made) - before
    asked = ask_in_turn(server.port, draw.draw(max(KEYS // 10, 20 * n)).reshape(-1, n))
    return {"keys_read": read / KEYS, "p50_us": asked.quantile_us(0.5), "p99_us": asked.quantile_us(0.99)}


def report(found: dict[str, dict[str, list[float]]], entries: float) -> None:
    """Table, targets, file."""
    figures = {name: {q: Figure(tuple(v)) for q, v in rounds.items()} for name, rounds in found.items()}
    over = {
        n: {q: value.over(figures[f"{n} none"][q]) for q, value in figures[f"{n} a tenth"].items()}
        for n in SIZES
    }
    table = Table(
        f"zipf 0.99, {ENTITIES:,} entities",
        {
            "keys_read": "a key asked for",
            "p50_us": "",
            "p99_us": "",
            "keys_over_none": "x",
            "p50_over_none": "x",
        },
    )
    for n in SIZES:
        ratios = {"keys_over_none": over[n]["keys_read"], "p50_over_none": over[n]["p50_us"]}
        table.add(f"{n} a request, cache of a tenth", **figures[f"{n} a tenth"], **ratios)
        table.add(f"{n} a request, no cache", **figures[f"{n} none"])
    targets = [
        Target("zipf, cache of a tenth: keys read over those of no cache", over[1]["keys_read"].median,
               at_most=0.25, reach=0.21),
        Target("zipf, cache of a tenth: p50 over that of no cache", over[1]["p50_us"].median,
               at_most=0.6, reach=0.4),
    ]  # fmt: skip
    notes = [
        f"The cache held {entries:,.0f} entities.",
        "The view's max_staleness is an hour: what a shorter one costs depends on the rate of requests alone.",
        "Requests under way share keys, with and without a cache: so no cache reads less than a key a key.",
        "The aims are of one entity a request: of many, most requests miss one key at least, and wait for Redis.",
    ]
    save("zipf", "The cache under a skewed load", [table], targets=targets, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
