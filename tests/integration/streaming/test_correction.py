"""Runs beside workers: rows become history's, and go on; nothing counts twice, whoever is behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve.batch import ReadBatch
from fastserve.config import Config
from fastserve.store import FeatureStore
from fastserve.streaming import owned
from fastserve.streaming.archive import follow
from fastserve.streaming.base import Changes, Correction, MovedError
from fastserve.streaming.feeds import Feed
from fastserve.streaming.owned import OwnedShard, claim
from fastserve.streaming.producer import Producer
from fastserve.streaming.state import decode_state
from fastserve.streaming.stores import open_feeds
from fastserve.timeutil import MICROS, format_timestamp, now_us
from materializer.run import materialize
from tests.integration.streaming.conftest import Kept
from tests.integration.streaming.kit import SHARDS, feed_in
from tests.integration.streaming.load import events
from tests.integration.streaming.truth import of_history, prefix, stored

MINUTE = 60 * MICROS
Event = dict[str, Any]


class Stage:
    """A feed with its shards in our hands, and runs beside it."""

    def __init__(self, kept: Kept) -> None:
        self.repo, self.store, self.client = kept.repo, kept.feeds, kept.client
        self.feed: Feed = feed_in(kept.repo)
        self.config = Config.from_repo(kept.repo)
        self.load([])
        self.owned: list[OwnedShard] = []

    def send(self, rows: Sequence[Event]) -> None:
        """Into the logs, an entry for each ten of a shard."""
        for start in range(0, len(rows), 40):
            part = rows[start : start + 40]
            times = [format_timestamp(row["event_timestamp"]) for row in part]
            columns = {name: [row[name] for row in part] for name in part[0]} | {"event_timestamp": times}
            Producer(self.store, [self.feed], shards=SHARDS).send(columns)

    def load(self, rows: Sequence[Event]) -> None:
        """Into the batch source, in the place of what it had."""
        self.batch = list(rows)
        schema = pa.schema(
            [("card_id", pa.int64()), ("event_timestamp", pa.timestamp("us", "UTC")), ("payment_id", pa.string()),
             ("amount", pa.float64()), ("status", pa.string())]
        )  # fmt: skip
        table = pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in schema})
        pq.write_table(table, self.repo / "payments.parquet")

    def apply(self, most: int = 1_000_000) -> int:
        """What is in the logs, at most so many transactions a shard."""
        if not self.owned:
            found = [claim(self.store, self.feed, shard, "w", [], now_us) for shard in range(SHARDS)]
            self.owned = [shard for shard in found if shard is not None]
            assert len(self.owned) == SHARDS
        done = 0
        for shard in self.owned:
            for _ in range(most):
                if not shard.step():
                    break
                done += 1
        return done

    def let_go(self) -> None:
        for shard in self.owned:
            shard.release()
        self.owned = []

    def archive(self) -> None:
        while follow(self.store, self.config.offline_store, self.feed):
            pass

    def tick(self) -> None:
        """An event of now in every shard, of cards that have no other: what was before is settled."""
        now = now_us()
        self.send([event(1_000 + i, now, f"tick-{now}-{i}") for i in range(40)])
        self.apply()
        assert all(state.watermark_us == now for state in self.states())

    def states(self) -> list[Any]:
        return [decode_state(data, "") for data in self.store.states([(self.feed, s) for s in range(SHARDS)])]

    def run(self, **options: Any) -> int:
        summary = materialize(self.config, **options)
        assert summary.status == "ok", [view.error for view in summary.views]
        return sum(view.rows_online_written for view in summary.views)

    def check(self, *, right: bool = True) -> None:
        """All rows are history's, of the events of logs and batch source."""
        end = now_us()
        wanted = of_history(self.client, self.feed, SHARDS, self.batch, end)
        found = stored(self.client, self.feed, end)
        assert len(wanted) > 20 and found.keys() == wanted.keys()
        assert (found == wanted) is right

    def key(self, card: int) -> bytes:
        return prefix(self.feed.views[0].view_id) + b"%d" % card


@pytest.fixture
def stage(kept: Kept) -> Stage:
    return Stage(kept)


def event(card: int, at: int, name: str, amount: float = 1.5, status: str | None = "paid") -> Event:
    return {"card_id": card, "event_timestamp": at, "payment_id": name, "amount": amount, "status": status}


def in_order(n: int, start: int, step: int, name: str) -> list[Event]:
    """Events in the order of time."""
    kinds = ["paid", "open", None]
    return [event(i * 7 % 20, start + i * step, f"{name}{i}", i * 0.1, kinds[i % 3]) for i in range(n)]


def with_late(n: int, seed: int) -> list[Event]:
    """Events of the two hours before the last one, some late by more than the lateness, some twice."""
    columns = events(n, seed)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    times = pa.array(columns["event_timestamp"]).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    return [{**row, "event_timestamp": at - 60 * MINUTE} for row, at in zip(rows, times, strict=True)]


def reused(rows: Sequence[Event]) -> list[Event]:
    """Ids that come again, half an hour later."""
    return [{**row, "event_timestamp": row["event_timestamp"] + 30 * MINUTE} for row in rows[:100:5]]


def test_late_events_and_reused_ids_are_put_right(stage: Stage) -> None:
    rows = with_late(600, 1)
    stage.send([*rows, *reused(rows)])
    stage.apply()
    stage.tick()
    stage.check(right=False)
    stage.archive()
    assert stage.run() > 5
    stage.check()
    assert stage.run() == 0, "what is right is not written again"
    stage.send(in_order(200, now_us() - 5 * MINUTE, MICROS, "more"))
    stage.apply()
    stage.check()
    stage.archive()
    stage.run()
    stage.check()


def test_verify_agrees_after_a_run(stage: Stage) -> None:
    rows = in_order(300, now_us() - 60 * MINUTE, 8 * MICROS, "p")
    late = [event(i % 20, now_us() - 50 * MINUTE, f"late{i}", 1e6) for i in range(20)]
    stage.send([*rows, *late])
    stage.apply()
    stage.tick()
    stage.archive()
    asked = ["spend:count_1h", "paid:amount_max_1d"]
    with FeatureStore(stage.repo) as store:
        before = store.verify_answers(asked, seed=1)
        stage.run()
        after = store.verify_answers(asked, seed=1)
    assert before.counts.keys() > {"equal"}
    assert after.counts == {"equal": 2 * after.answers}, str(after)


@pytest.mark.parametrize("ahead", ["run", "worker"])
def test_a_worker_with_lag_and_an_archive_with_lag(
    stage: Stage, ahead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch source has all events of the log, too: of those that a worker has before it, none counts twice."""
    monkeypatch.setattr(owned, "_BATCH_BYTES", 1)
    rows = in_order(800, now_us() - 120 * MINUTE, 8 * MICROS, "p")
    stage.send(rows)
    stage.load(rows)
    stage.apply(2)
    if ahead == "run":
        stage.archive()
    stage.run()
    stage.apply(3)
    stage.run()
    stage.archive()
    stage.run()
    assert stage.apply() > SHARDS
    stage.check()
    stage.tick()
    stage.archive()
    stage.run()
    stage.check()


def test_rows_that_are_lost_or_damaged(stage: Stage) -> None:
    stage.send(in_order(600, now_us() - 200 * MINUTE, 8 * MICROS, "p"))
    stage.apply()
    stage.tick()
    stage.archive()
    right = {stage.key(card): stage.client.get(stage.key(card)) for card in (3, 4, 5)}
    row = right[stage.key(3)]
    harmed = dict(zip(right, (row[:-3], b"?", row), strict=True))  # the last is another key's
    assert stage.store.exchange(right, harmed)
    assert stage.run() == 3
    stage.check()


def test_history_before_the_first_event_of_a_stream(stage: Stage) -> None:
    """The log has again what the run has written."""
    rows = in_order(600, now_us() - 90 * MINUTE, 8 * MICROS, "p")
    stage.load(rows[:500])
    assert stage.run() == 40
    stage.send(rows[300:])
    stage.apply()
    stage.check()
    assert sum(state.counters["late"] for state in stage.states()) == 200
    stage.load(rows[:510])
    stage.run()
    stage.check()


def test_history_of_shards_without_events(stage: Stage) -> None:
    """Somebody has begun the feed, but of these entities nothing came."""
    rows = in_order(400, now_us() - 200 * MINUTE, 8 * MICROS, "p")
    stage.apply()
    stage.load(rows[:300])
    assert stage.run() == 40
    stage.let_go()  # a run has moved their states on, as another owner would
    stage.load(rows)
    stage.send(rows[200:320])
    stage.apply()
    stage.tick()
    stage.archive()
    stage.run()
    stage.check()


def test_a_stream_that_stopped(stage: Stage) -> None:
    """The batch source goes on, and so do rows; but not where something waits in a log."""
    stage.send(in_order(300, now_us() - 300 * MINUTE, 8 * MICROS, "streamed"))
    stage.apply()
    stage.archive()
    stage.load(in_order(300, now_us() - 120 * MINUTE, 8 * MICROS, "loaded"))
    assert stage.run() == 40
    stage.check()
    stage.load([*stage.batch, *in_order(300, now_us() - 60 * MINUTE, 8 * MICROS, "again")])
    stage.send(in_order(300, now_us() - 30 * MINUTE, MICROS, "back"))
    assert stage.run() == 0
    stage.let_go()
    stage.apply()
    stage.check(right=False)
    stage.tick()
    stage.archive()
    stage.run()
    stage.check()


def test_without_an_archive_the_batch_source_is_history(kept: Kept) -> None:
    text = (kept.repo / "fastserve.toml").read_text()
    (kept.repo / "fastserve.toml").write_text(text.replace('archive = "200ms"', 'archive = "off"'))
    stage = Stage(kept)
    rows = in_order(900, now_us() - 150 * MINUTE, 8 * MICROS, "p")
    late = [event(i % 20, now_us() - 149 * MINUTE, f"late{i}", 1e6) for i in range(30)]
    stage.send([*rows, *late])
    stage.apply()
    stage.load(rows[:300])  # by night, say: it lacks what came since
    stage.run()
    stage.check(right=False)
    assert sum(state.counters["late"] for state in stage.states()) == 30
    stage.tick()
    stage.load([*rows, *late, event(2_000, now_us() - 11 * MINUTE, "end")])
    stage.run()
    found = stored(stage.client, stage.feed, now_us())
    wanted = of_history(stage.client, stage.feed, SHARDS, [], now_us())
    assert {key: found[key] for key in wanted} == wanted


def test_what_only_the_log_has_is_not_taken_away(stage: Stage) -> None:
    rows = in_order(600, now_us() - 90 * MINUTE, 8 * MICROS, "p")
    stage.send(rows[:400])
    stage.apply()
    stage.archive()
    stage.send(rows[400:])
    stage.apply()
    stage.tick()  # nothing of this is archived
    stage.run()
    stage.check()


def test_a_view_that_is_new_to_a_feed_gets_its_history(stage: Stage) -> None:
    rows = in_order(600, now_us() - 200 * MINUTE, 8 * MICROS, "p")
    stage.send(rows)
    stage.apply()
    stage.let_go()
    stage.archive()
    text = (stage.repo / "features.py").read_text()
    (stage.repo / "features.py").write_text(
        text + text.splitlines()[-1].replace("paid = ", "new = ").replace('"paid"', '"new"', 1)
    )
    FeatureStore(stage.repo).apply()
    stage.feed = feed_in(stage.repo)
    assert len(stage.feed.views) == 3
    stage.tick()
    stage.archive()
    stage.run()
    stage.check()


def row_of(stage: Stage, name: str) -> tuple[bytes, bytes, Correction]:
    """A key, what it holds, and a correction of it to the row of another."""
    key, other = stage.key(3), stage.key(6)
    held, row = stage.client.get(key), stage.client.get(other)
    return key, held, Correction(key, held, row, 60_000_000)


def test_a_row_that_was_put_right_under_a_workers_hands(stage: Stage) -> None:
    """Whoever is second goes by what the first one wrote."""
    stage.send(in_order(200, now_us() - 30 * MINUTE, 8 * MICROS, "p"))
    stage.apply()
    key, held, correction = row_of(stage, "x")
    shard = next(s for s in range(SHARDS) if key in _keys_of(stage, s))
    state = stage.owned[shard].state.encode()
    seen: list[bytes | None] = []
    other, keys = open_feeds(stage.config), ReadBatch([key])

    def late() -> Changes:
        seen.extend(keys.rows())
        assert other.correct(stage.feed, shard, [correction]) == [True]
        return Changes(b"never written")

    def work() -> Changes:
        seen.extend(keys.rows())
        out = ReadBatch([key])
        out.fill([(seen[-1] or b"") + b"!"], 0)
        return Changes(state, [out])

    if "lmdb" not in stage.config.online_store:  # its writers take turns
        with pytest.raises(MovedError):
            stage.store.apply(stage.feed, shard, state, {}, keys, late)
    keys = ReadBatch([key])
    stage.store.apply(stage.feed, shard, state, {}, keys, work)
    if "lmdb" not in stage.config.online_store:
        assert seen == [held, correction.row]
    assert stage.client.get(key) == (seen[-1] or b"") + b"!"
    assert other.correct(stage.feed, shard, [correction]) == [False]
    again = Correction(key, stage.client.get(key), held, 60_000_000)
    absent = Correction(b"none", b"x", held, 1)
    assert other.correct(stage.feed, shard, [again, absent]) == [True, False]
    assert stage.client.get(key) == held and stage.client.get(b"none") is None
    other.close()


def _keys_of(stage: Stage, shard: int) -> list[bytes]:
    from tests.integration.streaming.truth import log_events

    return [stage.key(one["card_id"]) for one in log_events(stage.client, stage.feed, shard)]
