"""Workers killed at any moment, under load with late events, copies and rubbish: every event counts once.

FASTSERVE_CRASH_KILLS says how often, and then logs are in Kafka too; FASTSERVE_CRASH_SEED says when.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from fastserve.config import Config
from fastserve.offline.streamed import events_uri
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.producer import Producer
from fastserve.streaming.state import decode_state
from fastserve.timeutil import MICROS, now_us
from tests.integration.streaming.conftest import Kept
from tests.integration.streaming.kit import SHARDS, all_read, feed_in, fleet, offsets, until
from tests.integration.streaming.load import events, sending
from tests.integration.streaming.truth import expected, log_events, stored

STORES = ["redis", "lmdb", *(["kafka"] if "FASTSERVE_CRASH_KILLS" in os.environ else [])]
KILLS = int(os.environ.get("FASTSERVE_CRASH_KILLS", "1"))


def load(store: FeedStore, client: Any, feed: Feed) -> AbstractContextManager[None]:
    """Events all the time, and now and then what is none."""
    producer = Producer(store, [feed], shards=SHARDS)

    def send(seed: int) -> None:
        producer.send(events(60, seed, 900 * MICROS))
        if seed % 5 == 0:
            client.xadd(feed.key("log", seed % SHARDS), {"json": "[]", "seed": seed})

    # Logs in librdkafka's cluster keep 5 MiB, and all of it is compared in the end.
    return sending(send, 0.03 * max(1, KILLS / 25))


def check(client: Any, store: FeedStore, feed: Feed) -> None:
    end = now_us()
    rows, outcomes = expected(client, feed, SHARDS, end)
    assert stored(client, feed, end) == rows
    for shard, outcome in enumerate(outcomes):
        counters = decode_state(store.states([(feed, shard)])[0], "").counters
        found = [counters[name] for name in ("applied", "late", "duplicates")]
        assert found == [len(outcome.kept), outcome.late, outcome.duplicates]
        assert min(found) > 0
        rubbish = [1 for _, fields in client.xrange(feed.key("log", shard)) if fields.get(b"json") == b"[]"]
        letters = [f for _, f in client.xrange(feed.key("dead")) if f[b"shard"] == b"%d" % shard]
        assert counters["dead"] == len(letters) == len(rubbish)


def all_archived(client: Any, feed: Feed) -> bool:
    ends = [client.xrevrange(feed.key("log", shard), count=1)[0][0] for shard in range(SHARDS)]
    return client.mget([feed.key("archived", shard) for shard in range(SHARDS)]) == ends


def check_archive(client: Any, feed: Feed, repo: Path) -> None:
    """The offline store has every event of every entry, as often as the logs have it."""
    uri = events_uri(Config.from_repo(repo).offline_store, feed.project, "payments", ["card_id"])
    table = DeltaTable(uri).to_pyarrow_table()
    names = ["card_id", "payment_id", "amount"]
    found = Counter(zip(*(table[name].to_pylist() for name in names), strict=True))
    events = [event for shard in range(SHARDS) for event in log_events(client, feed, shard)]
    assert found == Counter(tuple(event[name] for name in names) for event in events)


@pytest.mark.parametrize("kept", STORES, indirect=True)
def test_killed_workers_lose_and_double_nothing(kept: Kept) -> None:
    rng = random.Random(int(os.environ.get("FASTSERVE_CRASH_SEED", "1")))
    repo, store, client = kept.repo, kept.feeds, kept.client
    feed = feed_in(repo)
    with fleet(repo) as workers:
        with load(store, client, feed):
            workers.start()
            for _ in range(KILLS):  # one of two is killed, each time
                workers.start()
                before = offsets(store, feed)
                until(lambda before=before: offsets(store, feed) != before)
                time.sleep(rng.uniform(0, 0.2))  # when, is the point
                workers.end(rng.choice(workers.running), signal.SIGKILL)
        until(lambda: all_read(client, store, feed) and all_archived(client, feed))
        for process in list(workers.running):
            assert workers.end(process, signal.SIGTERM) == 0
    check(client, store, feed)
    check_archive(client, feed, repo)
    held = store.states([(feed, shard) for shard in range(SHARDS)])
    assert [decode_state(data, "").owner for data in held] == [""] * SHARDS
