"""One online read from a script or a notebook: the server's read path without the server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pyarrow as pa

from fastserve.codec.status import Status
from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.display import html_table
from fastserve.errors import InvalidEntityError, RequestError
from fastserve.online import open_store
from fastserve.online.live import look
from fastserve.registry import RegisteredView, Registry, Snapshot
from fastserve.serving.compile import compile_plan
from fastserve.serving.computing import Computing
from fastserve.serving.push import TARGETS, Pusher, PushLimits, PushResult
from fastserve.serving.read_path import FeatureBatch, ReadPath, decode_columns
from fastserve.timeutil import format_timestamp
from fastserve.timeutil import now_us as wall_clock_us

T = TypeVar("T")

SDK_ROWS: Final = 1_000_000
"""Rows of one push from a script; a server, which others share, takes fewer at once."""


@dataclass(frozen=True, slots=True, repr=False)
class OnlineFeatures:
    """Features of some entities at one instant.

    Attributes:
        entities: the columns asked for.
        batch: decoded values and statuses.
    """

    entities: Mapping[str, Sequence[Any]]
    batch: FeatureBatch

    def to_arrow(self) -> pa.Table:
        """Entity columns, then features in the order asked."""
        columns: dict[str, Any] = {name: pa.array(values) for name, values in self.entities.items()}
        for c in self.batch.plan.columns:
            columns[c.name] = self.batch.reads[c.read].columns[c.column].to_arrow()
        return pa.table(columns)

    def to_dict(self) -> dict[str, list[Any]]:
        """Column -> values, entity columns first."""
        found: dict[str, list[Any]] = {name: list(values) for name, values in self.entities.items()}
        for c in self.batch.plan.columns:
            found[c.name] = self.batch.reads[c.read].columns[c.column].to_pylist()
        return found

    def __repr__(self) -> str:
        return (
            f"OnlineFeatures({self.batch.n:,} entities; {', '.join(c.name for c in self.batch.plan.columns)})"
        )

    def _repr_html_(self) -> str:
        statuses = self.statuses()
        columns = [
            [f"{v} ({s})" if s != "PRESENT" else v for v, s in zip(values, statuses[name], strict=True)]
            if name in statuses
            else values
            for name, values in self.to_dict().items()
        ]
        note = f"as of {format_timestamp(self.batch.now_us)}"
        return html_table("Online features", list(self.to_dict()), zip(*columns, strict=True), note)

    def statuses(self) -> dict[str, list[str]]:
        """Feature -> one status name per entity."""
        return {
            c.name: [Status(int(s)).name for s in self.batch.reads[c.read].statuses[c.column]]
            for c in self.batch.plan.columns
        }


def read_once(
    online_store: str,
    snapshot: Snapshot,
    projections: Sequence[FeatureViewProjection],
    entity_rows: Any,
    *,
    service: str,
    full_feature_names: bool,
    now_us: int | None,
    computing: Computing,
) -> OnlineFeatures:
    """Open the store, read, close. Works inside a running event loop too (a notebook's).

    Args:
        now_us: the instant to answer for; None for the wall clock once the rows are there, as a server has it.

    Raises:
        InvalidEntityError, UnknownObjectError, RequestError: as ReadPath.read and compile_plan.
    """
    computing.prepare(rv.view for _, rv in snapshot.resolve(projections))
    options: dict[str, Any] = {
        "service": service,
        "full_feature_names": full_feature_names,
        "computing": computing,
    }
    compile_plan(
        snapshot, projections, **options
    )  # what is wrong with the request is said before the store is opened
    entities = to_columns(entity_rows)
    clock = wall_clock_us if now_us is None else lambda: now_us

    async def read() -> FeatureBatch:
        store = open_store(online_store, read_only=True)
        try:
            found = await look(store, snapshot.online_ids())
            serving = snapshot.serving({view_id: sets.live for view_id, sets in found.items()})
            plan = compile_plan(serving, projections, **options)
            batch = ReadPath(store, clock).read(plan, entities, decode_columns)
            return batch if isinstance(batch, FeatureBatch) else await batch
        finally:
            await store.close()

    return OnlineFeatures(entities, run_sync(read()))


def push_once(
    config: Config, registry: Registry, views: Sequence[RegisteredView], data: Any, to: str
) -> PushResult:
    """Open the stores, push, close. Works inside a running event loop too (a notebook's).

    Raises:
        InvalidDataError, TooLargeError, RequestError, StoreError, OfflineStoreError: as Pusher.push.
    """
    if to not in TARGETS:
        raise RequestError(f"unknown target {to!r}", where="to", hint=f"one of {', '.join(TARGETS)}")

    async def push() -> PushResult:
        store = open_store(config.online_store) if TARGETS[to][1] else None
        pusher = Pusher(
            registry,
            registry.snapshot(),
            offline_root=config.offline_store,
            online=store,
            now=wall_clock_us,
            limits=PushLimits(max_rows=SDK_ROWS),
        )
        try:
            return await pusher.push(views, data, to)
        finally:
            await pusher.close()
            if store is not None:
                await store.close()

    return run_sync(push())


def to_columns(
    rows: Any,
) -> Mapping[str, Sequence[Any]]:
    """Columns from columns, from one mapping per entity, or from a pandas or polars frame or an Arrow table.

    Raises:
        InvalidEntityError: the mappings do not all have the same names, or a column is a single value.
    """
    if isinstance(rows, pa.Table):
        rows = rows.to_pydict()
    elif hasattr(rows, "columns"):
        rows = {name: rows[name].to_list() for name in rows.columns}
    if isinstance(rows, Mapping):
        for name, values in rows.items():
            if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
                raise InvalidEntityError(
                    f"{values!r} is no list of values",
                    where=f"entity_rows[{name!r}]",
                    hint=f"write [{values!r}]",
                )
        return rows
    names = list(rows[0]) if rows and isinstance(rows[0], Mapping) else []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidEntityError(
                f"{row!r} is no mapping of join keys to values", where=f"entity_rows[{i}]"
            )
        if set(row) != set(names):
            raise InvalidEntityError(
                f"has {sorted(row)}, the first row has {sorted(names)}", where=f"entity_rows[{i}]"
            )
    return {name: [row[name] for row in rows] for name in names}


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread of its own if this one has a loop running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
