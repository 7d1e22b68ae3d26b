"""Where feeds lie: beside the rows, in the online store; their logs in Kafka, if that is wanted."""

from __future__ import annotations

from fastserve.config import Config
from fastserve.errors import ConfigError
from fastserve.streaming.base import FeedStore
from fastserve.streaming.settings import StreamSettings


def open_feeds(config: Config) -> FeedStore:
    """The feeds of a repo.

    Raises:
        ConfigError: an online store that has none, a setting that will not do, or a library is missing.
        StoreError: the server does not answer.
    """
    settings = StreamSettings.of(config.streaming)
    if not settings.kafka:
        return open_own(config.online_store)
    from fastserve.streaming.kafka_feeds import KafkaFeeds  # noqa: PLC0415  (a store's library on demand)

    return KafkaFeeds(settings.kafka, open_own(config.online_store))


def open_own(url: str) -> FeedStore:
    """The feeds of an online store."""
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        from fastserve.streaming.redis_feeds import RedisFeeds  # noqa: PLC0415

        return RedisFeeds(url)
    if scheme == "lmdb":
        from fastserve.streaming.lmdb_feeds import LmdbFeeds  # noqa: PLC0415

        return LmdbFeeds(url)
    raise ConfigError(
        "there are no streams of events in this store",
        where=f"online store {url.partition('?')[0]}",
        hint="use lmdb:// on one machine, or redis://",
    )
