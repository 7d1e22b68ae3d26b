"""The materializer's online writer as a process of its own, for bench/bulk_load.py.

    python -m bench.bulk_writer ready PORT ENTITIES FILE…    SET commands of the same rows, for `redis-cli --pipe`
    python -m bench.bulk_writer load PORT ENTITIES REDIS_PID one load of each kind; a line of JSON with what they took
    python -m bench.bulk_writer check PORT ENTITIES KIND     that the store has the rows of a kind, read back
    python -m bench.bulk_writer memory PORT ENTITIES KIND    one load

Canonical Arrow batches are made beforehand; what is timed is ViewWriter.write: latest row of each key, keys, rows,
commands, and every reply.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import pyarrow as pa
import redis
import uvloop

from bench.processes import cpu_s
from bench.world import FEATURES, NAMES, values
from fastserve.codec import rows_py
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.layout import Layout
from fastserve.definitions import FeatureView, Field
from fastserve.offline.online_rows import OnlineRows
from fastserve.offline.schema import CREATED_TS, EVENT_TS, TIMESTAMP
from fastserve.online import open_store
from fastserve.online.resp_write_py import Milliseconds
from fastserve.registry import RegisteredView
from fastserve.types import Float32
from materializer.stop import Stop
from materializer.write import ViewWriter

CHUNK: Final = 50_000
T0: Final = 1_750_000_000_000_000
DAY_US: Final = 86_400_000_000
KINDS: Final = {"fresh": 0, "newer": 1, "older": -1, "expiring": 2}  # event times, in days after T0
TTL: Final = "30d"


def view(*, expires: bool = False) -> RegisteredView:
    """50 float32, with a ttl or without."""
    made = FeatureView("load", schema=[Field(name, Float32) for name in NAMES], ttl=TTL if expires else None)
    return RegisteredView(
        made, 7, MappingProxyType({"user_id": "int64"}), (Layout(1, NAMES, (Float32,) * FEATURES),)
    )


def chunks(entities: int, kind: str) -> Iterator[pa.RecordBatch]:
    """Canonical rows of every entity, in an order that is not the keys' own."""
    order = np.random.default_rng(5).permutation(entities)
    for start in range(0, entities, CHUNK):
        ids = order[start : start + CHUNK]
        block = values(ids)
        times = pa.array(np.full(len(ids), T0 + KINDS[kind] * DAY_US)).cast(TIMESTAMP)
        columns = {name: np.ascontiguousarray(block[:, f]) for f, name in enumerate(NAMES)}
        yield pa.record_batch({"user_id": ids, EVENT_TS: times, CREATED_TS: times, **columns})


def expected(ids: np.ndarray, kind: str) -> list[bytes]:
    """The rows by the readable twin."""
    block, stamps = values(ids), np.full(len(ids), T0 + KINDS[kind] * DAY_US)
    keys = KeyEncoder(7, ["int64"]).encode([ids], len(ids))
    columns = [pa.array(np.ascontiguousarray(block[:, f])) for f in range(FEATURES)]
    return rows_py.RowEncoder(view().layout).encode(keys, columns, stamps, stamps)


def now_of(kind: str) -> int:
    """The present of a load; lifetimes count from it."""
    return T0 + (KINDS[kind] + 1) * DAY_US


async def load(port: int, batches: list[pa.RecordBatch], kind: str) -> float:
    """Seconds that one load takes, connecting included."""
    writer = ViewWriter(view(expires=kind == "expiring"), now_of(kind), Stop())
    begun = time.perf_counter()
    store = open_store(f"redis://127.0.0.1:{port}")
    written = await writer.write(store, [batches])
    took = time.perf_counter() - begun
    await store.close()
    wanted = 0 if kind == "older" else sum(batch.num_rows for batch in batches)
    assert written == wanted, f"{kind}: {written} rows instead of {wanted}"
    return took


def loads(port: int, entities: int, redis_pid: int) -> dict[str, dict[str, float]]:
    """One load of each kind, the store emptied where it has to be: kind -> seconds, CPU seconds of both processes."""
    found = {}
    for kind in ("fresh", "newer", "older", "expiring"):
        if kind in ("fresh", "expiring"):
            flush(port)
        batches = list(chunks(entities, kind))
        before, redis_before = time.process_time(), cpu_s(redis_pid)
        took = uvloop.run(load(port, batches, kind))
        found[kind] = {
            "seconds": took,
            "cpu_s": time.process_time() - before,
            "redis_cpu_s": cpu_s(redis_pid) - redis_before,
        }
    return found


def flush(port: int) -> None:
    """Empty the store, memory given back."""
    with redis.Redis(port=port) as client:
        client.flushall()


def ready(entities: int, kind: str, path: Path) -> None:
    """What `redis-cli --pipe` sends: a SET for each of the same rows."""
    rows = view(expires=kind == "expiring")
    encoder = OnlineRows(rows)
    with path.open("wb") as out:
        for chunk in chunks(entities, kind):
            for batch, lifetimes in encoder.encoded(chunk, now_of(kind), CHUNK):
                px = None if lifetimes is None else lifetimes // 1_000
                out.write(sets(batch.keys(), batch.rows(), px))


def sets(keys: list[bytes], rows: list[bytes | None], px: Milliseconds) -> bytes:
    """SET key row [PX px] …"""
    parts = []
    for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
        assert row is not None
        command = b"*%d\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
        parts.append(command % (3 if px is None else 5, len(key), key, len(row), row))
        if px is not None:
            parts.append(b"$2\r\nPX\r\n$%d\r\n%d\r\n" % (len(str(px[i])), px[i]))
    return b"".join(parts)


async def check(port: int, entities: int, kind: str) -> None:
    """Raise AssertionError unless the store has all the keys, and a sample of the rows is right to the byte."""
    store = open_store(f"redis://127.0.0.1:{port}", read_only=True)
    encoder = KeyEncoder(7, ["int64"])
    size = len(expected(np.arange(1), kind)[0])
    for start in range(0, entities, CHUNK):
        ids = np.arange(start, min(start + CHUNK, entities))
        found = await _future(store.get_many(encoder.encode([ids], len(ids))))
        assert all(row is not None and len(row) == size for row in found)
        picks = np.random.default_rng(start).integers(0, len(ids), 40)
        assert [found[i] for i in picks] == expected(ids[picks], kind), f"{kind}: a row is wrong"
    await store.close()


async def _future(rows: object) -> list[bytes | None]:
    assert isinstance(rows, asyncio.Future)
    found: list[bytes | None] = await rows
    return found


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    what, port, entities, *more = arguments
    if what == "ready":
        for name in more:
            ready(int(entities), Path(name).stem, Path(name))
    elif what == "load":
        print(json.dumps(loads(int(port), int(entities), int(more[0]))))
    elif what == "memory":
        uvloop.run(load(int(port), list(chunks(int(entities), more[0])), more[0]))
    else:
        uvloop.run(check(int(port), int(entities), more[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
