"""Decode one stored row for a person: where it is, what it says, and how it would be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.fold import Folder
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder, read_header
from fastserve.codec.status import Status
from fastserve.definitions import AggregatedFeatureView
from fastserve.errors import InvalidEntityError
from fastserve.online import open_store
from fastserve.online.live import look
from fastserve.registry import RegisteredView
from fastserve.serving.sdk import run_sync
from fastserve.timeutil import format_timestamp


def inspect_row(
    online_store: str, registered: RegisteredView, entities: Mapping[str, Sequence[Any]], now_us: int
) -> dict[str, Any]:
    """Key, header and values of one entity's row.

    Raises:
        InvalidEntityError: not exactly one value for each join key.
    """
    join_keys = registered.join_keys
    for name in {**join_keys, **entities}:
        if name not in join_keys or len(entities.get(name, ())) != 1:
            raise InvalidEntityError(
                f"give one value for each of {', '.join(join_keys) or 'no join keys'}",
                where=f"entity {name!r}",
            )

    key, row = run_sync(_fetched(online_store, registered, [entities[name] for name in join_keys]))
    found: dict[str, Any] = {"key": key.decode("utf-8", "backslashreplace"), "found": row is not None}
    if row is None:
        return found
    size = len(row)
    if isinstance(registered.view, AggregatedFeatureView):
        row = _folded(registered, key, row, now_us)
    layout_id, event_ts, created_ts = read_header(row)
    view = registered.view
    layouts = {layout.layout_id: layout for layout in registered.layouts}
    decoder = RowDecoder(layouts, view.feature_names, registered.defaults)
    decoded = decoder.decode([key], [row], now_us=now_us, ttl_us=view.ttl_us)
    found |= {
        "bytes": size,
        "layout": layout_id,
        "event_timestamp": format_timestamp(event_ts),
        "created_timestamp": format_timestamp(created_ts),
        "row_status": Status(int(decoded.row_status[0])).name,
        "values": {n: c.to_pylist()[0] for n, c in zip(view.feature_names, decoded.columns, strict=True)},
        "statuses": {
            n: Status(int(s[0])).name for n, s in zip(view.feature_names, decoded.statuses, strict=True)
        },
    }
    return found


async def _fetched(
    online_store: str, registered: RegisteredView, values: Sequence[Sequence[Any]]
) -> tuple[bytes, bytes | None]:
    """Key and row of one entity, of the row set that is served."""
    join_keys = registered.join_keys
    store = open_store(online_store, read_only=True)
    try:
        sets = await look(store, {registered.view_id: registered.online_id})
        encoder = KeyEncoder(sets[registered.view_id].live, tuple(join_keys.values()))
        key = encoder.encode(values, 1, names=tuple(join_keys))[0]
        rows = store.get_many([key])
        return key, (await rows if isinstance(rows, asyncio.Future) else rows)[0]
    finally:
        await store.close()


def _folded(registered: RegisteredView, key: bytes, row: bytes, now_us: int) -> bytes:
    """A tile row as a row of values."""
    view = registered.view
    assert isinstance(view, AggregatedFeatureView)
    stored, made = ReadBatch([key]), ReadBatch([key])
    stored.fill([row], 0)
    Folder(compile_program(view), registered.layout).fold_into(stored, 0, 1, made, 0, now_us=now_us)
    (folded,) = made.rows()
    assert folded is not None
    return folded
