"""A repo with windows over card payments, its feed in a Redis of our own, workers, and what they must make of it.

spend   count, sum, mean and max of the amount over 5m, 1h and 24h, by card; as in bench/aggregations.py
log     entries of 500 events, as a producer sends them, in 4 shards
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis

from bench.processes import CLIENT_CORE, SERVER_CORE, cpu_s, running
from bench.world import ROOT
from bench.world import redis as redis_server
from fastserve import FeatureStore
from fastserve.aggregations.build import ReadBatch, TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.codec.keys import KeyEncoder
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.online.resp_write import encode_command
from fastserve.streaming.events import known
from fastserve.streaming.feeds import Feed, feeds_of
from fastserve.streaming.producer import encode
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.streaming.state import ShardState, decode_state
from fastserve.timeutil import now_us

SHARDS: Final = 4
_WAIT_S: Final = 120.0
_DEFINITIONS: Final = """
from fastserve import AggregatedFeatureView, Aggregation, Entity, EventSource, FeatureService, Field

card = Entity("card", "card_id", "int64")
payments = EventSource("payments", schema=[Field("amount", "float64")], event_id=EVENT_ID, lateness="1h")
windows = ["5m", "1h", "24h"]
spend = AggregatedFeatureView("spend", entities=[card], source=payments, aggregations=[
    Aggregation("*", "count", windows=windows),
    *(Aggregation("amount", function, windows=windows) for function in ("sum", "mean", "max")),
])
model = FeatureService("model", [spend])
"""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Payments in the order of time.

    Attributes:
        cards: int64[n].
        times: int64[n], microseconds UTC.
        amounts: float64[n].
    """

    cards: Ints
    times: Ints
    amounts: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.cards)

    def batch(self, feed: Feed) -> pa.RecordBatch:
        """In the feed's columns, with ids where it has them."""
        columns: dict[str, Any] = {"card_id": self.cards, "amount": self.amounts}
        columns["event_timestamp"] = pa.array(self.times, pa.timestamp("us", "UTC"))
        columns["created_timestamp"] = pa.nulls(len(self), pa.timestamp("us", "UTC"))
        columns["payment_id"] = pa.array(np.arange(len(self))).cast(pa.string())
        kinds = dict(zip(feed.schema.names, feed.schema.types, strict=True))
        arrays = [pa.array(columns[name]).cast(kind) for name, kind in kinds.items()]
        return pa.RecordBatch.from_arrays(arrays, schema=feed.schema)


@dataclass(frozen=True)
class Stream:
    """A repo, its feed, and the Redis of both.

    Attributes:
        redis_pid: whose CPU is counted.
    """

    repo: Path
    url: str
    redis_pid: int
    registry_id: str
    feed: Feed
    store: RedisFeeds
    client: Any

    def clear(self) -> None:
        """Nothing is in Redis but whose it is."""
        self.client.flushall()
        asyncio.run(_claim(self.url, self.registry_id))
        self.store.shard_count(self.feed, SHARDS)

    def entries(self, events: Events) -> list[bytes]:
        """Commands that add these events to the logs, a shard's after the other's."""
        batch = events.batch(self.feed)
        stamped = known(batch, np.full(len(events), now_us(), np.int64))
        return [
            encode_command([b"XADD", feed.key("log", shard), b"*", *chain(*fields.items())], [], rows=False)
            for feed, shard, fields in encode(self.feed, SHARDS, stamped)
        ]

    def append(self, commands: Sequence[bytes]) -> None:
        """Send them, as fast as Redis takes them."""
        connection = self.client.connection_pool.get_connection()
        try:
            for start in range(0, len(commands), 100):
                part = commands[start : start + 100]
                connection.send_packed_command(part)
                for _ in part:
                    connection.read_response()
        finally:
            self.client.connection_pool.release(connection)

    def states(self) -> list[ShardState]:
        """Of all shards, now."""
        return [decode_state(held, "") for held in self.store.states([(self.feed, s) for s in range(SHARDS)])]

    def events(self) -> int:
        """That were applied so far, in all."""
        return sum(state.counters.get("events", 0) for state in self.states())

    def rows(self) -> int:
        """That were written so far, each as often as it was."""
        return sum(state.counters.get("rows", 0) for state in self.states())

    def offsets(self) -> list[str]:
        """Of all shards."""
        return [state.offset for state in self.states()]

    def until_owned(self, workers: int) -> None:
        """Wait until the shards have so many owners."""
        until(
            lambda: (
                (owners := {state.owner for state in self.states()})
                and "" not in owners
                and len(owners) == workers
            )
        )

    @contextlib.contextmanager
    def worker(self, core: int = SERVER_CORE) -> Iterator[int]:
        """A worker process; its pid. Killed at the end."""
        command = [sys.executable, "-m", "fastserve.cli.main", "stream", "run", "--json"]
        env = {"PYTHONPATH": str(ROOT)}
        with running(command, core=core, ready=b'"ready"', env=env, cwd=str(self.repo)) as started:
            yield started.process.pid

    def drain(self, commands: Sequence[bytes], workers: int) -> dict[str, float]:
        """Fill the logs while the workers stand still, and let them go: until all is applied."""
        done = self.events()
        with contextlib.ExitStack() as stack:
            pids = [stack.enter_context(self.worker()) for _ in range(workers)]
            self.until_owned(workers)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            self.append(commands)
            ends = self.ends()
            used, redis_used = sum(map(cpu_s, pids)), cpu_s(self.redis_pid)
            begun = time.perf_counter()
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            until(lambda: self.offsets() == ends, every_s=0.005)
            took = time.perf_counter() - begun
            used, redis_used = sum(map(cpu_s, pids)) - used, cpu_s(self.redis_pid) - redis_used
        n = self.events() - done
        return {
            "M/s": n / took / 1e6,
            "worker_cpu": used / n * 1e6,
            "redis_cpu": redis_used / n * 1e6,
            "events": n,
        }

    def ends(self) -> list[str]:
        """Of all logs the last entry."""
        found = [self.client.xrevrange(self.feed.key("log", shard), count=1) for shard in range(SHARDS)]
        return [entries[0][0].decode() if entries else "0-0" for entries in found]

    def check(self, events: Events, cards: int) -> int:
        """Every row is the one that is made of all these events at once; how many rows there are.

        Raises:
            AssertionError: it is not.
        """
        rv = self.feed.views[0]
        builder = TileBuilder(compile_program(rv.view), rv.layout.layout_id)  # type: ignore[arg-type]
        keys = KeyEncoder(rv.online_id, ["int64"]).encode([np.arange(cards)], cards)
        end, column = int(events.times.max()), pa.array(events.amounts)
        whole = ReadBatch(keys)
        builder.build_into(whole, events.cards, events.times, [column], end_us=end, created_us=0)
        wanted, none, found = whole.rows(), np.empty(0, np.int64), 0
        for start in range(0, cards, 10_000):
            part = keys[start : start + 10_000]
            held, out = ReadBatch(part), ReadBatch(part)
            held.fill(self.client.mget(part), 0)
            builder.build_into(out, none, none, [column[:0]], end_us=end, created_us=0, base=held)
            assert out.rows() == wanted[start : start + len(part)], (
                f"rows of cards from {start} on are not right"
            )
            found += sum(row is not None for row in out.rows())
        return found


def until(done: Any, *, every_s: float = 0.01) -> None:
    """Look again and again. Raises RuntimeError after two minutes."""
    give_up = time.monotonic() + _WAIT_S
    while not done():
        if time.monotonic() > give_up:
            raise RuntimeError("it does not happen: look at the worker's log")
        time.sleep(every_s)


@contextlib.contextmanager
def stream(*, ids: bool) -> Iterator[Stream]:
    """A feed whose events have ids, or none."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder:
        with redis_server(folder, core=CLIENT_CORE) as (port, pid):
            url, repo = f"redis://127.0.0.1:{port}", Path(folder, "repo")
            repo.mkdir()
            event_id = "payment_id" if ids else ""
            (repo / "features.py").write_text(f"EVENT_ID = {event_id!r}\n{_DEFINITIONS}")
            (repo / "fastserve.toml").write_text(
                f'project = "bench"\nonline_store = "{url}"\n[streaming]\nshards = {SHARDS}\narchive = "off"\n'
            )
            with FeatureStore(repo) as features:
                features.apply()
                snapshot = features.snapshot
            store, client = RedisFeeds(url), redis.Redis.from_url(url)
            made = Stream(repo, url, pid, snapshot.registry_id, feeds_of(snapshot)[0], store, client)
            made.clear()
            yield made
            store.close()
            client.close()


async def _claim(url: str, registry_id: str) -> None:
    store = open_store(url)
    await claim(store, registry_id)
    await store.close()
