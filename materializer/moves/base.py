"""What is moved, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pyarrow as pa

from fastserve.config import Config
from fastserve.offline.latest import timestamps
from fastserve.offline.options import ReadOptions
from fastserve.offline.schema import CREATED_TS
from fastserve.registry import RegisteredView
from fastserve.timeutil import MIN_US
from materializer.digest import salt_of
from materializer.select import Chosen, Target
from materializer.statistics import Collector
from materializer.stop import Stop
from materializer.window import Window

if TYPE_CHECKING:
    from fastserve.offline.delta import OfflineTable

Finished: TypeAlias = Mapping[tuple[str, str], str]
"""(date, target) -> the digest of its rows, of what a killed run finished."""


@dataclass(frozen=True, slots=True)
class Job:
    """One view of a run. `now_us` is the run's present."""

    config: Config
    chosen: Chosen
    window: Window
    now_us: int
    stop: Stop

    @property
    def registered(self) -> RegisteredView:
        """The view."""
        return self.chosen.registered

    @property
    def salt(self) -> str:
        """What else decides the rows that are written, beside those of the source."""
        return salt_of(self.registered)

    @property
    def table(self) -> OfflineTable:
        """The view's offline table."""
        from fastserve.offline.delta import OfflineTable  # noqa: PLC0415  (a run of online rows needs no Delta)

        return OfflineTable(self.config.offline_store, self.config.project, self.registered)

    @property
    def options(self) -> ReadOptions:
        """What a query or transform is told."""
        return ReadOptions(self.now_us, self.config.sql_memory, self.stop.check)


@dataclass(frozen=True, slots=True)
class Wrote:
    """Some dates of one store, done.

    Attributes:
        days: those that were written -> rows, digest.
        skipped: dates that a killed run had finished.
        rows: of both.
        rows_new: rows that the store lacked.
    """

    target: Target
    days: Mapping[date, tuple[int, str]]
    skipped: int
    rows: int
    rows_new: int


class Mover(Protocol):
    """Moves the rows of one job. A context manager; leaving it frees what it holds of them."""

    def __enter__(self) -> Mover: ...

    def __exit__(self, *exc: object) -> None: ...

    def read(self, collector: Collector | None, told: Callable[[int], None]) -> int | None:
        """Read the window's rows; returns their largest created time.

        Args:
            told: of how many were read so far.

        Raises:
            Stopped: between two batches.
            InvalidDataError: a row does not fit; nothing was written.
        """

    def dates(self) -> Sequence[date]:
        """The dates that have rows, once they are read."""

    def write(self, finished: Finished) -> Iterator[Wrote]:
        """Write every date that no killed run finished, newest first.

        Raises:
            Stopped: between two dates, or two batches.
            FastserveError: a store cannot be written.
        """


def newest_created(batch: pa.RecordBatch, before: int | None) -> int | None:
    """The largest created time of a batch's rows and of those before; None without any."""
    if not batch.num_rows:
        return before
    return max(int(timestamps(batch, CREATED_TS).max()), MIN_US if before is None else before)
