"""An online store belongs to one registry."""

from __future__ import annotations

import asyncio

import pytest

from fastserve.errors import ConfigError
from fastserve.online import open_store
from fastserve.online.claim import REGISTRY_KEY, check_owner, claim, keeps_view, mark_view, owner


async def test_the_first_claimant_stays() -> None:
    store = open_store("memory://")
    assert await owner(store) is None
    await check_owner(store, "one")  # unclaimed is fine for a reader, who writes nothing
    assert await owner(store) is None
    await claim(store, "one")
    await claim(store, "one")
    with pytest.raises(ConfigError, match="belongs to registry one, not to two"):
        await claim(store, "two")
    with pytest.raises(ConfigError, match="use another database"):
        await check_owner(store, "two")
    assert await owner(store) == "one"


async def test_of_claims_at_once_one_wins() -> None:
    store = open_store("memory://")
    names = [f"registry-{n}" for n in range(8)]
    ended = await asyncio.gather(*(claim(store, name) for name in names), return_exceptions=True)
    winners = [name for name, error in zip(names, ended, strict=True) if error is None]
    assert winners == [await owner(store)]


async def test_the_mark_of_a_view_goes_with_the_store() -> None:
    store = open_store("memory://")
    assert not await keeps_view(store, 12)
    await mark_view(store, 12)
    assert await keeps_view(store, 12)
    assert not await keeps_view(store, 1)
    await store.delete_many([key async for key in store.scan()])
    assert not await keeps_view(store, 12)


async def test_the_row_is_none_a_decoder_takes_for_features() -> None:
    store = open_store("memory://")
    await claim(store, "id")
    assert store.get_many([REGISTRY_KEY]) == [bytes(24) + b"id"]
