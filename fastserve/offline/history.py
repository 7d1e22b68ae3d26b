"""A view's history for training: from its Delta table once it is materialized, before that from its source.

Both give the same rows: the table was filled by the same scan. A table that covers some of the labels is not
silently taken for one that covers all of them. Pushed rows are in the table only and cover nothing: before a view is
materialized they are read beside its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from fastserve.config import Config
from fastserve.definitions import BatchSource, batch_source
from fastserve.errors import IncompleteHistoryError, RequestError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.options import ReadOptions
from fastserve.offline.pieces import Piece, source_pieces, table_pieces
from fastserve.offline.source import open_source
from fastserve.offline.streamed import history_table
from fastserve.offline.times import uses_as_of
from fastserve.offline.window import Window
from fastserve.registry import Interval, RegisteredView, uncovered
from fastserve.timeutil import MAX_US, MIN_US, format_duration, format_timestamp, now_us

if TYPE_CHECKING:
    from fastserve.registry import Registry
    from fastserve.registry.backfills import Progress

Ints = npt.NDArray[np.int64]
_MIN: Final = -(2**63)


class History:
    """Reads the rows that labels can see.

    Args:
        config: where the offline tables and the sources are.
        registry: what has been materialized.
        allow_incomplete: read a table even where it does not cover all labels, or while a backfill of them is not
            complete.
        as_of_us: the present that queries are asked for, microseconds UTC; None for the wall clock.
        each_label: features are asked for as known at each label's own time.

    Attributes:
        options: what queries and transforms are told.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        allow_incomplete: bool = False,
        as_of_us: int | None = None,
        each_label: bool = False,
    ) -> None:
        self.options = ReadOptions(now_us() if as_of_us is None else as_of_us, config.sql_memory)
        self._each_label = each_label
        self._config = config
        self._registry = registry
        self._allow_incomplete = allow_incomplete

    def pieces(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> list[Piece]:
        """Rows of ``(min(times) - ttl, max(times)]``, and others near them, in source order.

        Raises:
            IncompleteHistoryError: the view has no history at all, or its table does not cover every label.
            InvalidDataError: the source has no files, or lacks a column.
        """
        if not len(times):
            return []
        source = self.source_for(rv, times)
        window = Window(*visible_range(times, rv.view.ttl_us))
        table = self.table(rv)
        if source is None:
            return table_pieces(table, window)
        files = open_source(source, self._config.repo, window, self.options)
        found = source_pieces(files, source, rv, window, columns)
        # Pushed rows come last: of equal ones they win, as they do once the source is materialized.
        return [*found, *(table_pieces(table, window) if table.exists else ())]

    def table(self, rv: RegisteredView) -> OfflineTable:
        """The view's offline table; of a view of events theirs, which a stream appended."""
        return history_table(self._config.offline_store, self._config.project, rv)

    def source_for(self, rv: RegisteredView, times: Ints) -> BatchSource | None:
        """The source to read the view's rows from; None for its offline table.

        Raises:
            IncompleteHistoryError: as `read`.
            RequestError: a query would have to be asked as of each label's time.
        """
        intervals = self._registry.intervals(rv.view_id, "offline")
        source = batch_source(rv.view.source)
        table = self.table(rv)
        if not self._allow_incomplete:
            self._check_backfill(rv, times)
            self._check_kept(rv, intervals, times)
        if intervals:
            self._check(rv, table, intervals, times)
            return None
        if source is None and not table.exists:
            raise IncompleteHistoryError(
                "has no history: nothing is materialized offline, and it has no batch source",
                where=f"FeatureView {rv.view.name!r}",
                hint="give the view a batch source, or push rows with offline storage on",
            )
        if source is not None and self._each_label and uses_as_of(source):
            raise RequestError(
                "its source asks for $as_of, one time, and label_time is another for every label",
                where=f"FeatureView {rv.view.name!r}",
                hint="materialize the view first, or give one time as cutoff",
            )
        return source

    def _check_backfill(self, rv: RegisteredView, times: Ints) -> None:
        """Raise when labels need dates that a backfill was asked for and has not finished."""
        found = self.backfill(rv, times)
        if found is None:
            return
        span = f"{_moment(found.backfill.start_us)} to {_moment(found.backfill.end_us - 1)}"
        name = rv.view.name if rv.view.version == 1 else f"{rv.view.name}@v{rv.view.version}"
        finish = "wait for it" if found.alive else f"run `materializer backfill {name}` on its dates again"
        raise IncompleteHistoryError(
            f"its backfill from {span} is not complete for these labels: of the dates they see {found}; "
            f"missing are some from {found.first} to {found.last}",
            where=f"FeatureView {rv.view.name!r}",
            hint=f"{finish}, or train on what is there with allow_incomplete=True (--allow-incomplete)",
        )

    def backfill(self, rv: RegisteredView, times: Ints) -> Progress | None:
        """How far the backfill of the dates is that labels see; None when none of them waits for one."""
        if not len(times):
            return None
        start, end = visible_range(times, rv.view.ttl_us)
        first = "" if start is None else _moment(start)[:10]
        last = "9999-12-31" if end is None else _moment(end - 1)[:10]
        return self._registry.backfills.incomplete(rv.view_id, "offline", first, last)

    def _check_kept(self, rv: RegisteredView, intervals: Sequence[Interval], times: Ints) -> None:
        """Raise when labels need what retention removed."""
        from fastserve.registry.upkeep import missing_before  # noqa: PLC0415  (SQLAlchemy, loaded by now)

        done = self._registry.upkeep(rv.view_id)
        missing = missing_before(done.removed_before_us, intervals)
        if missing is None or not len(times):
            return
        oldest = int(times.min())
        ttl_us = rv.view.ttl_us
        if ttl_us is not None and oldest - ttl_us + 1 >= missing:
            return
        hint = "train on what is there with allow_incomplete=True (--allow-incomplete)"
        if ttl_us is not None:
            hint = f"leave out the labels before {_moment(missing + ttl_us - 1)}, or {hint}"
        raise IncompleteHistoryError(
            f"the labels begin at {_moment(oldest)} and need rows of up to "
            f"{'any time' if ttl_us is None else format_duration(ttl_us)} before; retention removed what is before "
            f"{_moment(missing)}",
            where=f"FeatureView {rv.view.name!r}",
            hint=hint,
        )

    def _check(
        self, rv: RegisteredView, table: OfflineTable, intervals: Sequence[Interval], times: Ints
    ) -> None:
        if any(interval.rows for interval in intervals) and not table.exists:
            raise IncompleteHistoryError(
                f"the registry says that it is materialized, but there is no table at {table.uri}",
                where=f"FeatureView {rv.view.name!r}",
                hint="check offline_store in fastserve.toml, or materialize the view again",
            )
        if self._allow_incomplete:
            return
        missing = missing_history(intervals, times, rv.view.ttl_us)
        if missing:
            raise _incomplete(rv, intervals, missing, times)


def missing_history(
    intervals: Sequence[Interval], times: Ints, ttl_us: int | None
) -> list[tuple[int | None, int]]:
    """The parts ``[start, end)`` of history that labels need and a table does not hold; empty when all is there.

    A label at t needs the event times ``(t - ttl, t]``. History begins where the first interval begins: before
    that a view holds nothing, so of what lies before, only labels themselves count as missing, not their ttl.

    Args:
        intervals: what the table holds, merged and ascending; at least one.
        times: the labels' times, microseconds UTC.
        ttl_us: the view's.
    """
    starts = np.array([_MIN if i.start_us is None else i.start_us for i in intervals], np.int64)
    ends = np.array([i.end_us for i in intervals], np.int64)
    oldest = np.full(len(times), starts[0])
    if ttl_us is not None:
        oldest = np.maximum(np.maximum(times, _MIN + ttl_us) - ttl_us + 1, starts[0])
    at = np.searchsorted(starts, times, "right") - 1
    covered = (at >= 0) & (times < ends[at]) & (oldest >= starts[at])
    if covered.all():
        return []
    needed = np.minimum(oldest, times)[~covered]
    low = int(needed.min())
    return uncovered(intervals, None if low == _MIN else low, int(times[~covered].max()) + 1)


def _incomplete(
    rv: RegisteredView, intervals: Sequence[Interval], missing: list[tuple[int | None, int]], times: Ints
) -> IncompleteHistoryError:
    covered = ", ".join(_shown(i.start_us, i.end_us) for i in intervals)
    gaps = ", ".join(_shown(start, end) for start, end in missing)
    start, last = missing[0][0], missing[-1][1] - 1
    name = rv.view.name if rv.view.version == 1 else f"{rv.view.name}@v{rv.view.version}"
    run = f"run `materializer run --view {name} --start {_moment(start)} --end {_moment(last)}`"
    if last > now_us():
        run = "leave out the labels of the future"
    return IncompleteHistoryError(
        f"the labels are {_shown(int(times.min()), int(times.max()) + 1)}; the offline table holds what is "
        f"{covered}; missing is what is {gaps}",
        where=f"FeatureView {rv.view.name!r}",
        hint=f"{run}, or train on what is there with allow_incomplete=True (--allow-incomplete)",
    )


def _shown(start: int | None, end: int) -> str:
    """Both ends included, as the materializer's options have them."""
    until = _moment(end - 1)
    return (
        f"up to {until}"
        if start is None
        else f"of {until}"
        if start == end - 1
        else f"from {_moment(start)} to {until}"
    )


def _moment(us: int | None) -> str:
    return format_timestamp(min(max(MIN_US if us is None else us, MIN_US), MAX_US))


def visible_range(times: Ints, ttl_us: int | None) -> tuple[int | None, int | None]:
    """The event times any label can see, as [start, end); None where the bound would not be an int64."""
    start = None if ttl_us is None else int(times.min()) - ttl_us + 1
    end = int(times.max()) + 1
    return (start if start is not None and start > _MIN else None), (end if end < 2**63 else None)
