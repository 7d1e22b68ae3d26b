"""Settings, shares and states: what is said where."""

from __future__ import annotations

import pytest

from fastserve.errors import ConfigError, RequestError, StoreError, UnknownObjectError
from fastserve.streaming.feeds import feeds_of
from fastserve.streaming.members import SPARK, share, worker_name
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.state import ShardState, decode_state
from fastserve.streaming.stores import open_own
from fastserve.timeutil import DAY_US
from tests.unit.registry.snapshots import snapshot_of
from tests.unit.streaming.feeds import CARD, payments, spend


def test_settings_have_defaults() -> None:
    assert StreamSettings.of({}) == StreamSettings(4, DAY_US)
    assert StreamSettings.of({"kafka": "h:1"}).kafka == {"bootstrap.servers": "h:1"}
    nested = {"bootstrap": {"servers": "h:1"}, "enable": {"ssl": {"x": True}}}
    assert StreamSettings.of({"kafka": nested}).kafka == {"bootstrap.servers": "h:1", "enable.ssl.x": "true"}
    assert StreamSettings.of({"archive": "off"}).archive_us is None
    assert StreamSettings.of({"shards": 8, "retention": "2d"}) == StreamSettings(8, 2 * DAY_US)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"shard": 1}, "unknown setting 'shard'"),
        ({"cache_mb": 0}, "cache_mb is a number of megabytes, 1 or more, not 0"),
        ({"cache_mb": True}, "cache_mb is a number of megabytes, 1 or more, not True"),
        ({"shards": 0}, "from 1 to 1,024"),
        ({"shards": True}, "from 1 to 1,024"),
        ({"kafka": {"x": 1}}, "kafka needs bootstrap.servers"),
        ({"archive": "on"}, "archive: 'on' is not a duration"),
        ({"retention": "soon"}, "retention: 'soon' is not a duration"),
        ({"trigger": "soon"}, "trigger: 'soon' is not a duration"),
        ({"checkpoint": ""}, "checkpoint is a path or a URL"),
        (
            {"kafka_reader": "spark", "kafka": "h:1"},
            "kafka_reader cannot be 'spark'.*one of client, connector",
        ),
        ({"kafka_reader": "connector"}, "kafka_reader cannot be 'connector'.*set kafka"),
    ],
)
def test_other_settings_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        StreamSettings.of(table)


def test_stores_without_streams_are_refused() -> None:
    with pytest.raises(ConfigError, match="no streams of events"):
        open_own("memory://")


def test_every_shard_is_somebodys() -> None:
    things, workers = list(range(7)), ["a", "b", "c"]
    shares = [share(things, workers, worker) for worker in workers]
    assert sorted(thing for one in shares for thing in one) == things
    assert [len(one) for one in shares] == [3, 2, 2]
    assert share(things, workers, "stranger") == []


def test_a_spark_engine_has_all_shards_and_the_others_none() -> None:
    spark, other = worker_name(SPARK), worker_name(SPARK)
    workers = sorted(["a", spark, "z", other])
    first = min(spark, other)
    assert [share([1, 2], workers, name) for name in ("a", "z", first, max(spark, other))] == [
        [],
        [],
        [1, 2],
        [],
    ]
    assert share([1, 2], ["a", "z"], "a") == [1]


def test_a_state_is_read_as_it_was_written() -> None:
    state = ShardState(epoch=3, owner="w", offset="5-1", watermark_us=7, buckets=(1, 2), counters={"late": 4})
    assert decode_state(state.encode(), "") == state
    assert decode_state(None, "") == ShardState()
    taken = state.claimed("v")
    assert (taken.epoch, taken.owner, taken.counters["takeovers"]) == (4, "v", 1)
    assert state.released().claimed("v").counters["takeovers"] == 0
    for data in (b"", b"{}", b"[1]", b'{"epoch": 1, "buckets": [], "counters": {}, "more": 1}'):
        with pytest.raises(StoreError, match="state of a shard"):
            decode_state(data, "here")


def test_feeds_are_of_source_and_keys() -> None:
    source = payments()
    views = [spend(source), spend(source, "spend2", version=2), spend(source, "kept", online=False)]
    (feed,) = feeds_of(snapshot_of([CARD, source, *views]))
    assert feed.name == "payments:card_id"
    assert [rv.view.name for rv in feed.views] == ["spend", "spend2"]
    assert feed.key("log", 2) == b"!stream:demo:payments:card_id:log:2"
    assert feed.schema.names == [
        "card_id", "event_timestamp", "created_timestamp", "payment_id", "amount", "status"
    ]  # fmt: skip
    with pytest.raises(UnknownObjectError):
        feeds_of(snapshot_of([CARD, source, *views]), "payment")
    with pytest.raises(RequestError, match="no feature view"):
        feeds_of(snapshot_of([source]), "payments")
