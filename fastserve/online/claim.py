"""Whose online store is this? Two rows that are no features say so.

    !registry      the id of the registry whose view ids the keys carry; two registries in one store would
                   read each other's rows, so the second one is refused
    !view:<id>     the store has kept what was written for this view since this row was written; it is gone
                   when the store was emptied, restored from nothing or replaced by another

Row: 8 zero bytes (no format version a decoder accepts), 16 zero bytes of order, then the text. The order is the
lowest there is and the newest wins, so the first claimant stays.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastserve.errors import ConfigError
from fastserve.online.base import OnlineStore

REGISTRY_KEY: Final = b"!registry"
_HEADER: Final = bytes(24)


async def owner(store: OnlineStore) -> str | None:
    """The id of the registry this store belongs to; None for a store nobody has claimed."""
    return await _read(store, REGISTRY_KEY)


async def check_owner(store: OnlineStore, registry_id: str) -> None:
    """Refuse a store of another registry; one nobody has claimed is fine. Writes nothing.

    Raises:
        ConfigError: the store belongs to another registry.
        StoreError: the store did not answer.
    """
    held = await owner(store)
    if held is not None and held != registry_id:
        raise ConfigError(
            f"this online store belongs to registry {held}, not to {registry_id}",
            where=f"online store {store.url}",
            hint="use another database, key prefix or directory; or, if that registry is gone for good,"
            " empty this store",
        )


async def claim(store: OnlineStore, registry_id: str) -> None:
    """Make the store this registry's; do it before the first write. Safe against a race of two.

    Raises:
        ConfigError: the store belongs to another registry.
        StoreError: the store did not answer.
    """
    await store.put_many([REGISTRY_KEY], [_HEADER + registry_id.encode()])
    await check_owner(store, registry_id)


async def mark_view(store: OnlineStore, view_id: int) -> None:
    """Note that from now on the store keeps what is written for a view."""
    await store.put_many([_view_key(view_id)], [_HEADER + b"kept"])


async def unmark_view(store: OnlineStore, view_id: int) -> None:
    """Take the note back, of a view that is no more."""
    await store.delete_many([_view_key(view_id)])


async def keeps_view(store: OnlineStore, view_id: int) -> bool:
    """Whether everything written for a view since `mark_view` should still be there."""
    return await _read(store, _view_key(view_id)) is not None


def _view_key(view_id: int) -> bytes:
    return b"!view:%d" % view_id


async def _read(store: OnlineStore, key: bytes) -> str | None:
    rows = store.get_many([key])
    if isinstance(rows, asyncio.Future):
        rows = await rows
    return None if rows[0] is None else rows[0][len(_HEADER) :].decode()
