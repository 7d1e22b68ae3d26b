"""Rows that nobody reads any more are removed: of sets that were given up, and of views that were retired.

A set may be removed once it is neither served nor named as the second one. Servers follow the store's key, and do not
read rows by an answer of it that is older than SURE_US: a set that was served is kept at least twice as long. A view
that was retired is served no more once a server has seen the registry, or the key that says so.

Keys are removed a batch at a time, found by a scan: nobody waits for long. What was removed when it is killed stays
removed, and the next one goes on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from fastserve.codec.keys import KeyEncoder
from fastserve.errors import AlreadyRunningError
from fastserve.online import OnlineStore
from fastserve.online.claim import unmark_view
from fastserve.online.live import RowSets, look, move
from fastserve.registry import RegisteredView, Registry, Snapshot
from fastserve.timeutil import DAY_US
from materializer.stop import Stop
from materializer.write import OnlineSink

BATCH_KEYS: Final = 1_000
AGAIN_US: Final = DAY_US
"""For so long after its rows were removed a set is looked at again: a writer may have been on its way."""


@dataclass(slots=True)
class Removed:
    """What was removed.

    Attributes:
        sets: online id -> rows, of sets that were given up.
        retired: view name -> rows, of views that no definition has.
        busy: names of views that another process holds.
    """

    sets: dict[int, int] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self.sets.values()) + sum(self.retired.values())


def reclaim_all(
    online: OnlineSink,
    registry: Registry,
    snapshot: Snapshot,
    stop: Stop,
    *,
    now_us: int,
    retired_before_us: int,
) -> Removed:
    """Remove what may be removed of all views of a project.

    Args:
        now_us: the present: sets kept until then are over.
        retired_before_us: of views that were retired by then.

    Raises:
        Stopped: between two batches.
        StoreError: the store failed; what is left is removed the next time.
    """
    removed = Removed()
    for registered in snapshot.stored_views:
        try:
            with registry.lock_sets(registered.view_id):
                reclaim_sets(online, registry, registered, stop, now_us, removed)
        except AlreadyRunningError:
            removed.busy.append(registered.view.name)
    for view_id, name in registry.online_ids.retired(retired_before_us).items():
        try:
            with registry.lock_sets(view_id):
                _reclaim_retired(online, registry, view_id, name, stop, now_us, removed)
        except AlreadyRunningError:
            removed.busy.append(name)
    return removed


def reclaim_due(
    online: OnlineSink, registry: Registry, views: Iterable[RegisteredView], stop: Stop, now_us: int
) -> None:
    """`reclaim_all` of some views as a part of something else: those that are held are left alone."""
    for registered in views:
        with suppress(AlreadyRunningError), registry.lock_sets(registered.view_id):
            reclaim_sets(online, registry, registered, stop, now_us, Removed())


def reclaim_sets(
    online: OnlineSink,
    registry: Registry,
    registered: RegisteredView,
    stop: Stop,
    now_us: int,
    removed: Removed,
) -> RowSets:
    """Give up the second set of a view where its time is over, and remove sets that were given up.

    The caller holds `lock_sets`: whoever built a set that is still being built has died.

    Returns:
        The sets that the store names now.
    """
    view_id = registered.view_id
    sets = online.look(registered)
    if sets.role == "building" or (sets.role == "kept" and sets.until_us <= now_us):
        sets = online.move(sets, RowSets(view_id, sets.live))
    known = registry.online_ids.of_view(view_id)
    if known and registered.online_id != sets.live:  # killed between the switch and the note of it
        registry.online_ids.set_live(view_id, sets.live)
    for one in known:
        over = one.gone_us is None or one.gone_us > now_us - AGAIN_US
        if one.online_id not in sets.ids and over:
            removed.sets[one.online_id] = online.do(partial(remove, online_id=one.online_id, stop=stop))
            registry.online_ids.mark_gone(view_id, [one.online_id])
    return sets


def _reclaim_retired(
    online: OnlineSink,
    registry: Registry,
    view_id: int,
    name: str,
    stop: Stop,
    now_us: int,
    removed: Removed,
) -> None:
    """First the key says that the view is no more, so that a server without the registry knows; then rows go."""
    known = {one.online_id: one.gone_us for one in registry.online_ids.of_view(view_id)}
    ids = [n for n in {view_id: None, **known} if (gone := known.get(n)) is None or gone > now_us - AGAIN_US]
    if not ids:
        return

    async def work(store: OnlineStore) -> int:
        sets = (await look(store, {view_id: view_id}))[view_id]
        if sets.role != "retired":
            await move(store, sets, RowSets(view_id, sets.live, role="retired", since_us=now_us))
        rows = sum([await remove(store, online_id, stop) for online_id in ids])
        await unmark_view(store, view_id)
        return rows

    removed.retired[name] = removed.retired.get(name, 0) + online.do(work)
    registry.online_ids.mark_gone(view_id, ids)


async def remove(store: OnlineStore, online_id: int, stop: Stop) -> int:
    """Remove the rows of a set; how many there were."""
    removed, batch = 0, []
    async for key in store.scan(prefix_of(online_id)):
        batch.append(key)
        if len(batch) == BATCH_KEYS:
            stop.check()
            removed += await store.delete_many(batch)
            batch = []
    return removed + (await store.delete_many(batch) if batch else 0)


async def count(store: OnlineStore, online_id: int) -> int:
    """How many rows a set has. 8 bytes of memory a row: a scan may give a key twice."""
    hashes = array("q")
    async for key in store.scan(prefix_of(online_id)):
        hashes.append(hash(key))
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    return len(ordered) and 1 + int(np.count_nonzero(np.diff(ordered)))


def prefix_of(online_id: int) -> bytes:
    """What the keys of a set begin with."""
    prefix: Any = KeyEncoder(online_id, ()).prefix
    return bytes(prefix)
