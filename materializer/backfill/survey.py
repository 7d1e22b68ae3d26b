"""Which dates a source has, and which files each was read from, without reading its rows where that can be had.

Parquet files and Delta tables say in their footers what times each row group holds: a group within one date is
counted exactly, one over several is spread evenly. Of other files, queries and transforms the times are read.

A date's `state` hashes what tells that its files changed: path, size, time of the last write (of a Delta table the
paths: a file is never written twice). Where the same is found again, the date has the same rows and need not be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fastserve.definitions import BatchSource, FileSource
from fastserve.offline.files import DataFile, list_files, open_files
from fastserve.offline.latest import timestamps
from fastserve.offline.options import READ, ReadOptions
from fastserve.offline.schema import EVENT_TS
from fastserve.offline.source import open_source, scan_files
from fastserve.offline.window import Window
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US

EPOCH: Final = date(1970, 1, 1)
_SPREAD_DATES: Final = 3.0
_LONGEST_US: Final = 40_000 * DAY_US  # a group of longer has a stray time: not spread, but counted


@dataclass(slots=True)
class SourceDate:
    """What a source has of one date: rows and bytes of its files, exact or spread, and the files' state."""

    rows: float = 0.0
    n_bytes: float = 0.0
    files: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        """A hash of the date's files; '' where one of them does not say when it was written."""
        if "" in self.files:
            return ""
        return hashlib.blake2b("\n".join(sorted(self.files)).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Survey:
    """The dates of a source.

    Attributes:
        dates: those with rows in the window; spread over a row group's dates, some may turn out to have none.
        exact: whether all rows were counted rather than spread.
        scattered: whether most row groups hold rows of several dates, so that reading few dates reads much.
    """

    dates: dict[date, SourceDate]
    exact: bool
    scattered: bool


def survey(
    source: BatchSource,
    rv: RegisteredView,
    repo: Path,
    start_us: int | None,
    end_us: int,
    options: ReadOptions = READ,
) -> Survey:
    """Look at a source's files for the dates of event times ``[start_us, end_us)``.

    Raises:
        InvalidDataError: as `scan_source`; but rows are only read where the files have no statistics.
    """
    dates: dict[date, SourceDate] = {}
    if not isinstance(source, FileSource):  # a query or a transform: only its rows can tell
        window = Window(start_us, end_us)
        with closing(open_source(source, repo, window, options)) as files:
            _count(files, source, rv, "", window, dates)
        return Survey(dates, exact=True, scattered=True)
    states = _states(source, repo)
    bounds = (-(2**62) if start_us is None else start_us, end_us)
    exact, spans = True, []
    for file in open_files(source, repo):
        state = states.get(file.path, file.path if source.format == "delta" else "")
        groups = _groups(source, file)
        if groups is None:
            scattered = _count([file], source, rv, state, Window(start_us, end_us), dates)
            spans.append(scattered)
            continue
        for low, high, rows, n_bytes in groups:
            days = _days(low, high, bounds)
            spans.append(len(days))
            exact &= low // DAY_US == high // DAY_US
            for day in days:
                found = dates.setdefault(day, SourceDate())
                found.rows += rows / (high // DAY_US - low // DAY_US + 1)
                found.n_bytes += n_bytes / (high // DAY_US - low // DAY_US + 1)
                found.files.add(state)
    return Survey(dates, exact, bool(spans) and float(np.mean(spans)) > _SPREAD_DATES)


def _days(low: int, high: int, bounds: tuple[int, int]) -> list[date]:
    first, last = max(low, bounds[0]) // DAY_US, min(high, bounds[1] - 1) // DAY_US
    return [EPOCH + timedelta(days=number) for number in range(first, last + 1)]


def _states(source: FileSource, repo: Path) -> dict[str, str]:
    """Opened path -> what tells that the file changed; '' where nothing does."""
    if source.format == "delta":
        return {}
    return {
        file.opened_as: "" if file.mtime_ns is None else f"{file.path} {file.size} {file.mtime_ns}"
        for file in list_files(source, repo)
    }


def _groups(source: FileSource, file: DataFile) -> Iterable[tuple[int, int, int, int]] | None:
    """(first event time, last, rows, bytes) of each row group with rows; None where the file does not say."""
    metadata = getattr(file.reader, "metadata", None)
    if metadata is None:
        return None
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    renamed = {name: column for column, name in source.field_mapping.items()}
    event = source.timestamp_field
    event = event if event in names else renamed.get(event, event)
    if event not in names:
        return None
    found = list(_ranges(metadata, names.index(event)))
    return None if any(low is None or high - low > _LONGEST_US for low, high, *_ in found) else found


def _ranges(metadata: Any, column: int) -> Iterator[Any]:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        stats = group.column(column).statistics
        if not group.num_rows:
            continue
        if stats is None or not stats.has_min_max or not isinstance(stats.min, datetime) or stats.null_count:
            yield None, None, 0, 0
            continue
        ends = pa.array([stats.min, stats.max]).cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
        yield ends[0], ends[1], group.num_rows, group.total_byte_size


def _count(
    files: Iterable[DataFile],
    source: BatchSource,
    rv: RegisteredView,
    state: str,
    window: Window,
    dates: dict[date, SourceDate],
) -> int:
    """Read the times of files; returns how many dates they have."""
    own: set[date] = set()
    for batch in scan_files(files, source, rv, window, columns=[]):
        numbers, counts = np.unique(timestamps(batch, EVENT_TS) // DAY_US, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            day = EPOCH + timedelta(days=number)
            found = dates.setdefault(day, SourceDate())
            found.rows += count
            found.n_bytes += batch.nbytes * count / batch.num_rows
            found.files.add(state)
            own.add(day)
    return len(own)


def start_of(day: date) -> int:
    """Microseconds UTC of a date's midnight."""
    return (day - EPOCH).days * DAY_US


def date_of(us: int) -> date:
    """The UTC date of an event time."""
    return EPOCH + timedelta(days=us // DAY_US)
