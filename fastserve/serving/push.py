"""Pushes: rows from a producer into the online store, the history, or both. START HERE, then lane.py.

    admit      bounded in pushes and bytes, or OverloadedError
    prepare    in a thread: parse, cast, check; one bad row and nothing is written
    claim      the online store must be ours
    write      per view: offline, then online (lane.py)

An acknowledged push is in every store that was asked for. One that failed, or whose acknowledgement was lost, is sent
again as it is: a row counts once by (join keys, event time, created time), and online the newest wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pyarrow as pa

from fastserve.definitions import AggregatedFeatureView, PushSource
from fastserve.errors import OverloadedError, RequestError, StoreUnavailableError, TooLargeError
from fastserve.offline.frames import arrow_table
from fastserve.offline.given import given_rows
from fastserve.online import OnlineStore
from fastserve.online.claim import claim
from fastserve.registry import RegisteredView, Registry, Snapshot
from fastserve.serving.lane import Counts, Lane, Stores

T = TypeVar("T")

# (offline, online); the words are Feast's, and `both`.
TARGETS: Final = {
    "online": (False, True),
    "offline": (True, False),
    "online_and_offline": (True, True),
    "both": (True, True),
}


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Bounds of what is pushed.

    Attributes:
        max_rows: of one push; more is a TooLargeError.
        max_pushes, max_bytes: admitted and not yet acknowledged; beyond them an OverloadedError.
        max_view_pushes: of those, waiting for the offline store of one view.
    """

    max_rows: int = 10_000
    max_pushes: int = 1_000
    max_bytes: int = 64 << 20
    max_view_pushes: int = 256


@dataclass(frozen=True, slots=True)
class PushResult:
    """What an acknowledged push did.

    Attributes:
        views: the names of the views written.
        rows: how many were given.
        offline_new: rows that the history did not have yet, over all views.
        online_new: entities that got a newer row online, over all views; pushes written together share one
            count, which the last of them tells.
    """

    views: tuple[str, ...]
    rows: int
    offline_new: int = 0
    online_new: int = 0


@dataclass(frozen=True, slots=True)
class Push:
    """Rows and where they go.

    Attributes:
        views: whose rows they are.
        data: what frames.arrow_table takes.
        to: one of TARGETS.
    """

    views: Sequence[RegisteredView]
    data: Any
    to: str = "online"


def views_of(snapshot: Snapshot, push_source: str) -> list[RegisteredView]:
    """Every version of every view that a push source feeds, by name and version.

    Raises:
        UnknownObjectError: there is no such push source.
        RequestError: no view has it as its source.
    """
    snapshot.push_source(push_source)
    found = [
        rv
        for _, rv in sorted(snapshot.views.items())
        if isinstance(rv.view.source, PushSource) and rv.view.source.name == push_source
    ]
    if not found:
        raise RequestError(
            f"no feature view has the push source {push_source!r}",
            hint="declare one with source=…, and apply it",
        )
    return found


def view_named(snapshot: Snapshot, name: str) -> RegisteredView:
    """A stored view by `name`, its newest version, or by `name@v2`.

    Raises:
        UnknownObjectError: there is none.
        RequestError: the version is no number, or the view is computed on demand.
    """
    view, at, version = name.partition("@v")
    if at and not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise RequestError(f"{name!r} is not a view or view@v2")
    found = snapshot.view(view, int(version) if at else None)
    found.check_stored()
    return found


class Pusher:
    """Takes pushes on one event loop. Close it before the store.

    Args:
        registry: which registry the online store must belong to, and what is materialized.
        snapshot: the newest definitions; only its project and registry id are looked at here.
        offline_root: directory or URL of the offline tables.
        online: the online store; None when nothing will be pushed there.
        now: the clock, microseconds UTC; a row from beyond it is refused.
        limits: see PushLimits.
    """

    def __init__(
        self,
        registry: Registry,
        snapshot: Snapshot,
        *,
        offline_root: str,
        online: OnlineStore | None,
        now: Callable[[], int],
        limits: PushLimits | None = None,
    ) -> None:
        self._limits = limits or PushLimits()
        self._now = now
        self._project, self._registry_id = snapshot.project, snapshot.registry_id
        self._online = online
        self._claimed = False
        self._claiming = asyncio.Lock()
        # One thread: parsing holds the interpreter's lock anyway, and requests that read must get their turns.
        self._preparing = ThreadPoolExecutor(1, "fastserve-push")
        self._committing = ThreadPoolExecutor(4, "fastserve-commit")
        self._stores = Stores(offline_root, registry, online, self._committing, now)
        self._lanes: dict[int, Lane] = {}
        self._running: dict[asyncio.Task[PushResult], int] = {}
        self._bytes = 0
        self._closed = False

    async def push(self, views: Sequence[RegisteredView], data: Any, to: str = "online") -> PushResult:
        """Write rows, and return once every store asked for has them.

        Args:
            views: whose rows they are.
            data: a pandas or polars frame, Arrow, or a mapping of column to values: join keys, features,
                `event_timestamp` and perhaps `created_timestamp` (fastserve/offline/given.py).
            to: ``online``, ``offline`` or ``online_and_offline`` (``both``).

        Raises:
            InvalidDataError, TooLargeError, RequestError: the rows; nothing is written.
            OverloadedError: too many pushes wait; nothing is written.
            ConfigError: the online store belongs to another registry; nothing is written.
            StoreError, OfflineStoreError, MaterializeError: a store failed; part of it may be written. Send it again.
        """
        return await self.submit(lambda: Push(views, data, to), getattr(data, "nbytes", 0))

    async def submit(self, make: Callable[[], Push], size: int) -> PushResult:
        """`push` of what `make` returns, which is called in a thread once the push is admitted.

        A push that is admitted goes on when its caller is cancelled.

        Args:
            size: about how many bytes it will hold.
        """
        self._admit(size)
        task = asyncio.create_task(self._run(make))
        self._running[task] = size
        self._bytes += size
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Take no more; return when what was admitted is written."""
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*(lane.idle() for lane in self._lanes.values()))
        self._preparing.shutdown()
        self._committing.shutdown()

    def _admit(self, size: int) -> None:
        if self._closed:
            raise StoreUnavailableError("pushes are no longer taken: the server is stopping")
        limits = self._limits
        # A push alone is always admitted, whatever its size: its rows are bounded.
        if self._running and (
            len(self._running) >= limits.max_pushes or self._bytes + size > limits.max_bytes
        ):
            raise OverloadedError(f"{len(self._running)} pushes are being written already")

    def _finished(self, task: asyncio.Task[PushResult]) -> None:
        self._bytes -= self._running.pop(task)

    async def _run(self, make: Callable[[], Push]) -> PushResult:
        loop = asyncio.get_running_loop()
        push, batches = await loop.run_in_executor(self._preparing, self._prepare, make)
        offline, online = TARGETS[push.to]
        lanes = [self._lane(rv) for rv in push.views]
        if online and not self._claimed:
            await self._claim()
        if offline:
            for lane in lanes:
                lane.check_room()
        counts = await _all(
            [lane.write(b, offline=offline, online=online) for lane, b in zip(lanes, batches, strict=True)]
        )
        return PushResult(
            views=tuple(rv.view.name for rv in push.views),
            rows=batches[0].num_rows,
            offline_new=sum(count.offline_new for count in counts),
            online_new=sum(count.online_new for count in counts),
        )

    async def _claim(self) -> None:
        """Make sure that the online store is ours; once, however many pushes come at the start."""
        assert self._online is not None
        async with self._claiming:
            if not self._claimed:
                await claim(self._online, self._registry_id)
                self._claimed = True

    def _prepare(self, make: Callable[[], Push]) -> tuple[Push, list[pa.RecordBatch]]:
        """In a thread: the push, and its rows for each of its views."""
        push = make()
        if push.to not in TARGETS:
            raise RequestError(f"unknown target {push.to!r}", where="to", hint=f"one of {', '.join(TARGETS)}")
        for rv in push.views:
            if isinstance(rv.view, AggregatedFeatureView):
                raise RequestError(
                    f"the rows of view {rv.view.name!r} are made of events, and cannot be written",
                    hint=f"push events of {rv.view.events.name!r}",
                )
        table = arrow_table(push.data)
        if table.num_rows > self._limits.max_rows:
            raise TooLargeError(
                f"{table.num_rows:,} rows in one push; the limit is {self._limits.max_rows:,}",
                hint="send several pushes, or materialize the rows from files",
            )
        return push, given_rows(push.views, table, self._now())

    def _lane(self, rv: RegisteredView) -> Lane:
        lane = self._lanes.get(rv.view_id)
        if (
            lane is None or lane.rv != rv
        ):  # a new revision; what waits in the old lane is written all the same
            lane = Lane(rv, self._stores, self._project, self._limits.max_view_pushes)
            self._lanes[rv.view_id] = lane
        return lane


async def _all(writes: Sequence[Awaitable[Counts]]) -> list[Counts]:
    """Wait for all of them, then raise the first error: nothing goes on unseen behind an answer."""
    done = await asyncio.gather(*writes, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if isinstance(result, Counts)]
