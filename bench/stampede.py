"""A stampede: 1,000 identical requests of 100 cold keys at once. How many keys does Redis read?

Twenty connections of fifty streams send one request each; a cache that was emptied, and a server without one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import Figure
from bench.processes import h2load
from bench.record import Table, Target, save
from bench.world import TENSOR, Server, World, ask, body_of, check, world

REQUESTS = 1_000
KEYS = 100


def main(rounds: int = 5) -> int:
    """Measure and write bench/results/stampede.json."""
    table = Table("1,000 requests of the same 100 cold keys", {"keys_read": "", "over_distinct": "x"})
    with tempfile.TemporaryDirectory() as folder, world(10_000) as made:
        worst = {}
        for name, options in (("with the cache", ()), ("without", ("--cache-mb", "0"))):
            with made.serving(*options) as server:
                reads = [stampede(made, server, Path(folder), list(range(k * KEYS, k * KEYS + KEYS)))
                         for k in range(1, rounds + 1)]  # fmt: skip
            over = Figure(tuple(n / KEYS for n in reads))
            worst[name] = over.worst
            table.add(name, keys_read=Figure(tuple(map(float, reads))), over_distinct=over)
    aim = Target("stampede: keys read over distinct keys, with the cache, worst round", worst["with the cache"],
                 at_most=1.05, reach=1.0)  # fmt: skip
    save("stampede", "A stampede", [table], targets=[aim])
    return 0


def stampede(made: World, server: Server, folder: Path, ids: list[int]) -> int:
    """Keys that Redis read for all of it."""
    check(ask(server.url, body_of([0]), TENSOR), TENSOR, [0])  # connected
    body = folder / "request.json"
    body.write_bytes(body_of(ids))
    before = keys_read(made)
    load = h2load(
        server.url,
        server.pid,
        connections=20,
        streams=50,
        requests=REQUESTS,
        body=body,
        headers=[f"accept: {TENSOR}"],
    )
    assert not load.failed
    read = keys_read(made) - before
    check(ask(server.url, body.read_bytes(), TENSOR), TENSOR, ids)
    return read


def keys_read(made: World) -> int:
    """Keys looked up in Redis so far."""
    command = ["redis-cli", "-p", str(made.redis_port), "info", "stats"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(found["keyspace_hits"]) + int(found["keyspace_misses"])


if __name__ == "__main__":
    sys.exit(main())
