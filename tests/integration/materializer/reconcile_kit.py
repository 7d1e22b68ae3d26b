"""Repos with histories, and online stores spoilt in known ways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.online import OnlineStore, open_store
from fastserve.online.base import Rows
from fastserve.types import arrow_type
from materializer.reconcile.report import Report
from materializer.reconcile.request import Request
from materializer.reconcile.run import reconcile
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo

T = TypeVar("T")
NOW = T0 + 30 * DAY
GRACE = HOUR


def with_store(repo: Repo, work: Callable[[OnlineStore], Awaitable[T]]) -> T:
    """Do something with the repo's online store."""

    async def run() -> T:
        store = open_store(repo.config.online_store)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def held(store: OnlineStore, keys: Sequence[bytes]) -> Rows:
    """What it holds."""
    rows = store.get_many(keys)
    return await rows if isinstance(rows, asyncio.Future) else rows


def compared(repo: Repo, **options: Any) -> Report:
    """A reconciliation of everything, at NOW, with an hour of grace."""
    return reconcile(repo.config, Request(**{"sample": None, "now_us": NOW, "grace_us": GRACE, **options}))


def counts(report: Report) -> dict[str, int]:
    """Of its one view."""
    [view] = report.views
    assert view.error is None, view.error
    return view.counts


@dataclass(frozen=True)
class Bytes:
    """Makes keys and rows of a view as its store holds them."""

    repo: Repo
    name: str = "stats"

    def key(self, user: str) -> bytes:
        """The key of a user."""
        rv = self.repo.view(self.name)
        return KeyEncoder(rv.online_id, ["string"]).encode([[user]], 1)[0]

    def row(
        self, user: str, event: int, created: int, values: Mapping[str, Any], layout: int | None = None
    ) -> bytes:
        """A row of a user; in the current layout, or in the one that has this id."""
        rv = self.repo.view(self.name)
        wanted = rv.layout if layout is None else next(x for x in rv.layouts if x.layout_id == layout)
        columns = [
            pa.array([values.get(name)], arrow_type(dtype))
            for name, dtype in zip(wanted.names, wanted.dtypes, strict=True)
        ]
        times = [np.array([us], np.int64) for us in (event, created)]
        return RowEncoder(wanted).encode([self.key(user)], columns, *times)[0]


async def force(store: OnlineStore, key: bytes, row: bytes | None) -> None:
    """Make a key hold just this."""
    await store.delete_many([key])
    if row is not None:
        await store.put_many([key], [row])
