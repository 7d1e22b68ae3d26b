"""Where feeds lie: beside the rows, in the online store."""

from __future__ import annotations

from fastserve.errors import ConfigError
from fastserve.streaming.base import FeedStore


def open_feeds(url: str) -> FeedStore:
    """The feeds of an online store.

    Raises:
        ConfigError: a store that has none.
        StoreError: the server does not answer.
    """
    if url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ConfigError(
            "streams of events need Redis",
            where=f"online store {url.partition('?')[0]}",
            hint='online_store = "redis://127.0.0.1:6379" in fastserve.toml',
        )
    from fastserve.streaming.redis_feeds import RedisFeeds  # noqa: PLC0415  (a store's library on demand)

    return RedisFeeds(url)
