"""What a stream worker made servable is what history says, once the events are appended to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from fastserve import FeatureStore
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.integration.streaming.conftest import applied
from tests.integration.streaming.kit import SHARDS, all_read, feed_in, fleet, until
from tests.servers import RedisServer, start_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    started = start_redis(tmp_path / "redis")
    yield started
    started.stop()


def test_streamed_windows(server: RedisServer, tmp_path: Path) -> None:
    repo = applied(tmp_path / "repo", server.url)
    rng, n, now = random.Random(3), 2_000, now_us()
    at = [now - (n - i) * 2 * MICROS for i in range(n)]  # an hour and more, in order
    stream = {
        "card_id": [rng.randrange(40) for _ in range(n)],
        "payment_id": [f"p{i}" for i in range(n)],
        "amount": [rng.lognormvariate(3, 1) for _ in range(n)],
        "status": [rng.choice(["paid", "open", None]) for _ in range(n)],
    }
    for i in rng.sample(range(1, n), 100):  # copies of the event before
        for values in (*stream.values(), at):
            values[i] = values[i - 1]
    times = pa.array(at[:5], pa.timestamp("us", "UTC"))
    batch = {name: values[:5] for name, values in stream.items()} | {"event_timestamp": times}
    pq.write_table(pa.table(batch), repo / "payments.parquet")
    feed, client, feeds = feed_in(repo), redis.Redis.from_url(server.url), RedisFeeds(server.url)
    with FeatureStore(repo) as store, fleet(repo) as workers:
        workers.start()
        store.push("payments", stream | {"event_timestamp": [format_timestamp(t) for t in at]})
        until(lambda: all_read(client, feeds, feed))
        ends = [client.xrevrange(feed.key("log", shard), count=1)[0][0] for shard in range(SHARDS)]
        until(lambda: client.mget([feed.key("archived", shard) for shard in range(SHARDS)]) == ends)
        features = [f"{view}:{name}" for view in ("spend", "paid") for name in ("amount_sum_5m", "count_1h")]
        report = store.verify_answers([*features, "spend:status_last_3_1h", "paid:amount_max_1d"], seed=1)
    feeds.close()
    client.close()
    assert report.answers == 40 and report.counts == {"equal": 240}, str(report)
