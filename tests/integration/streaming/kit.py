"""A repo with views over events, and worker processes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastserve.config import Config
from fastserve.registry import open_registry
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed, feeds_of
from fastserve.streaming.state import decode_state
from tests.servers import ROOT

SHARDS = 4
FEATURES = """
from fastserve import AggregatedFeatureView, Aggregation, Entity, EventSource, Field, FileSource

card = Entity("card", "card_id", "int64")
payments = EventSource("payments", FileSource("payments.parquet", "event_timestamp"),
    schema=[Field("amount", "float64"), Field("status", "string")], event_id="payment_id", lateness="10m")
windows = [
    Aggregation("amount", "sum", windows=["5m", "1h"]),
    Aggregation("*", "count", windows=["1h"]),
    Aggregation("status", "last_n", n=3, windows=["1h"]),
    Aggregation("amount", "max", windows=["1d"]),
]
spend = AggregatedFeatureView("spend", entities=[card], source=payments, aggregations=windows)
paid = AggregatedFeatureView("paid", entities=[card], source=payments, aggregations=windows, filter="status = 'paid'")
"""


def feed_in(repo: Path) -> Feed:
    config = Config.from_repo(repo)
    with open_registry(config.registry, config.project) as registry:
        return feeds_of(registry.snapshot())[0]


class Fleet:
    """Worker processes of a repo."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> dict[str, Any]:
        words = [sys.executable, "-m", "fastserve.cli.main", "stream", "run", "--json", *options]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=self.repo, env=environ, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        ready: dict[str, Any] = json.loads(process.stdout.readline())
        return ready

    def end(self, process: subprocess.Popen[str], number: signal.Signals) -> int:
        self.running.remove(process)
        process.send_signal(number)
        code = process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        return code


@contextmanager
def fleet(repo: Path) -> Iterator[Fleet]:
    made = Fleet(repo)
    try:
        yield made
    finally:
        for process in list(made.running):
            made.end(process, signal.SIGKILL)


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def offsets(store: FeedStore, feed: Feed) -> list[str]:
    held = store.states([(feed, shard) for shard in range(SHARDS)])
    return [decode_state(data, "").offset for data in held]


def all_read(client: Any, store: FeedStore, feed: Feed) -> bool:
    ends = [client.xrevrange(feed.key("log", shard), count=1) for shard in range(SHARDS)]
    return offsets(store, feed) == [end[0][0].decode() if end else "0-0" for end in ends]
