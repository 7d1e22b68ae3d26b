"""Statistics of the rows that a run reads, collected while it scans; small batches together: each column costs calls.

A run that fails here goes on without: rows matter more than what is said about them. It says so in its summary and
in the log, and leaves no statistics rather than wrong ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.offline.latest import timestamps
from fastserve.offline.schema import CREATED_TS, EVENT_TS, feature_types
from fastserve.registry import RegisteredView
from fastserve.statistics.feature import FeatureStatistics, is_hidden, measures_length, numbers_of, sampled_of
from fastserve.statistics.moments import Moments
from fastserve.statistics.sample import NO_LIMIT, SAMPLE_ROWS, Sample, row_hashes, smallest
from fastserve.statistics.view import ViewStatistics
from fastserve.types import DType

log = logging.getLogger(__name__)

HELD_ROWS = 4 * SAMPLE_ROWS
TOGETHER_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Part:
    """What a Collector in another process found.

    Attributes:
        rows, first_us, last_us: how many, and their least and largest event time; None without any.
        moments: of each feature.
        hashes, sampled, limit: rows for the sample, as _Held keeps them; None where there are none.
        error: why it gave up; '' while it did not.
    """

    rows: int
    first_us: int | None
    last_us: int | None
    moments: Mapping[str, Moments]
    hashes: npt.NDArray[np.uint64] | None
    sampled: pa.RecordBatch | None
    limit: int
    error: str


class Collector:
    """Collects the statistics of one view's rows.

    Args:
        registered: the view.
        counted: (event, created) times, microseconds; rows with neither later were counted by an earlier run.

    Attributes:
        error: why it gave up; '' while it did not.
    """

    def __init__(self, registered: RegisteredView, counted: tuple[int, int] | None = None) -> None:
        self.error = ""
        self.counted = counted
        self._view = registered.view.name
        self._join_keys = tuple(registered.join_keys)
        self._types = feature_types(registered)
        self._hidden = {f.name for f in registered.view.schema if is_hidden(registered.view.tags, f.tags)}
        self._moments = dict.fromkeys(self._types, Moments())
        self._held = _Held(
            registered, {name: t for name, t in self._types.items() if name not in self._hidden}
        )
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take canonical rows. Raises nothing that rows can cause; see `error`."""
        if self.error:
            return
        self._waiting.append(batch)
        if sum(waiting.num_rows for waiting in self._waiting) >= TOGETHER_ROWS:
            self.finish()

    def finish(self) -> None:
        """Count what waits; `error` is final then, where no more rows come."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self.error:
            return
        try:
            self._add(waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting))
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            log.exception("view %s: no statistics of this run", self._view)

    def result(self) -> ViewStatistics | None:
        """What was collected; None without rows, or when it gave up."""
        self.finish()
        if self.error or self._first is None or self._last is None:
            return None
        samples = self._held.samples()
        features = {
            name: FeatureStatistics(str(dtype), self._moments[name], samples.get(name))
            for name, dtype in self._types.items()
        }
        return ViewStatistics(self._first, self._last + 1, self._rows, features)

    def part(self) -> Part:
        """What was collected, for another to take."""
        self.finish()
        hashes, sampled, limit = self._held.kept()
        return Part(self._rows, self._first, self._last, self._moments, hashes, sampled, limit, self.error)

    def take(self, part: Part) -> None:
        """Take what was found in other rows. The result is that of taking the rows, but for the rounding of means."""
        self.error = self.error or part.error
        if self.error or part.first_us is None or part.last_us is None:
            return
        self._count(part.rows, part.first_us, part.last_us)
        self._merge(part.moments)
        if part.hashes is not None and part.sampled is not None:
            self._held.take(part.hashes, part.sampled, part.limit)

    def _add(self, batch: pa.RecordBatch) -> None:
        events, created = timestamps(batch, EVENT_TS), timestamps(batch, CREATED_TS)
        if self.counted is not None:
            new = (events > self.counted[0]) | (created > self.counted[1])
            if not new.all():
                batch, events = batch.filter(pa.array(new)), events[new]
        if not batch.num_rows:
            return
        self._count(batch.num_rows, int(events.min()), int(events.max()))
        self._merge(
            {
                name: _moments(dtype, batch.column(name), name in self._hidden)
                for name, dtype in self._types.items()
            }
        )
        keys = [batch.column(name) for name in (*self._join_keys, EVENT_TS, CREATED_TS)]
        self._held.add(batch, row_hashes(keys, batch.num_rows))

    def _count(self, rows: int, first: int, last: int) -> None:
        self._rows += rows
        self._first = first if self._first is None else min(first, self._first)
        self._last = last if self._last is None else max(last, self._last)

    def _merge(self, found: Mapping[str, Moments]) -> None:
        for name, moments in found.items():
            self._moments[name] = self._moments[name].merged(moments)


class _Held:
    """Rows that may be in the sample: more than it takes, so that they are sorted out seldom."""

    def __init__(self, registered: RegisteredView, types: dict[str, DType]) -> None:
        self._types = types
        self._parts: list[tuple[npt.NDArray[np.uint64], pa.RecordBatch]] = []
        self._n = 0
        self._limit = NO_LIMIT

    def add(self, batch: pa.RecordBatch, hashes: npt.NDArray[np.uint64]) -> None:
        """Take what may belong to the sample."""
        picked, limit = smallest(hashes, self._limit)
        if not len(picked) or not self._types:
            return
        rows = batch.select(list(self._types)).take(pa.array(picked))
        kept = [sampled_of(dtype, rows.column(name)) for name, dtype in self._types.items()]
        self.take(hashes[picked], pa.record_batch(kept, list(self._types)), limit)

    def take(self, hashes: npt.NDArray[np.uint64], sampled: pa.RecordBatch, limit: int) -> None:
        """Take what was kept elsewhere of rows that come next."""
        self._parts.append((hashes, sampled))
        self._n += len(hashes)
        self._limit = min(limit, self._limit)
        if self._n > HELD_ROWS:
            self._sort_out()

    def kept(self) -> tuple[npt.NDArray[np.uint64] | None, pa.RecordBatch | None, int]:
        """The rows of the sample, their hashes, and its limit."""
        if not self._parts:
            return None, None, self._limit
        if len(self._parts) > 1:  # one is a sample as it came
            self._sort_out()
        ((hashes, rows),) = self._parts
        return hashes, rows, self._limit

    def samples(self) -> dict[str, Sample]:
        """The sample of each feature."""
        hashes, rows, _ = self.kept()
        if hashes is None or rows is None:
            return {}
        return {name: Sample(hashes, rows.column(name), self._limit) for name in self._types}

    def _sort_out(self) -> None:
        hashes = np.concatenate([part for part, _ in self._parts])
        rows = pa.concat_batches([part for _, part in self._parts])
        picked, self._limit = smallest(hashes, self._limit)
        self._parts = [(hashes[picked], rows.take(pa.array(picked)))]
        self._n = len(picked)


def _moments(dtype: DType, column: pa.Array, hidden: bool) -> Moments:
    """Of a feature's column; of hidden values only how many there are."""
    nulls = column.null_count
    if hidden and not measures_length(dtype):
        return Moments(rows=len(column), nulls=nulls)
    if nulls:
        column = column.drop_null()
    return Moments.of(numbers_of(dtype, column).to_numpy(zero_copy_only=False), nulls)
