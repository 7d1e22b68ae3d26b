"""Streams: from the log to rows in Redis; from an event to an answer over HTTP; and how soon a new worker works.

throughput   a log that is full; workers are let go, until all of it is applied. Beside it, in the same round: what the
             tile kernel needs for the same events, all at once and from nothing; and what Redis alone needs to write as
             many rows as the workers did, in transactions of the same size
latency      10,000 events and 1,000 batch reads of 100 cards a second; an event now and then is a probe's, and is asked
             for without pause until it is there
restart      a worker with a million cards in the store is killed, and another started: until its first entry is applied

One worker has a core to itself; Redis, and all that asks, has the other. Two workers share a core.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench.measure import Figure, alternate, quiet
from bench.processes import CLIENT_CORE, cpu_s
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.stream_latency import READS_PER_S, latency
from bench.stream_world import Events, Stream, stream, until
from fastserve.aggregations.build import ReadBatch, TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.codec.keys import KeyEncoder
from fastserve.online.changes import channel_of, pack_keys
from fastserve.streaming.owned import MOST_ROWS
from fastserve.timeutil import MICROS, now_us

CARDS: Final = scaled(1_000_000, 2_000)
EVENTS: Final = 2 * CARDS
SPAN_US: Final = 300 * MICROS
ROUNDS: Final = scaled(3, 1)
RESTARTS: Final = scaled(5, 1)
KINDS: Final = {
    "uniform, ids": ("uniform", True, 1),
    "uniform, no ids": ("uniform", False, 1),
    "uniform, no ids, two workers": ("uniform", False, 2),
    "zipf, ids": ("zipf", True, 1),
    "zipf, no ids": ("zipf", False, 1),
}


def main() -> int:
    """Measure and write bench/results/streams.json."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with stream(ids=True) as named, stream(ids=False) as plain:
        systems = {
            label: partial(throughput, named if ids else plain, made(kind), workers)
            for label, (kind, ids, workers) in KINDS.items()
        }
        table, ratios = throughputs(alternate(systems, rounds=ROUNDS))
        plain.clear()
        restarts = restart(named)
    fresh = latency()
    after = Table("a new worker, until it has applied its first entry", {"p50_s": "", "max_s": ""})
    for label, took in restarts.items():
        after.add(label, p50_s=float(np.median(took)), max_s=max(took))
    rates = {name: "" for name in fresh if not name.endswith("_ms")}
    reading = Table("10,000 events/s", {name: "" for name in fresh if name.endswith("_ms")} | rates)
    reading.add("event -> answer over HTTP", **fresh)
    targets = [
        Target("stream -> rows in Redis over the tile kernel's rate, uniform, one worker",
               ratios["uniform, no ids"].median, at_least=0.3, reach=0.6),
        Target(f"event -> answer by HTTP, 10,000 events/s, {READS_PER_S:,} reads/s, p99, ms",
               fresh["p99_ms"], at_most=250, reach=50),
        Target(f"restart of a worker with {CARDS:,} cards, s", max(restarts["stopped"]), at_most=5),
    ]  # fmt: skip
    save("streams", "Streams", [table, reading, after], targets=targets, notes=notes())
    return 0


def notes() -> list[str]:
    """What a reader has to know."""
    return [
        f"{EVENTS:,} events of {CARDS:,} cards within 5 minutes, in the order of time, entries of 500, rows from "
        "nothing; each row was compared with the one that the kernel makes of all events at once.",
        "`rows an event`: rows written over events. The kernel writes each of its rows once, at the end; a worker as "
        f"often as a transaction has it, which is of at most some {MOST_ROWS:,} rows: Redis answers nobody meanwhile.",
        "`Redis alone`: the rate at which Redis, saturated, writes the rows of so many events: MULTI, MSET, PUBLISH, "
        "EXEC. With one Redis no worker is faster, whatever it computes.",
        "The archive for training is off. That a worker was killed is noticed after 3 s: they are in its restart.",
    ]


def prepared(into: Stream, events: Events) -> list[bytes]:
    """The events as commands; the store is empty then."""
    into.clear()
    return into.entries(events)


def made(kind: str, seed: int = 1) -> Events:
    """Events of the last minutes; every card has one at least where they are drawn alike."""
    draw = np.random.default_rng(seed)
    if kind == "uniform":
        cards = np.concatenate([draw.permutation(CARDS), draw.integers(0, CARDS, EVENTS - CARDS)])
    else:
        cards = (CARDS ** draw.random(EVENTS)).astype(np.int64) - 1
    times = np.sort(now_us() - draw.integers(0, SPAN_US, EVENTS))
    return Events(cards, times, np.round(draw.lognormal(3, 1, EVENTS), 2))


# ---- throughput ----


def throughput(into: Stream, events: Events, workers: int) -> Mapping[str, float]:
    """Once, and beside it the kernel and Redis."""
    found = into.drain(prepared(into, events), workers)
    rows = into.rows()
    into.check(events, CARDS)
    return {
        **found,
        "rows": rows / len(events),
        "kernel": kernel(into, events),
        "redis": len(events) / (rows * redis_alone(into)) / 1e6,
    }


def kernel(into: Stream, events: Events) -> float:
    """Millions of events a second, all at once."""
    rv = into.feed.views[0]
    builder = TileBuilder(compile_program(rv.view), rv.layout.layout_id)  # type: ignore[arg-type]
    keys = ReadBatch()
    KeyEncoder(rv.online_id, ["int64"]).encode_into(keys, [np.arange(CARDS)], CARDS)
    column, end = pa.array(events.amounts), int(events.times.max())
    with quiet():
        begun = time.perf_counter()
        builder.build_into(keys, events.cards, events.times, [column], end_us=end, created_us=0)
        return len(events) / (time.perf_counter() - begun) / 1e6


def redis_alone(into: Stream) -> float:
    """Seconds of a row, of Redis' own CPU: written and told."""
    rv = into.feed.views[0]
    n = min(CARDS, 50 * MOST_ROWS)
    keys = KeyEncoder(rv.online_id, ["int64"]).encode([np.random.default_rng(2).permutation(CARDS)[:n]], n)
    pairs = [(key, row) for key, row in zip(keys, into.client.mget(keys), strict=True) if row is not None]
    before = cpu_s(into.redis_pid)
    for start in range(0, len(pairs), MOST_ROWS):
        part = pairs[start : start + MOST_ROWS]
        names = [key for key, _ in part]
        with into.client.pipeline() as pipe:
            pipe.mset(dict(part))
            pipe.publish(channel_of(0), pack_keys(names))
            pipe.execute()
    return (cpu_s(into.redis_pid) - before) / len(pairs)


def throughputs(found: Mapping[str, Mapping[str, list[float]]]) -> tuple[Table, dict[str, Figure]]:
    """The table, and each kind's ratio to the kernel."""
    columns = {"applied": "M/s", "kernel": "M/s", "over_kernel": "x", "redis_alone": "M/s", "over_redis": "x",
               "rows_an_event": "", "worker_cpu": "us an event", "redis_cpu": "us an event"}  # fmt: skip
    table, ratios = Table("from the log to rows in Redis", columns), {}
    for label, of in found.items():
        rate, alone, floor = (Figure(tuple(of[name]), False) for name in ("M/s", "kernel", "redis"))
        ratios[label] = rate.over(alone)
        table.add(
            label,
            applied=rate,
            kernel=alone,
            over_kernel=ratios[label],
            redis_alone=floor,
            over_redis=rate.over(floor),
            rows_an_event=Figure(tuple(of["rows"])),
            worker_cpu=Figure(tuple(of["worker_cpu"])),
            redis_cpu=Figure(tuple(of["redis_cpu"])),
        )
    return table, ratios


# ---- restart ----


def restart(into: Stream) -> dict[str, list[float]]:
    """Seconds from a worker's start to its first entry, with all cards in the store; after a stop, and after a kill."""
    into.drain(prepared(into, made("uniform")), 1)
    assert into.client.dbsize() >= CARDS
    found: dict[str, list[float]] = {"stopped": [], "killed": []}
    for number in range(RESTARTS):
        found["stopped"].append(_restart(into, signal.SIGTERM, 2 * number))
        found["killed"].append(_restart(into, signal.SIGKILL, 2 * number + 1))
    return found


def _restart(into: Stream, how: signal.Signals, seed: int) -> float:
    draw = np.random.default_rng(100 + seed)
    with into.worker() as pid:
        into.until_owned(1)
        os.kill(pid, how)
        if how == signal.SIGTERM:
            until(lambda: not any(state.owner for state in into.states()))
    cards, times = draw.integers(0, CARDS, 500), np.full(500, now_us())
    into.append(into.entries(Events(cards, times, draw.random(500))))
    ends: Any = into.ends()
    begun = time.perf_counter()
    with into.worker():
        until(lambda: into.offsets() == ends)
        return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
