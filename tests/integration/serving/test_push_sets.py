"""Pushes while the row sets of a view move: acknowledged is what is in every set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.online import OnlineStore, open_store
from fastserve.online.live import RowSets, look, move
from fastserve.registry import RegisteredView
from fastserve.serving.push import Pusher
from fastserve.timeutil import now_us
from tests.integration.serving.push_kit import make, rows
from tests.servers import start_redis


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    server = start_redis(tmp_path) if request.param == "redis" else None
    with FeatureStore(make(tmp_path, server.url if server else "")) as opened:
        yield opened
    if server:
        server.stop()


class Moving:
    """A store in which, after the n-th write of rows, somebody moves the row sets of a view."""

    def __init__(self, held: OnlineStore, moves: list[Callable[[OnlineStore], Awaitable[object]]]) -> None:
        self._held = held
        self._moves = moves
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    def get_fresh(self, keys: list[bytes]) -> Any:
        self.looks += 1
        return self._held.get_fresh(keys)

    async def put_batch(self, batch: ReadBatch, lifetimes_us: Any = None) -> int:
        written = await self._held.put_batch(batch, lifetimes_us)
        if self._moves:
            await self._moves.pop(0)(self._held)
        return written


def moved(view_id: int, *steps: RowSets) -> list[Callable[[OnlineStore], Awaitable[object]]]:
    """Moves, one after the other."""

    def one(after: RowSets) -> Callable[[OnlineStore], Awaitable[object]]:
        async def make(store: OnlineStore) -> object:
            return await move(store, (await look(store, {view_id: view_id}))[view_id], after)

        return make

    return [one(after) for after in steps]


async def test_a_push_is_in_every_row_set_that_there_is_when_it_is_acknowledged(store: FeatureStore) -> None:
    rv = store.snapshot.view("stats")
    other, third = (store.registry.online_ids.allocate(rv.view_id) for _ in range(2))
    building = RowSets(rv.view_id, rv.view_id, other, "building")
    kept = RowSets(rv.view_id, other, rv.view_id, "kept")
    held = open_store(store.config.online_store)
    moving = Moving(held, moved(rv.view_id, building, kept))
    pusher = Pusher(
        store.registry, store.snapshot, offline_root=store.config.offline_store, online=moving, now=now_us
    )  # type: ignore[arg-type]
    try:
        result = await pusher.push([rv], rows([1], 7))
        assert result.online_new == 1 and moving.looks == 3, "one before, and one after each round of writes"
        assert [await rows_at(held, rv.at(n), [1]) for n in (rv.view_id, other)] == [1, 1]
        moving.looks = 0
        await pusher.push([rv], rows([2], 7))
        assert moving.looks == 1
        assert [await rows_at(held, rv.at(n), [2]) for n in (rv.view_id, other)] == [1, 1]
        moving._moves += moved(
            rv.view_id, RowSets(rv.view_id, other), RowSets(rv.view_id, other, third, "building")
        )
        await pusher.push([rv], rows([3], 7))
        assert [await rows_at(held, rv.at(n), [3]) for n in (rv.view_id, other, third)] == [0, 1, 1]
        assert [await rows_at(held, rv.at(n), [1, 2]) for n in (rv.view_id, other)] == [2, 2]
    finally:
        await pusher.close()
        await held.close()


async def rows_at(held: OnlineStore, rv: RegisteredView, ids: list[int]) -> int:
    """How many of the entities have a row in the set."""
    keys = KeyEncoder(rv.online_id, tuple(rv.join_keys.values())).encode([ids], len(ids))
    found = held.get_fresh(keys)
    return sum(row is not None for row in (found if isinstance(found, list) else await found))
