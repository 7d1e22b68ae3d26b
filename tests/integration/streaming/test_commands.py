"""`fastserve stream`: sends, works, tells."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fastserve.cli.main import cli, main
from fastserve.store import FeatureStore
from fastserve.streaming.redis_feeds import RedisFeeds
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.integration.streaming.kit import FEATURES, SHARDS, all_read, feed_in, fleet, until
from tests.integration.streaming.truth import prefix
from tests.servers import RedisServer
from tests.support import make_repo

LINES = """
{"card_id": 7, "event_timestamp": "2026-01-02T10:00:00Z", "payment_id": "p1", "amount": 12.5, "status": "paid"}
{"card_id": 7, "event_timestamp": "2026-01-02T10:00:00Z", "payment_id": "p1", "amount": 12.5, "status": "paid"}
{"card_id": 8, "event_timestamp": "2026-01-02T10:00:03Z", "payment_id": "p2", "amount": 3.0, "status": "open"}
""".lstrip()


def stream(repo: Path, *words: str) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["stream", *words, "--repo", str(repo), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_file_becomes_rows_and_numbers(repo: Path, server: RedisServer, client: redis.Redis) -> None:
    (repo / "now.jsonl").write_text(LINES)
    assert stream(repo, "push", "payments", str(repo / "now.jsonl")) == {"source": "payments", "events": 3}
    feed, store = feed_in(repo), RedisFeeds(server.url)
    lags = [one["lag_entries"] for one in stream(repo, "status")]
    assert 1 <= sum(lags) <= 2
    with fleet(repo) as workers:
        ready = workers.start("--port", "0")
        until(lambda: sum(one["lag_entries"] for one in stream(repo, "status")) == 0)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{ready['port']}/metrics").read().decode()
        assert workers.end(workers.running[0], signal.SIGTERM) == 0
    shards = stream(repo, "status")
    for name in ("applied", "duplicates", "late", "dead"):
        told = sum(
            float(line.rsplit(" ", 1)[1])
            for line in metrics.splitlines()
            if line.startswith("fastserve_stream_events_total") and f'outcome="{name}"' in line
        )
        assert told == sum(one.get(name, 0) for one in shards) == {"applied": 2, "duplicates": 1}.get(name, 0)
    assert f"fastserve_stream_shards {SHARDS}.0" in metrics
    assert "fastserve_stream_lag_entries{" in metrics
    assert {one["owner"] for one in shards} == {None}
    assert max(one["watermark"] or "" for one in shards) == "2026-01-02T10:00:03Z"
    assert feed.name == shards[0]["feed"]
    store.close()


def test_mistakes_are_told_in_a_sentence(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "bad.jsonl").write_text(LINES.replace("12.5", '"much"'))
    for words, message in (
        (("push", "payment", str(repo / "bad.jsonl")), "unknown event source 'payment'"),
        (("push", "payments", str(repo / "fastserve.toml")), "is no file of events"),
        (("push", "payments", str(repo / "bad.jsonl")), "amount"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["stream", *words, "--repo", str(repo)])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_an_engine_that_cannot_be_is_told(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "lmdb"
    FeatureStore(make_repo(other, FEATURES, online_store=f"lmdb://{tmp_path}/online")).apply()
    for where, words, message in (
        (repo, ("--master", "local[2]"), "only Spark has a master"),
        (
            other,
            ("--engine", "spark", "--master", "spark://elsewhere:7077"),
            "lmdb:// is a file of this machine",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["stream", "run", *words, "--repo", str(where)])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_a_view_that_is_applied_meanwhile_is_computed_from_then_on(
    repo: Path, server: RedisServer, client: redis.Redis
) -> None:
    feed, store = feed_in(repo), RedisFeeds(server.url)
    with fleet(repo) as workers:
        workers.start()
        (repo / "now.jsonl").write_text(LINES)
        stream(repo, "push", "payments", str(repo / "now.jsonl"))
        until(lambda: all_read(client, store, feed))
        more = (
            'late = AggregatedFeatureView("late", entities=[card], source=payments, aggregations=windows)\n'
        )
        (repo / "features.py").write_text(FEATURES + more)
        with FeatureStore(repo) as features:
            features.apply()
            view_id = features.snapshot.view("late").view_id
        assert len(feed_in(repo).views) == 3

        def written() -> bool:
            for card in range(SHARDS):  # of whichever shard
                at = format_timestamp(now_us() - MICROS)
                event = {"card_id": card, "event_timestamp": at, "payment_id": f"{at}{card}", "amount": 1.0}
                client.xadd(feed.key("log", card), {"json": json.dumps(event)})
            until(lambda: all_read(client, store, feed))
            return bool(list(client.scan_iter(match=prefix(view_id) + b"*")))

        until(written)
    store.close()
