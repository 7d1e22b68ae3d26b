"""Events that are pushed: by the SDK, and by POST /push of a real server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fastserve.errors import ConfigError, InvalidDataError
from fastserve.store import FeatureStore
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.integration.streaming.kit import FEATURES, SHARDS, feed_in, fleet, until
from tests.integration.streaming.truth import log_events
from tests.servers import RedisServer, serving
from tests.support import make_repo

MORE = (
    FEATURES
    + """
from fastserve import FeatureView, PushSource
n = FeatureView("n", entities=[card], source=PushSource("payments_daily"), schema=[Field("payments", "int64")])
"""
)


def events(n: int = 3, **change: Any) -> dict[str, Any]:
    at = format_timestamp(now_us() - MICROS)
    return {"card_id": list(range(n)), "event_timestamp": [at] * n, "payment_id": [f"p{i}" for i in range(n)],
            "amount": [1.5] * n, "status": ["paid"] * n, **change}  # fmt: skip


def logged(client: redis.Redis, repo: Path) -> list[dict[str, Any]]:
    feed = feed_in(repo)
    found = [event for shard in range(SHARDS) for event in log_events(client, feed, shard)]
    return sorted(found, key=lambda event: event["card_id"])


def test_a_script_pushes_to_an_event_source(repo: Path, client: redis.Redis) -> None:
    with FeatureStore(repo) as store:
        done = store.push("payments", events())
        assert (done.views, done.rows) == (("paid", "spend"), 3)
        with pytest.raises(InvalidDataError, match="column 'amount', row 1"):
            store.push("payments", events(amount=[1, "x", 2]))
    assert [event["payment_id"] for event in logged(client, repo)] == ["p0", "p1", "p2"]
    assert all(event["created_timestamp"] is not None for event in logged(client, repo))


def test_a_store_without_streams_says_so(tmp_path: Path) -> None:
    made = make_repo(tmp_path, FEATURES, online_store="memory://")
    with FeatureStore(made) as store:
        store.apply()
        with pytest.raises(ConfigError, match="no streams of events"):
            store.push("payments", events())


@pytest.fixture
def served(tmp_path: Path, server: RedisServer, client: redis.Redis) -> Iterator[tuple[Path, int]]:
    made = make_repo(tmp_path / "repo", MORE, online_store=server.url)
    with (made / "fastserve.toml").open("a") as file:
        file.write(f"[streaming]\nshards = {SHARDS}\n")
    with FeatureStore(made) as store:
        store.apply()
    with serving(made) as (port, _):
        yield made, port


def push(port: int, source: str, df: Any, **more: Any) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {"push_source_name": source, "df": df, **more}
    connection.request("POST", "/push", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    return status, text


def test_an_event_is_read_a_moment_later(served: tuple[Path, int], client: redis.Redis) -> None:
    """Over HTTP in and out, with a worker between; the server's cache hears of it."""
    repo, port = served

    def count() -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = {"features": ["spend:count_1h", "paid:amount_sum_1h"], "entities": {"card_id": [1]}}
        connection.request("POST", "/online-features/batch", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["values"]

    assert count() == [[0], [None]]
    with fleet(repo) as workers:
        workers.start()
        push(port, "payments", events())
        until(lambda: count() == [[1], [1.5]])
        push(port, "payments", events())
        push(port, "payments", events(payment_id=["q0", "q1", "q2"]))
        until(lambda: count() == [[2], [3.0]])
    client.flushall()


def test_a_server_takes_events(served: tuple[Path, int], client: redis.Redis) -> None:
    repo, port = served
    assert push(port, "payments", events(amount=[1.5, "NaN", None])) == (200, "")
    amounts = [event["amount"] for event in logged(client, repo)]
    assert amounts[0] == 1.5 and amounts[1] != amounts[1] and amounts[2] is None
    for wrong, message in (
        (events(amount=[1, "x", 2]), "column 'amount', row 1"),
        (events(card_id=[1, None, 2]), "column 'card_id', row 1"),
        (events(more=[1, 2, 3]), "unknown column 'more'"),
        (events(10_001), "10,001 events in one push"),
    ):
        status, text = push(port, "payments", wrong)
        assert status in (413, 422)
        assert message in text
    status, text = push(port, "payments", events(), to="nowhere")
    assert (status, "'nowhere' is no target" in text) == (422, True)
    assert len(logged(client, repo)) == 3, "nothing of them was sent"
    # a push source whose name holds an event source's
    rows = {"card_id": [1], "payments": [2], "event_timestamp": [format_timestamp(now_us() - MICROS)]}
    assert push(port, "payments_daily", rows) == (200, "")
    assert push(port, "payments_", rows)[0] == 422
    assert len(logged(client, repo)) == 3
