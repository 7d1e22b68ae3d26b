"""The newest row of every key in a view's history, in the bytes the online store should hold for it now.

| the view                             | its history                                                                 |
|--------------------------------------|-----------------------------------------------------------------------------|
| was materialized offline             | its offline table, at the version that was newest when we began               |
| was not, and has a batch source      | of its source, what was materialized online; beside it pushed rows, as above |
| was not, and has none                | its offline table: what was pushed                                          |

A source is ahead of its view between two runs. So of it only those rows count that lie in the event times which were
materialized online, and were created before the last of these runs ended.

A row of history is encoded in the layout it was written with: so are the rows online, and fields it is too old for
take their default from the definition of the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.batch import KeySet, ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.config import Config
from fastserve.definitions import batch_source
from fastserve.errors import MaterializeError
from fastserve.hashes.mixing import mixed
from fastserve.offline.history import History, visible_range
from fastserve.offline.latest import latest_rows, timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS, LAYOUT
from fastserve.offline.source import scan_source
from fastserve.registry import Interval, RegisteredView
from fastserve.timeutil import DAY_US
from materializer.reconcile.shards import hashes

if TYPE_CHECKING:
    from fastserve.registry import Registry

Span = tuple[int | None, int | None]
ENCODE_ROWS: Final = 8_192
SEEN_KEYS: Final = 500_000
_U64: Final = 2**64 - 1
Ints = npt.NDArray[np.int64]
Encoded = tuple[list[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Pin:
    """Which history it is.

    Attributes:
        version: of the offline table; None where there is none.
        covered: what was materialized online, where a source is read; None where the table is all.
    """

    version: int | None
    covered: tuple[Interval, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"from": "table" if self.covered is None else "source", "table_version": self.version}


class Truth:
    """Rows of one view's history.

    Args:
        rv: the view, at the row set that is compared.
        now_us: the present: rows of later event or created times do not count.

    Attributes:
        pin: which history it is.

    Raises:
        IncompleteHistoryError: the view has no history.
    """

    def __init__(self, config: Config, registry: Registry, rv: RegisteredView, now_us: int) -> None:
        self._config, self._registry = config, registry
        self._rv, self._now_us = rv, now_us
        self._history = History(config, registry, allow_incomplete=True, as_of_us=now_us)
        self._keys = KeyEncoder(rv.online_id, tuple(rv.join_keys.values()))
        self._encoders = {layout.layout_id: RowEncoder(layout) for layout in rv.layouts}
        self._visible = visible_range(self._moment, rv.view.ttl_us)
        self.pin = self._pinned()

    @property
    def prefix(self) -> bytes:
        """What every online key begins with."""
        return self._keys.prefix

    def named(self, key: bytes) -> dict[str, Any]:
        """The join keys of an online key; CodecError for one that no encoder wrote."""
        return dict(zip(self._rv.join_keys, self._keys.decode(key), strict=True))

    def rows(self) -> Iterator[Encoded]:
        """(keys, rows) of all keys, a key perhaps several times: the largest order counts, of equal ones the last.

        Rows that a newer date of the table supersedes are left out, as far as memory for their keys goes.
        """
        if self.pin.covered is not None:
            for batch in self._batches(None, self._visible):
                yield from self._encoded(batch)
            return
        seen, day = KeySet(SEEN_KEYS), None
        for batch in self._table_rows(None, self._visible, newest_first=True):
            today = int(timestamps(batch, EVENT_TS)[0]) // DAY_US  # a file of the table is of one date
            if today != day:
                seen.next_round()
                day = today
            yield from self._encoded(batch, seen)

    def since(self) -> tuple[bool, Iterator[Encoded]]:
        """What came into the history since it was pinned; it is pinned anew.

        Returns:
            Whether that is all of the history again, and its rows; some of them may be known already.
        """
        before, self.pin = self.pin, self._pinned()
        if self.pin.covered is not None or before.covered is not None:
            return True, self.rows()
        if self.pin.version == before.version:
            return False, iter(())
        found = self._table_rows(None, self._visible, since=before.version)
        return False, chain.from_iterable(map(self._encoded, found))

    def sample(self, n: int, seed: int) -> Iterator[Encoded]:
        """`rows` of n keys drawn at random, or of all if there are fewer.

        Keys and times are read of all rows; features only of the dates on which these keys have their newest row.
        """
        drawn = Draw(n, seed)
        for batch in self._batches([], self._visible):
            times = [timestamps(batch, name) for name in (EVENT_TS, CREATED_TS)]
            drawn.add(self._encoded_keys(batch).keys(), *times)
        for span in drawn.days():
            for batch in self._batches(None, _both(span, self._visible)):
                keys = self._encoded_keys(batch).keys()
                mine = np.fromiter((key in drawn.newest for key in keys), np.bool_, len(keys))
                yield from self._encoded(batch.filter(pa.array(mine)))

    # ---- reading -----------------------------------------------------------------------------------

    @property
    def _moment(self) -> Ints:
        return np.array([self._now_us], np.int64)

    def _pinned(self) -> Pin:
        version = self._history.table(self._rv).version
        if self._history.source_for(self._rv, self._moment) is None:
            return Pin(version, None)
        return Pin(version, tuple(self._registry.intervals(self._rv.view_id, "online")))

    def _batches(self, columns: Sequence[str] | None, span: Span) -> Iterator[pa.RecordBatch]:
        """The history's canonical rows of event times [start, end), in the order in which later ones win."""
        if self.pin.covered is not None:
            yield from self._source_rows(self.pin.covered, columns, span)
        yield from self._table_rows(columns, span)

    def _table_rows(
        self,
        columns: Sequence[str] | None,
        span: Span,
        *,
        since: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        if self.pin.version is None:
            return
        table = self._history.table(self._rv)
        for batch in table.read(
            columns, *span, version=self.pin.version, since=since, newest_first=newest_first
        ):
            yield from _filtered(batch, timestamps(batch, CREATED_TS) <= self._now_us)

    def _source_rows(
        self, covered: Sequence[Interval], columns: Sequence[str] | None, span: Span
    ) -> Iterator[pa.RecordBatch]:
        source = batch_source(self._rv.view.source)
        assert source is not None
        if not covered:
            return
        ended = min(max(interval.finished_us for interval in covered), self._now_us)
        batches = scan_source(
            source,
            self._rv,
            self._config.repo,
            columns=columns,
            start_us=span[0],
            end_us=span[1],
            options=self._history.options,
        )
        for batch in batches:
            event = timestamps(batch, EVENT_TS)
            known = timestamps(batch, CREATED_TS) <= ended
            inside = [(event < i.end_us) & (i.start_us is None or event >= i.start_us) for i in covered]
            yield from _filtered(batch, known & np.logical_or.reduce(inside))

    # ---- encoding ----------------------------------------------------------------------------------

    def _encoded_keys(self, batch: pa.RecordBatch) -> ReadBatch:
        keys = ReadBatch()
        columns = [batch.column(name) for name in self._rv.join_keys]
        self._keys.encode_into(keys, columns, batch.num_rows)
        return keys

    def _encoded(self, batch: pa.RecordBatch, seen: KeySet | None = None) -> Iterator[Encoded]:
        """The newest row of each key of a batch, but for keys that an earlier round has seen."""
        picked = latest_rows(batch, list(self._rv.join_keys))
        batch = batch.take(pa.array(picked))
        for start in range(0, batch.num_rows, ENCODE_ROWS):
            part = batch.slice(start, ENCODE_ROWS)
            keys = self._encoded_keys(part)
            if seen is not None:
                new = ~seen.mark(keys)
                part = part.filter(pa.array(new))
                keys = self._encoded_keys(part)
            if part.num_rows:
                yield keys.keys(), self._encoded_rows(keys.keys(), part)

    def _encoded_rows(self, keys: list[bytes], batch: pa.RecordBatch) -> list[bytes]:
        """One row per key, each in the layout it was written with."""
        layouts = batch.column(LAYOUT).to_numpy(zero_copy_only=False)
        rows = [b""] * len(keys)
        for layout_id in np.unique(layouts).tolist():
            mine = np.flatnonzero(layouts == layout_id)
            part = batch if len(mine) == len(keys) else batch.take(pa.array(mine))
            encoder = self._encoders.get(layout_id)
            if encoder is None:
                raise moved_on(self._rv)
            columns = [part.column(name) for name in encoder.layout.names]
            times = [timestamps(part, name) for name in (EVENT_TS, CREATED_TS)]
            made = encoder.encode([keys[i] for i in mine.tolist()], columns, *times)
            for i, row in zip(mine.tolist(), made, strict=True):
                rows[i] = row
        return rows


class Draw:
    """Keys drawn at random from a stream in which they come several times: those of the n smallest hashes.

    Attributes:
        newest: key -> (event time, created time) of its newest row so far; more than n keys while it is fed.
    """

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._seed = np.uint64(seed & _U64)
        self._limit = _U64
        self._codes: dict[bytes, int] = {}
        self.newest: dict[bytes, tuple[int, int]] = {}

    def add(self, keys: Sequence[bytes], event_us: Ints, created_us: Ints) -> None:
        """The next rows of the stream."""
        codes = mixed(hashes(keys).astype(np.uint64) ^ self._seed)
        for i in np.flatnonzero(codes <= np.uint64(self._limit)).tolist():
            key, times = keys[i], (int(event_us[i]), int(created_us[i]))
            if times >= self.newest.get(key, times):
                self.newest[key] = times
            self._codes[key] = int(codes[i])
        if len(self._codes) > 2 * self._n:
            self._trim()

    def days(self) -> Iterator[Span]:
        """The spans of whole days in which the drawn keys have their newest rows, ascending; nothing can be added."""
        self._trim()
        days = sorted({event_us // DAY_US for event_us, _ in self.newest.values()})
        while days:
            n = next((i for i in range(1, len(days)) if days[i] > days[i - 1] + 1), len(days))
            yield days[0] * DAY_US, (days[n - 1] + 1) * DAY_US
            days = days[n:]

    def _trim(self) -> None:
        if len(self._codes) <= self._n:
            return
        kept = sorted(self._codes.items(), key=lambda item: (item[1], item[0]))[: self._n]
        self._codes = dict(kept)
        self.newest = {key: self.newest[key] for key in self._codes}
        self._limit = kept[-1][1]


def _filtered(batch: pa.RecordBatch, kept: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """The rows of a batch that are kept, if there are any."""
    if kept.all():
        yield batch
    elif kept.any():
        yield batch.filter(pa.array(kept))


def _both(a: Span, b: Span) -> Span:
    """What lies in both spans."""
    starts = [us for us in (a[0], b[0]) if us is not None]
    ends = [us for us in (a[1], b[1]) if us is not None]
    return max(starts, default=None), min(ends, default=None)


def moved_on(rv: RegisteredView) -> MaterializeError:
    """The error for a view that has other definitions by now than those we began with."""
    return MaterializeError(
        "the view was changed while it was looked at",
        where=f"FeatureView {rv.view.name!r}",
        hint="run it again",
    )
