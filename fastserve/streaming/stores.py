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
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        from fastserve.streaming.redis_feeds import RedisFeeds  # noqa: PLC0415  (a store's library on demand)

        return RedisFeeds(url)
    if scheme == "lmdb":
        from fastserve.streaming.lmdb_feeds import LmdbFeeds  # noqa: PLC0415

        return LmdbFeeds(url)
    raise ConfigError(
        "there are no streams of events in this store",
        where=f"online store {url.partition('?')[0]}",
        hint="use lmdb:// on one machine, or redis://",
    )
