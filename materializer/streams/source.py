"""The logs of a feed as a Python data source of Spark.

    an offset      {shard: {"end": the log's last entry, "applied": the shard's own offset}}, both as they were
    a partition    a shard whose log goes further than it was applied, up to `end`

What is read begins at the shard's offset as it is then, not where Spark's last batch ended: of what another engine
applied meanwhile, or a batch before it was cut short, nothing comes again; and when the store lost its last second,
nothing is missing. As long as `applied` is not `end`, it moves, so there is a next batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from fastserve.config import Config
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.places import parts_of
from fastserve.streaming.state import decode_state
from materializer.engine import inside
from materializer.streams.tasks import ENTRIES, Row, kept

_ENTRIES: Final = 200
BATCH_BYTES: Final = 16 << 20
"""About how much of a log is in a batch: some 300,000 events, and a task holds it."""


def source_of(config: Config, feed: Feed, name: str) -> type[Any]:
    """The logs of a feed as a class of data source; `name` is its format.

    Made here, since cloudpickle sends such a class whole: options would show what the stores' addresses have in them.
    """

    class FeedSource(DataSource):  # type: ignore[misc]
        @classmethod
        def name(cls) -> str:
            return name

        def schema(self) -> str:
            return ENTRIES

        def streamReader(self, schema: Any) -> LogReader:
            return LogReader(config, feed)

    return FeedSource


class Logs(InputPartition):  # type: ignore[misc]
    """Entries of one log, from the shard's offset on and up to one."""

    def __init__(self, shard: int, end: str) -> None:
        self.shard, self.end = shard, end


class LogReader(DataSourceStreamReader):  # type: ignore[misc]
    """Reads the logs of one feed: offsets on the driver's machine, entries on executors."""

    def __init__(self, config: Config, feed: Feed) -> None:
        self._config, self._feed = config, feed

    def initialOffset(self) -> dict[str, Any]:
        """Before all: where a shard begins is its state's to say."""
        return {}

    def latestOffset(self, start: dict[str, Any], limit: object) -> dict[str, Any]:
        """How far logs and shards are. How much of that a batch has, BATCH_BYTES says."""
        store = self._store()
        shards = range(store.shard_count(self._feed, 1))
        return {
            str(shard): {"end": store.last(self._feed, shard), "applied": applied}
            for shard, applied in zip(shards, self._applied(store, list(shards)), strict=True)
        }

    def partitions(self, start: Mapping[str, Any], end: Mapping[str, Any]) -> list[InputPartition]:
        """The shards that were not at their logs' ends."""
        return [
            Logs(int(shard), at["end"])
            for shard, at in end.items()
            if parts_of(at["applied"]) < parts_of(at["end"])
        ]

    def read(self, partition: InputPartition) -> Iterator[Row]:
        """Entries behind the shard's offset: all up to the partition's end, or about BATCH_BYTES of them."""
        assert isinstance(partition, Logs)
        store, shard, end = self._store(), partition.shard, parts_of(partition.end)
        (after,) = self._applied(store, [shard])
        store.wait(
            {(self._feed, shard): after}, 0
        )  # Kafka's client fetches what it is asked for: this shard alone
        size = 0
        while size < BATCH_BYTES:
            found = [
                entry
                for entry in store.entries(self._feed, shard, after, _ENTRIES)
                if parts_of(entry.id) <= end
            ]
            if not found:
                return
            for entry in found:
                size += sum(map(len, entry.fields.values()))
                yield shard, entry.id, entry.stamped_us, list(entry.fields), list(entry.fields.values())
            after = found[-1].id

    def stop(self) -> None:
        """The query ended."""
        inside.drop()

    def _applied(self, store: FeedStore, shards: list[int]) -> list[str]:
        held = store.states([(self._feed, shard) for shard in shards])
        return [decode_state(data, f"{self._feed.name}").offset for data in held]

    def _store(self) -> FeedStore:
        return kept(self._config).logs
