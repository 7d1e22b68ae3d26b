"""The few calls of redis-py that tests look into a store with, on LMDB."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastserve.online.lmdb import open_lmdb
from fastserve.online.lmdb_values import Values
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed
from fastserve.streaming.lmdb_feeds import _END, _entry, _packed

Stored = list[tuple[bytes, dict[bytes, bytes]]]


class LmdbLooks:
    """See the module's docstring."""

    def __init__(self, url: str) -> None:
        self._store = open_lmdb(url, False)

    def close(self) -> None:
        self._store.release()

    def get(self, key: bytes) -> bytes | None:
        return self._store.transact(lambda values: values.get(key), write=False)

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan_iter(self, match: bytes, count: int = 0) -> Iterator[bytes]:
        prefix = match.removesuffix(b"*")
        return iter(self._store.transact(lambda v: [key for key, _ in v.after(prefix, prefix)], write=False))

    def xrange(self, log: bytes) -> Stored:
        if log.endswith(b":dead"):
            found = self._store.transact(
                lambda v: [x for _, x in v.after(log + b":", log + b":")], write=False
            )
            letters = [
                {name.encode(): str(x).encode() for name, x in json.loads(one).items()} for one in found
            ]
            return [(b"", letter) for letter in letters]
        prefix = log + b":"
        found = self._store.transact(
            lambda v: [_entry(*pair) for pair in v.after(prefix, prefix)], write=False
        )
        return [(entry.id.encode(), dict(entry.fields)) for entry in found]

    def xrevrange(self, log: bytes, count: int) -> Stored:
        return self.xrange(log)[::-1][:count]

    def xadd(self, log: bytes, fields: dict[str, Any]) -> None:
        end = log.replace(b":log:", b":end:")

        def work(values: Values) -> None:
            number, entries = _END.unpack(values.get(end) or bytes(16))
            given = {name.encode(): str(value).encode() for name, value in fields.items()}
            values.put(log + b":" + (number + 1).to_bytes(8, "big"), _packed(given))
            values.put(end, _END.pack(number + 1, entries + 1))

        self._store.transact(work, write=True)


class KafkaLooks:
    """Redis, and the logs in Kafka."""

    def __init__(self, client: Any, feeds: FeedStore, servers: str, feed: Feed) -> None:
        self._client, self._feeds, self._servers, self._feed = client, feeds, servers, feed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        self._feeds.close()

    def xrange(self, log: bytes) -> Stored:
        if b":log:" not in log:
            return self._client.xrange(log)
        shard, found, after = int(log.rsplit(b":", 1)[1]), [], "0-0"
        while more := self._feeds.entries(self._feed, shard, after, 1_000):
            found += more
            after = more[-1].id
        assert not found or found[0].id == "1-0", "librdkafka's cluster keeps 5 MiB of a partition: send less"
        return [(entry.id.encode(), dict(entry.fields)) for entry in found]

    def xrevrange(self, log: bytes, count: int) -> Stored:
        end = self._feeds.added(self._feed, int(log.rsplit(b":", 1)[1]))
        return [(b"%d-0" % end, {})] if end else []

    def xadd(self, log: bytes, fields: dict[str, Any]) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._servers, "log_level": 4})
        topic, partition = f"fastserve.tests.{self._feed.name.replace(':', '.')}", int(log.rsplit(b":", 1)[1])
        producer.produce(topic, value=fields["json"], partition=partition)
        assert not producer.flush(10)
