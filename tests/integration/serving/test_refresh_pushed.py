"""Refreshes of views that are pushed to: what was pushed online alone is carried, unless told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.errors import IncompleteHistoryError, RequestError
from tests.integration.serving.push_kit import ago, make, online, rows
from tests.servers import start_redis


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    server = start_redis(tmp_path) if request.param == "redis" else None
    with FeatureStore(make(tmp_path, server.url if server else "")) as opened:
        yield opened
    if server:
        server.stop()


def done(store: FeatureStore, view: str = "stats", **options: Any) -> Any:
    summary = store.refresh(view, **options)
    assert summary.status == "ok", summary.error
    return summary


def push_some(store: FeatureStore) -> None:
    """1 and 2 into both stores, 2 and 3 later online alone."""
    store.push("clicks", rows([1, 2], 10, at=ago(60)), to="both")
    store.push("clicks", rows([2, 3], 20, at=ago(30)))


def test_what_is_online_alone_is_carried(store: FeatureStore) -> None:
    push_some(store)
    summary = done(store)
    assert (summary.rows, summary.rows_before, summary.rows_read, summary.rows_carried) == (3, 3, 2, 2)
    assert online(store, [1, 2, 3]) == [10, 20, 20]
    assert store.rollback("stats").status == "ok"
    assert online(store, [1, 2, 3]) == [10, 20, 20]
    store.push("clicks", rows([3, 4], 30, at=ago(1)))
    assert store.rollback("stats").status == "ok"
    assert online(store, [1, 2, 3, 4]) == [10, 20, 30, 30], "pushes since are in both sets"


def test_or_left_behind(store: FeatureStore) -> None:
    push_some(store)
    assert done(store, carry=False).rows == 2
    assert online(store, [1, 2, 3]) == [10, 10, None]


def test_carried_rows_keep_their_life(store: FeatureStore) -> None:
    days = 86_400
    store.push("clicks", rows([1], 1, at=ago(1)), to="both")
    store.push("clicks", rows([2], 2, at=ago(29 * days)))
    store.push("clicks", rows([3], 3, at=ago(60 * days)))
    assert done(store).rows == 3
    assert online(store, [1, 2, 3]) == [1, 2, None]


def test_without_history_there_is_nothing_to_build(store: FeatureStore) -> None:
    store.push("clicks", rows([1], 1))
    summary = store.refresh("stats")
    assert summary.status == "failed" and isinstance(summary.error, IncompleteHistoryError)
    assert online(store, [1]) == [1]


def test_files_and_pushes_together(store: FeatureStore) -> None:
    store.push("filed", {k: v for k, v in rows([1], 5).items() if k != "x"}, to="both")
    summary = store.refresh("filed")
    assert summary.status == "ok", summary.error
    assert online(store, [1], "filed") == [5]


async def test_within_a_running_loop(store: FeatureStore) -> None:
    await asyncio.to_thread(push_some, store)
    assert done(store).rows == 3
    assert store.rollback("stats").status == "ok"


@pytest.mark.parametrize("keep", ["soon", "1s"])
def test_what_cannot_be_kept_so_long(store: FeatureStore, keep: str) -> None:
    for act in (store.refresh, store.rollback):
        with pytest.raises(RequestError):
            act("stats", keep=keep)
