"""Rows a store can tell apart by nothing but their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from fastserve.online import OnlineStore

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def row(event_ts: int = 0, created_ts: int = 0, payload: bytes = b"") -> bytes:
    """A row as a store sees it: 8 bytes of anything, 16 of order, anything."""
    stamps = ((ts + 2**63).to_bytes(8, "big") for ts in (event_ts, created_ts))
    return bytes(8) + b"".join(stamps) + payload


async def get(store: OnlineStore, keys: Sequence[bytes]) -> list[bytes | None]:
    """get_many of either kind of store."""
    rows = store.get_many(keys)
    return await rows if isinstance(rows, asyncio.Future) else rows


class Opener(Protocol):
    """open_store, as the fixture open_at has it."""

    def __call__(self, url: str, *, read_only: bool = False) -> OnlineStore: ...
