"""Feeds whose logs are Kafka topics; their states and rows are in the online store, as ever.

    topic       fastserve.<project>.<source>.<join keys>, a partition a shard
    message     the value is what an entry's field holds: Arrow, if a header `format` = `arrow` says so; else JSON
    id          one more than the offset: ``18-0`` is the message at 17, and what is read on from

Nothing is committed to Kafka and no group is joined: the offset is in the shard's state, and moves with the rows. So
Kafka gives what it has from there on, whoever reads. How long it keeps messages is its own affair.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastserve.errors import ConfigError, StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.streaming.base import FeedStore, Place
from fastserve.streaming.entries import ARROW, JSON, Entry
from fastserve.streaming.feeds import Feed
from fastserve.streaming.places import parts_of

try:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic
except ImportError as error:
    raise ConfigError(
        "logs in Kafka need confluent-kafka", where="[streaming] kafka", hint="pip install 'fastserve[kafka]'"
    ) from error

_TIMEOUT_S: Final = 10.0
_DRAIN: Final = 1_000
_FORMAT: Final = "format"
_CONSUMER: Final = {
    "group.id": "fastserve",  # has to be given; nobody joins it
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "fetch.wait.max.ms": 100,
}
_Partition = tuple[str, int]


class KafkaFeeds:
    """A FeedStore; see the module's docstring.

    Args:
        settings: librdkafka's; ``bootstrap.servers`` is among them.
        store: of states and rows; closed with this.
    """

    lanes = 1  # there is one consumer

    def __init__(self, settings: Mapping[str, str], store: FeedStore) -> None:
        self._store, self._servers = store, settings["bootstrap.servers"]
        self._common = {"client.id": "fastserve", "log_level": 4, **settings}
        self._producer: Any = None
        self._consumer: Any = None
        self._buffers: dict[_Partition, deque[Any]] = {}
        self._next: dict[_Partition, int] = {}  # the offset that is handed out next
        self.states, self.swap, self.ids, self.values = store.states, store.swap, store.ids, store.values
        self.apply, self.beat, self.leave = store.apply, store.beat, store.leave
        self.correct, self.exchange = store.correct, store.exchange
        self.note_archived = store.note_archived

    def shard_count(self, feed: Feed, wanted: int) -> int:
        """See FeedStore: as many as the topic has partitions; it is made where there is none."""
        topic = topic_of(feed)
        try:
            admin = AdminClient(self._common)
            about = admin.list_topics(timeout=_TIMEOUT_S).topics.get(topic)
            if about is None:
                admin.create_topics([NewTopic(topic, wanted, -1)])[topic].result(_TIMEOUT_S)
                return self._store.shard_count(feed, wanted)
        except KafkaException as error:
            raise self._failed(error) from error
        count = self._store.shard_count(feed, len(about.partitions))
        if count != len(about.partitions):
            raise ConfigError(
                f"topic {topic} has {len(about.partitions)} partitions, and the feed {count} shards",
                where=f"Kafka at {self._servers}",
                hint="entities would change their shards; the number stays as it was",
            )
        return count

    def append(self, entries: Sequence[tuple[Feed, int, Mapping[bytes, bytes]]]) -> None:
        """See FeedStore; acknowledged by all replicas that are in sync."""
        if self._producer is None:
            self._producer = Producer({**self._common, "enable.idempotence": True, "linger.ms": 5})
        failed: list[Any] = []

        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            for feed, shard, fields in entries:
                arrow = ARROW in fields
                self._producer.produce(
                    topic_of(feed),
                    value=fields[ARROW if arrow else JSON],
                    partition=shard,
                    headers=[(_FORMAT, ARROW)] if arrow else None,
                    on_delivery=told,
                )
            left = self._producer.flush(_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise self._failed(error) from error
        if left:
            self._producer.purge()
            raise StoreTimeoutError(f"Kafka at {self._servers} did not answer in time")
        if failed:
            raise StoreUnavailableError(f"Kafka at {self._servers} refused events: {failed[0].str()}")

    def entries(self, feed: Feed, shard: int, after: str, count: int) -> list[Entry]:
        """See FeedStore."""
        place, wanted = (topic_of(feed), shard), parts_of(after)[0]
        if self._next.get(place) != wanted:
            self._next[place] = wanted
            self._assign()
        self._take(_DRAIN, 0.0)
        if not self._buffers[place] and self._end(place) > wanted:
            self._take_first(place)
        buffer = self._buffers[place]
        found = [buffer.popleft() for _ in range(min(count, len(buffer)))]
        if found:
            self._next[place] = found[-1].offset() + 1
        return [_entry(message) for message in found]

    def wait(self, places: Mapping[Place, str], seconds: float) -> None:
        """See FeedStore."""
        wanted = {(topic_of(feed), shard): parts_of(after)[0] for (feed, shard), after in places.items()}
        if self._next != wanted:  # it has shards no more, or others too
            self._next = wanted
            self._assign()
        if not any(self._buffers.values()):
            self._take(1, seconds)

    def trim(self, feed: Feed, shard: int, before: str, older_than_us: int, *, archived: bool) -> int:
        """See FeedStore: Kafka does that by itself."""
        return 0

    def last(self, feed: Feed, shard: int) -> str:
        """See FeedStore."""
        return f"{self._end((topic_of(feed), shard))}-0"

    def added(self, feed: Feed, shard: int) -> int | None:
        """See FeedStore."""
        return self._end((topic_of(feed), shard))

    def close(self) -> None:
        """See FeedStore."""
        if self._consumer is not None:
            self._consumer.close()
        self._store.close()

    def _assign(self) -> None:
        """Read each shard from where it was left."""
        if self._consumer is None:
            self._consumer = Consumer({**_CONSUMER, **self._common})
        self._buffers = {place: deque() for place in self._next}
        self._consumer.assign(
            [TopicPartition(*place, offset or OFFSET_BEGINNING) for place, offset in self._next.items()]
        )

    def _take_first(self, place: _Partition) -> None:
        until = time.monotonic() + _TIMEOUT_S
        while not self._buffers[place]:
            if time.monotonic() > until:
                raise StoreTimeoutError(f"Kafka at {self._servers} did not answer in time")
            self._take(1, 0.1)
        self._take(_DRAIN, 0.0)

    def _take(self, count: int, seconds: float) -> None:
        try:
            messages = self._consumer.consume(count, seconds)
        except KafkaException as error:
            raise self._failed(error) from error
        for message in messages:
            if message.error() is not None:
                self._next.clear()
                raise self._failed(KafkaException(message.error()))
            self._buffers[message.topic(), message.partition()].append(message)

    def _end(self, place: _Partition) -> int:
        try:
            if self._consumer is None:
                self._assign()
            found = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise self._failed(error) from error
        return int(found[1])

    def _failed(self, error: Exception) -> StoreError:
        told = error.args[0] if isinstance(error, KafkaException) else error
        hint = "is it running, and [streaming] kafka its address?"
        if "OFFSET" in str(getattr(told, "name", lambda: "")()):
            hint = "events were deleted before they were read: lengthen the topic's retention"
        text = told.str() if hasattr(told, "str") else str(told)
        return StoreUnavailableError(f"Kafka at {self._servers}: {text}", hint=hint)


def topic_of(feed: Feed) -> str:
    """The topic of a feed."""
    return f"fastserve.{feed.project}.{feed.source.name}.{'-'.join(feed.join_keys) or 'all'}"


def _entry(message: Any) -> Entry:
    arrow = dict(message.headers() or ()).get(_FORMAT) == ARROW
    fields = {ARROW if arrow else JSON: message.value() or b""}
    return Entry(f"{message.offset() + 1}-0", message.timestamp()[1] * 1_000 + 999, fields)
