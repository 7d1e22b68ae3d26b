"""Which rows are served: the store's key, how it moves, and who moves it second."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fastserve.errors import AlreadyRunningError, StoreError
from fastserve.online import open_store
from fastserve.online.live import RowSets, look, move


async def test_without_a_key_it_is_what_the_registry_names() -> None:
    store = open_store("memory://")
    assert await look(store, {}) == {}
    assert await look(store, {5: 5, 6: 9}) == {5: RowSets(5, 5), 6: RowSets(6, 9)}


async def test_sets_are_built_switched_and_given_up() -> None:
    store = open_store("memory://")
    first = (await look(store, {5: 5}))[5]
    assert first.ids == (5,)
    building = await move(store, first, replace(first, other=17, role="building", since_us=1))
    assert building.ids == (5, 17)
    kept = await move(store, building, RowSets(5, 17, 5, "kept", 2, 9))
    assert (await look(store, {5: 5}))[5] == kept == RowSets(5, 17, 5, "kept", 2, 9, number=2)
    last = await move(store, kept, RowSets(5, 17))
    assert (await look(store, {5: 5}))[5] == last and last.ids == (17,)
    assert (await move(store, last, RowSets(5, 17, role="retired"))).ids == ()


async def test_of_two_who_move_at_a_time_one_is_told() -> None:
    store = open_store("memory://")
    before = (await look(store, {5: 5}))[5]
    ended = await asyncio.gather(
        *(move(store, before, RowSets(5, 5, other, "building")) for other in range(20, 28)),
        return_exceptions=True,
    )
    [won] = [sets for sets in ended if isinstance(sets, RowSets)]
    assert sum(isinstance(error, AlreadyRunningError) for error in ended) == 7
    assert (await look(store, {5: 5}))[5] == won


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"live": 1, "shape": "new"}', b'{"live": "x"}', b'{"live": -1}']
)
async def test_what_cannot_be_read_is_an_error(text: bytes) -> None:
    store = open_store("memory://")
    await store.put_many([b"!live:5"], [bytes(24) + text])
    with pytest.raises(StoreError, match="cannot be read"):
        await look(store, {5: 5})
