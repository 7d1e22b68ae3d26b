"""Online stores: the newest row per key, as bytes. ``open_store(url)`` opens one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastserve.errors import ConfigError
from fastserve.online.base import OnlineStore

__all__ = ["OnlineStore", "open_store"]


def _memory(url: str, read_only: bool) -> OnlineStore:
    from fastserve.online.memory import open_memory  # noqa: PLC0415  (a store's library on demand)

    return open_memory(url, read_only)


def _lmdb(url: str, read_only: bool) -> OnlineStore:
    from fastserve.online.lmdb import open_lmdb  # noqa: PLC0415

    return open_lmdb(url, read_only)


def _redis(url: str, read_only: bool) -> OnlineStore:
    from fastserve.online.redis import open_redis  # noqa: PLC0415

    return open_redis(url, read_only)


_OPENERS: Final[dict[str, Callable[[str, bool], OnlineStore]]] = {
    "lmdb": _lmdb,
    "memory": _memory,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}


def open_store(url: str, *, read_only: bool = False) -> OnlineStore:
    """Open the online store an URL names.

    Args:
        url: ``lmdb://path``, ``redis://host:6379/0``, ``rediss://…`` (TLS), ``unix:///path/to.sock``,
            ``memory://`` or ``memory://name``; the options after ``?`` are in the store's module.
        read_only: refuse writes; an LMDB file must then exist.

    Raises:
        ConfigError: for a scheme there is no store for, or a malformed URL or option.
        StoreUnavailableError: when an embedded store cannot be opened. A server is contacted by the
            first call, not here.
    """
    scheme, colon, _ = url.partition("://")
    opener = _OPENERS.get(scheme)
    if opener is None or not colon:
        raise ConfigError(
            f"there is no online store for {scheme or url!r}" if colon else "this is no URL",
            where=f"online store {url!r}" if not colon else f"online store {scheme}://",
            hint=f"use one of {', '.join(f'{name}://' for name in _OPENERS)}; the quick start is "
            "lmdb://.fastserve/online",
        )
    return opener(url, read_only)
