"""The newest row that history has of entities at some instants: of all its rows, and of those known by then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.definitions import FeatureViewProjection
from fastserve.offline.history import History
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from fastserve.registry import RegisteredView
from materializer.pit.factorize import canonical_key
from materializer.pit.spine import label_keys

Ints = npt.NDArray[np.int64]

NONE: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Newest:
    """Times of rows, microseconds UTC, int64[n]; the least int64 where there is no row.

    Attributes:
        event, created: of the newest row.
        known_event, known_created: of the newest row that was known by the instant.
    """

    event: Ints
    created: Ints
    known_event: Ints
    known_created: Ints


def newest_rows(
    history: History, projection: FeatureViewProjection, rv: RegisteredView, entities: pa.Table, times: Ints
) -> Newest:
    """The newest row for each of n entities at n instants.

    Raises:
        IncompleteHistoryError, InvalidDataError, OfflineStoreError: as of a training set.
    """
    n = len(times)
    found = Newest(*(np.full(n, NONE, np.int64) for _ in range(4)))
    wanted = label_keys(entities, rv, projection.join_key_map)
    places: dict[tuple[object, ...], list[int]] = {}
    for i, key in enumerate(_rows_of(wanted, n)):
        places.setdefault(key, []).append(i)
    for batch in _wanted(key_rows(history, rv, times), wanted):
        event, created = (batch[name].cast(pa.int64()).to_pylist() for name in (EVENT_TS, CREATED_TS))
        keys = {name: batch[name] for name in wanted}
        for key, e, c in zip(_rows_of(keys, len(event)), event, created, strict=True):
            for i in places.get(key, ()):
                _meet(found, i, e, c, int(times[i]))
    return found


def key_rows(history: History, rv: RegisteredView, times: Ints) -> Iterator[pa.RecordBatch]:
    """Join keys, as `canonical_key` makes them, and times of the rows that answers of these times can see."""
    for piece in history.pieces(rv, [], times):
        for batch in piece.keys():
            columns = {name: canonical_key(batch[name], key_type) for name, key_type in rv.join_keys.items()}
            columns |= {name: batch[name] for name in (EVENT_TS, CREATED_TS)}
            yield pa.RecordBatch.from_pydict(columns)


def _wanted(batches: Iterable[pa.RecordBatch], wanted: dict[str, pa.Array]) -> Iterator[pa.RecordBatch]:
    """The rows whose first join key is one of those wanted, which leaves few."""
    first = next(iter(wanted), None)
    for batch in batches:
        yield batch if first is None else batch.filter(pc.is_in(batch[first], value_set=wanted[first]))


def _rows_of(keys: dict[str, pa.Array], n: int) -> Iterator[tuple[object, ...]]:
    columns = [values.to_pylist() for values in keys.values()]
    return zip(*columns, strict=True) if columns else iter([()] * n)


def _meet(found: Newest, i: int, event: int, created: int, t: int) -> None:
    if event > t:
        return
    if (event, created) >= (found.event[i], found.created[i]):
        found.event[i], found.created[i] = event, created
    if created <= t and (event, created) >= (found.known_event[i], found.known_created[i]):
        found.known_event[i], found.known_created[i] = event, created
