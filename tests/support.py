"""A real repo in a folder, and rows in a real store: what serving tests start from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.errors import StoreError
from fastserve.online import OnlineStore
from fastserve.online.base import OnRows
from fastserve.registry import RegisteredView
from fastserve.timeutil import MICROS
from fastserve.types import arrow_type

NOW_US = 1_700_000_000 * MICROS


def make_repo(folder: Path, features: str, **settings: str) -> Path:
    """A repo directory with these definitions and settings; not yet applied."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{name} = "{value}"' for name, value in {"project": "tests", **settings}.items()]
    (folder / "fastserve.toml").write_text("\n".join(lines) + "\n")
    (folder / "features.py").write_text(features)
    return folder


async def put(
    store: OnlineStore,
    registered: RegisteredView,
    rows: Sequence[dict[str, Any]],
    *,
    event_us: int | Sequence[int] = NOW_US - MICROS,
    created_us: int | None = None,
) -> int:
    """Write rows (join keys and features by name) with the view's current layout."""
    n = len(rows)
    events = np.broadcast_to(np.asarray(event_us, np.int64), n).copy()
    created = events if created_us is None else np.full(n, created_us, np.int64)
    join_keys = registered.join_keys
    keys = KeyEncoder(registered.online_id, tuple(join_keys.values())).encode(
        [[row[name] for row in rows] for name in join_keys], n
    )
    layout = registered.layout
    columns = [
        pa.array([row.get(name) for row in rows], arrow_type(dtype))
        for name, dtype in zip(layout.names, layout.dtypes, strict=True)
    ]
    return await store.put_many(keys, RowEncoder(layout).encode(keys, columns, events, created))


class HandStore:
    """The store's side of a read, answered by hand.

    Attributes:
        asked: (batch, done) of each fetch, in order.
        failure: raised, or handed to done, by every fetch where it is set.
        at_once: raise the failure rather than hand it over later.
    """

    tells_changes = False

    def __init__(self, failure: StoreError | None = None, *, at_once: bool = False) -> None:
        self.asked: list[tuple[ReadBatch, OnRows]] = []
        self.failure = failure
        self.at_once = at_once

    def fetch(self, batch: ReadBatch, done: OnRows, now_us: int) -> bool:
        if self.failure is not None:
            if self.at_once:
                raise self.failure
            asyncio.get_running_loop().call_soon(done, self.failure)
            return False
        self.asked.append((batch, done))
        return False

    def get_many(self, keys: list[bytes]) -> asyncio.Future[list[bytes | None]]:
        assert self.failure is not None
        if self.at_once:
            raise self.failure
        answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        answer.set_exception(self.failure)
        return answer
