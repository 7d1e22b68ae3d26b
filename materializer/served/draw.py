"""Entities to ask for, drawn at random from the history of what is asked, and request columns made up for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.errors import InvalidDataError
from fastserve.hashes.keys import key_hashes
from fastserve.hashes.mixing import mixed
from fastserve.offline.events import what_is_read
from fastserve.offline.history import History
from fastserve.offline.latest import timestamps
from fastserve.offline.schema import EVENT_TS
from fastserve.registry import RegisteredView
from fastserve.types import DType, parse_dtype
from materializer.on_demand import Part, request_columns, stored_parts
from materializer.served.newest import key_rows

if TYPE_CHECKING:
    from fastserve.registry import Registry

NULLS: Final = 0.05  # of the values that are made up
_WORDS: Final = ("", "a", "visa", "paid", "Zürich", "x" * 40)


def draw(
    config: Config, registry: Registry, parts: list[Part], *, n: int, seed: int, now_us: int
) -> dict[str, list[Any]]:
    """Request column -> values of up to n entities that history has rows of.

    Args:
        parts: what is to be asked for, as `Snapshot.resolve` gives it.
        seed: the same draws the same of the same history.
        now_us: rows from after it do not count.

    Raises:
        IncompleteHistoryError: a view has no history.
        InvalidDataError: there is no row in it of any entity.
    """
    rng = np.random.default_rng(seed)
    history = History(config, registry, allow_incomplete=True, as_of_us=now_us)
    groups: dict[tuple[str, ...], tuple[FeatureViewProjection, RegisteredView]] = {}
    for part, rv in stored_parts(parts):
        groups.setdefault(tuple(part.join_key_map.get(key, key) for key in rv.join_keys), (part, rv))
    drawn = {
        columns: _keys(history, rv, n, seed, now_us)
        for columns, (_, rv) in sorted(groups.items(), key=lambda group: -len(group[0]))
        if columns
    }
    rows = max((len(keys) for keys in drawn.values()), default=1)
    if not rows:
        raise InvalidDataError(
            "its history has no rows",
            where=f"FeatureView {parts[0][1].view.name!r}",
            hint="nothing to verify",
        )
    found: dict[str, list[Any]] = {}
    for columns, keys in drawn.items():
        if not len(keys):  # it has nothing of any entity: one that nobody knows is to be answered alike
            for column, dtype in zip(columns, groups[columns][1].join_keys.values(), strict=True):
                one = _maker(dtype, rng, now_us)
                found.setdefault(column, [one() for _ in range(rows)])
            continue
        picks = rng.permutation(rows) % len(keys) if len(keys) < rows else np.arange(rows)
        values = keys.take(pa.array(picks, pa.int64()))
        for column, name in zip(columns, keys.column_names, strict=True):
            found.setdefault(column, values[name].to_pylist())
    for column, dtype, _ in request_columns(parts):
        if column not in found:
            found[column] = _made_up(parse_dtype(dtype), rows, rng, now_us)
    return found


def _keys(history: History, rv: RegisteredView, n: int, seed: int, now_us: int) -> pa.Table:
    """The n distinct keys with the least hashes, or all there are."""
    rows, _ = what_is_read(rv, [])
    names = list(rv.join_keys)
    kept: pa.Table | None = None
    for batch in _known_keys(history, rows, now_us):
        made = pa.Table.from_batches([batch]) if kept is None else pa.concat_tables([kept, pa.table(batch)])
        order = mixed(
            key_hashes([made[name].combine_chunks() for name in names], len(made)) ^ np.uint64(seed)
        )
        _, first = np.unique(order, return_index=True)
        kept = made.take(pa.array(first[:n]))
    if kept is None:
        return pa.table({name: pa.array([], pa.int64()) for name in names})
    return kept


def _known_keys(history: History, rv: RegisteredView, now_us: int) -> Iterator[pa.RecordBatch]:
    """The keys of the rows that are not from after an instant, where none of them is null."""
    for batch in key_rows(history, rv, np.array([now_us])):
        keep = timestamps(batch, EVENT_TS) <= now_us
        keys = batch.select(list(rv.join_keys))
        for values in keys.columns:
            keep &= values.is_valid().to_numpy(zero_copy_only=False)
        yield keys.filter(pa.array(keep))


def _made_up(dtype: DType, n: int, rng: np.random.Generator, now_us: int) -> list[Any]:
    one = _maker(dtype.item, rng, now_us)
    if dtype.is_list:
        lengths = [dtype.length or int(rng.integers(0, 4)) for _ in range(n)]
        values: list[Any] = [[one() for _ in range(length)] for length in lengths]
    else:
        values = [one() for _ in range(n)]
    return [None if rng.random() < NULLS else value for value in values]


def _maker(item: str, rng: np.random.Generator, now_us: int) -> Callable[[], Any]:
    makers: dict[str, Callable[[], Any]] = {
        "bool": lambda: bool(rng.integers(2)),
        "int32": lambda: int(rng.integers(-1_000, 1_000)),
        "int64": lambda: int(rng.integers(-1_000_000, 1_000_000)),
        "float32": lambda: float(np.float32(rng.normal(0, 100))),
        "float64": lambda: float(rng.normal(0, 100)),
        "string": lambda: str(rng.choice(_WORDS)),
        "bytes": lambda: bytes(rng.bytes(4)),
        "timestamp": lambda: np.datetime64(now_us - int(rng.integers(0, 30 * 86_400_000_000)), "us").item(),
    }
    return makers[item]
