"""What Prometheus scrapes of a worker: the shards it owns, as the store has them at the scrape.

fastserve_stream_shards                                            shards that this worker owns
fastserve_stream_lag_entries{feed,shard}                           entries not applied yet
fastserve_stream_lag_seconds{feed,shard}                           age of the oldest of them
fastserve_stream_watermark_timestamp_seconds{feed,shard}           the newest event time
fastserve_stream_entries_total{feed,shard}
fastserve_stream_events_total{feed,shard,outcome}                  applied, late, duplicates, dead
fastserve_stream_rows_total{feed,shard}                            rows written, each as often as it was
fastserve_stream_takeovers_total{feed,shard}                       owners that lost it without giving it back
process_*, python_info                                             of this process
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastserve.errors import StoreError
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.status import ShardStatus, feed_status
from fastserve.timeutil import MICROS, now_us

_OUTCOMES: Final = ("applied", "late", "duplicates", "dead")


class Owned(Protocol):
    """A shard in somebody's hands."""

    @property
    def feed(self) -> Feed: ...

    @property
    def shard(self) -> int: ...


class Owner(Protocol):
    """Who has shards: a worker."""

    @property
    def owned(self) -> Mapping[tuple[str, int], Owned]:
        """By the feed's name and the shard; others look while it changes."""


def metrics_of(worker: Owner, open_store: Callable[[], FeedStore]) -> CollectorRegistry:
    """The metrics of a worker; its store is asked by connections of their own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_WorkerCollector(worker, open_store))
    return registry


class _WorkerCollector(Collector):
    def __init__(self, worker: Owner, open_store: Callable[[], FeedStore]) -> None:
        self._worker, self._open_store = worker, open_store

    def describe(self) -> list[Metric]:
        """None: registering asks nothing of the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        owned = list(self._worker.owned.values())
        yield GaugeMetricFamily("fastserve_stream_shards", "Shards that this worker owns.", value=len(owned))
        feeds: dict[str, tuple[Feed, list[int]]] = {}
        for shard in owned:
            feeds.setdefault(shard.feed.name, (shard.feed, []))[1].append(shard.shard)
        yield from _families(self._statuses(feeds))

    def _statuses(self, feeds: dict[str, tuple[Feed, list[int]]]) -> list[ShardStatus]:
        try:
            store = self._open_store()
        except StoreError:  # the metrics of the process are still of use
            return []
        try:
            now = now_us()
            return [one for feed, shards in feeds.values() for one in feed_status(store, feed, shards, now)]
        except StoreError:
            return []
        finally:
            store.close()


def _families(statuses: list[ShardStatus]) -> Iterator[Metric]:
    labels = ("feed", "shard")
    lag = GaugeMetricFamily("fastserve_stream_lag_entries", "Entries not applied yet.", labels=labels)
    age = GaugeMetricFamily("fastserve_stream_lag_seconds", "Age of the oldest of them.", labels=labels)
    mark = GaugeMetricFamily(
        "fastserve_stream_watermark_timestamp_seconds", "The newest event time.", labels=labels
    )
    entries = CounterMetricFamily("fastserve_stream_entries", "Entries applied.", labels=labels)
    events = CounterMetricFamily("fastserve_stream_events", "Events by outcome.", labels=(*labels, "outcome"))
    rows = CounterMetricFamily(
        "fastserve_stream_rows", "Rows written, each as often as it was.", labels=labels
    )
    takeovers = CounterMetricFamily("fastserve_stream_takeovers", "Owners that were lost.", labels=labels)
    for one in statuses:
        place, counters = (one.feed, str(one.shard)), one.state.counters
        if one.lag_entries is not None:
            lag.add_metric(place, one.lag_entries)
        age.add_metric(place, one.lag_us / MICROS)
        if one.state.watermark_us is not None:
            mark.add_metric(place, one.state.watermark_us / MICROS)
        entries.add_metric(place, counters.get("entries", 0))
        rows.add_metric(place, counters.get("rows", 0))
        takeovers.add_metric(place, counters.get("takeovers", 0))
        for outcome in _OUTCOMES:
            events.add_metric((*place, outcome), counters.get(outcome, 0))
    yield from (lag, age, mark, entries, events, rows, takeovers)
