"""A view's online rows built anew beside the served ones, and switched at once. START HERE for row sets.

    lock      one refresh, rollback or removal per view at a time; runs and pushes go on
    begin     a new online id; the store names it as `building`: from here on every writer writes to both sets
    build     the view's history, read after that, date by date into the new set         reclaim.py, write.py
    carry     rows that only the served set has, of views that are pushed to
    check     every row that was written is read back; there are not suddenly few of them
    switch    one write: the new set is served, the old one `kept` for a rollback
    reclaim   what was kept long enough goes                                              reclaim.py

A push or a run that was acknowledged is in the history that is read, or it was written to both sets, or it is carried:
the switch loses nothing, and neither does a rollback. Killed anywhere, the old set is served on; the next refresh,
reclaim or run of the view gives up what was half built.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import PushSource
from fastserve.errors import (
    AlreadyRunningError,
    FastserveError,
    IncompleteHistoryError,
    MaterializeError,
    RegistryError,
    RequestError,
    StoreError,
)
from fastserve.offline.history import History
from fastserve.offline.online_rows import kept_us
from fastserve.offline.schema import canonical_schema
from fastserve.offline.source import scan_source
from fastserve.offline.window import known_by
from fastserve.online import OnlineStore
from fastserve.online.live import MIN_KEEP_US, RowSets
from fastserve.registry import RegisteredView, Registry, open_registry, uncovered
from fastserve.registry.upkeep import missing_before
from fastserve.timeutil import MICROS, format_duration, format_timestamp
from fastserve.timeutil import now_us as wall_clock_us
from materializer.copy import carry, check_rows
from materializer.progress import Progress, silent
from materializer.reclaim import Removed, count, reclaim_all, reclaim_sets
from materializer.run import off_loop
from materializer.select import name_of, refuse_aggregated, stored_view
from materializer.spill import Spill
from materializer.stop import Stop, Stopped
from materializer.summary import error_dict, exit_code_of
from materializer.write import OnlineSink, ViewWriter

log = logging.getLogger(__name__)

HOUR_US: Final = 3_600_000_000
FEW: Final = 0.5


@dataclass(slots=True)
class SetsSummary:
    """What a refresh, a rollback or a reclaim did.

    Attributes:
        action: which of them.
        view: the view's name, with `@vN` from version 2 on; '' for all.
        online_id, previous_id: of the set served now, and of the one before.
        kept_until_us: until when a rollback is possible.
        rows, rows_before: rows of the new set, and of the one served before.
        rows_read, rows_carried: rows of the history; rows that only the set before had.
        digest: of the history read; equal digests mean equal rows.
        history_version: of the offline table that was read; None for a source.
        removed: rows of sets and retired views that were removed.
        error: why it failed.
    """

    action: str
    view: str = ""
    status: str = "not_run"
    online_id: int | None = None
    previous_id: int | None = None
    kept_until_us: int | None = None
    rows: int = 0
    rows_before: int = 0
    rows_read: int = 0
    rows_carried: int = 0
    digest: str = ""
    history_version: int | None = None
    removed: Removed = field(default_factory=Removed)
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def exit_code(self) -> int:
        """As of Summary: 0 ok, 1 failed, 3 another process holds the view."""
        return exit_code_of(self.status)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown: dict[str, Any] = {"status": self.status, "action": self.action}
        if self.view:
            shown |= {"view": self.view, "online_id": self.online_id, "previous_id": self.previous_id}
            until = self.kept_until_us
            shown["kept_until"] = None if until is None else format_timestamp(until)
        if self.action == "refresh":
            names = ("rows", "rows_before", "rows_read", "rows_carried", "digest", "history_version")
            shown |= {name: getattr(self, name) for name in names}
        removed = self.removed
        shown["rows_removed"] = removed.rows
        if self.action == "reclaim":
            shown |= {"sets": removed.sets, "retired": removed.retired, "busy": removed.busy}
        shown["seconds"] = round(self.seconds, 3)
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """How to refresh a view.

    Attributes:
        view: `NAME` or `NAME@vN`.
        keep_us: how long the set before is kept for a rollback; a minute at least.
        carry: whether rows that only the served set has are taken over; None: of views with a push source.
        allow_fewer: switch even when the new set has less than half of the rows.
        now_us: the present of rows, for a replay; None for the wall clock.
    """

    view: str
    keep_us: int = HOUR_US
    carry: bool | None = None
    allow_fewer: bool = False
    now_us: int | None = None


def refresh(
    config: Config, request: RefreshRequest, *, progress: Progress = silent, stop: Stop | None = None
) -> SetsSummary:
    """Build a view's online rows anew from its history, and serve them.

    What goes wrong from the build on is in the summary's `error`: the rows served are those before.

    Raises:
        RequestError: an unknown view, too short a time to keep, or the last switch is too short ago.
        ConfigError, RegistryError, StoreError: as `materializer.run.run`.
    """
    _check_keep(request.keep_us)
    about = SetsSummary("refresh")

    def work(opened: _Opened) -> None:
        _Refresh(opened, request, progress, about).run()

    return off_loop(lambda: _with_view(config, request.view, about, stop or Stop(), work))


def rollback(config: Config, view: str, *, keep_us: int = HOUR_US, stop: Stop | None = None) -> SetsSummary:
    """Serve the rows before the last refresh again; those served until now are kept, so that it can be taken back.

    Raises:
        RequestError: an unknown view, or there are no rows to go back to.
        ConfigError, RegistryError, StoreError: as `materializer.run.run`.
    """
    _check_keep(keep_us)
    about = SetsSummary("rollback")

    def work(opened: _Opened) -> None:
        sets = opened.online.look(opened.registered)
        if sets.role != "kept" or sets.other is None:
            raise RequestError(
                "there are no rows to go back to",
                where=f"FeatureView {about.view!r}",
                hint="they are kept for a while after a refresh (--keep); another refresh builds them anew",
            )
        _switch(opened, sets, sets.other, keep_us, about)
        about.status = "ok"

    return off_loop(lambda: _with_view(config, view, about, stop or Stop(), work))


def reclaim(
    config: Config, *, keep_us: int = HOUR_US, now_us: int | None = None, stop: Stop | None = None
) -> SetsSummary:
    """Remove rows of sets that are kept no longer, and of views retired longer than `keep_us` ago.

    Args:
        now_us: the present, for a rehearsal; None for the wall clock.

    Raises:
        ConfigError, RegistryError, StoreError: as `materializer.run.run`; what is left is removed the next time.
    """
    _check_keep(keep_us)
    now = wall_clock_us() if now_us is None else now_us
    return off_loop(lambda: _reclaim(config, now, now - keep_us, stop or Stop()))


def _reclaim(config: Config, now_us: int, retired_before_us: int, stop: Stop) -> SetsSummary:
    about, began = SetsSummary("reclaim"), time.monotonic()
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        with OnlineSink(config.online_store, snapshot.registry_id) as online:
            try:
                about.removed = reclaim_all(
                    online, registry, snapshot, stop, now_us=now_us, retired_before_us=retired_before_us
                )
                about.status = "ok"
            except Stopped:
                about.status = "stopped"
    about.seconds = time.monotonic() - began
    return about


def _check_keep(keep_us: int) -> None:
    if keep_us < MIN_KEEP_US:
        raise RequestError(
            f"rows are kept for {format_duration(MIN_KEEP_US)} at least",
            where="--keep",
            hint="so long a server may go on reading what it last knew to be served",
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the three actions work on; the view's row sets are held."""

    config: Config
    registry: Registry
    online: OnlineSink
    registered: RegisteredView
    stop: Stop


def _with_view(config: Config, view: str, about: SetsSummary, stop: Stop, work: Any) -> SetsSummary:
    """Open what there is to open, hold the view's row sets, do it; what went wrong is in the summary."""
    began = time.monotonic()
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        registered = stored_view(snapshot, view)
        refuse_aggregated(registered, "a refresh or rollback")
        about.view = name_of(registered.view)
        with OnlineSink(config.online_store, snapshot.registry_id) as online:
            online.claim()
            try:
                with registry.lock_sets(registered.view_id):
                    work(_Opened(config, registry, online, registered, stop))
            except AlreadyRunningError as error:
                about.status, about.error = "already_running", error
            except Stopped:
                about.status = "stopped"
            except RequestError:
                raise
            except FastserveError as error:
                about.status, about.error = "failed", error
    about.seconds = time.monotonic() - began
    return about


def _switch(opened: _Opened, sets: RowSets, live: int, keep_us: int, about: SetsSummary) -> None:
    """Serve another set; the one served until now is kept. The store has the last word on whether that happened."""
    now, view_id = wall_clock_us(), opened.registered.view_id
    try:
        opened.online.move(sets, RowSets(view_id, live, sets.live, "kept", now, now + keep_us))
    except StoreError:  # its answer was lost, perhaps, and not the write
        if opened.online.look(opened.registered).live != live:
            raise
    try:
        opened.registry.online_ids.set_live(view_id, live)
    except RegistryError as error:
        log.warning(
            "the registry does not know yet that row set %d is served, the next run tells it: %s", live, error
        )
    about.online_id, about.previous_id, about.kept_until_us = live, sets.live, now + keep_us


class _Refresh:
    """One refresh. Methods stand in the order they run."""

    def __init__(
        self, opened: _Opened, request: RefreshRequest, progress: Progress, about: SetsSummary
    ) -> None:
        self._opened = opened
        self._request = request
        self._progress = progress
        self._about = about
        self._online, self._rv, self._stop = opened.online, opened.registered, opened.stop
        self._now_us = wall_clock_us() if request.now_us is None else request.now_us

    def run(self) -> None:
        """Do it."""
        sets = self._begin()
        try:
            assert sets.other is not None
            self._build(self._rv.at(sets.other), sets.live)
            self._check_enough(sets)
            self._stop.check()
            _switch(self._opened, sets, sets.other, self._request.keep_us, self._about)
        except BaseException:
            self._give_up(sets)
            raise
        self._about.status = "ok"
        with suppress(FastserveError, Stopped):  # a later run, or `reclaim`, does it
            self._reclaim()

    def _begin(self) -> RowSets:
        """The sets with a new one; what an earlier refresh left half built is given up."""
        sets = self._reclaim()
        now = wall_clock_us()
        if sets.role == "kept" and now < sets.since_us + MIN_KEEP_US:
            raise RequestError(
                f"the view's rows were switched {(now - sets.since_us) // MICROS} s ago",
                where=f"FeatureView {self._about.view!r}",
                hint=f"servers may still read the other ones; wait {format_duration(MIN_KEEP_US)}",
            )
        if not sets.ids:
            raise RequestError("the view was retired", where=f"FeatureView {self._about.view!r}")
        made = self._opened.registry.online_ids.allocate(self._rv.view_id)
        return self._online.move(sets, RowSets(self._rv.view_id, sets.live, made, "building", now))

    def _reclaim(self) -> RowSets:
        opened = self._opened
        now, removed = wall_clock_us(), self._about.removed
        return reclaim_sets(self._online, opened.registry, self._rv, self._stop, now, removed)

    def _build(self, target: RegisteredView, live: int) -> None:
        """Fill the new set, and read back what was written."""
        began = time.monotonic()
        with Spill(canonical_schema(self._rv)) as spill:
            self._scan(spill)
            writer = ViewWriter(target, self._now_us, self._stop)
            days = spill.dates()
            for done, day in enumerate(days, 1):
                self._online.write(writer, [spill.chunks(day, last_first=True)])
                self._progress(self._about.view, "write", done, len(days))
            self._carry(target, live)
            for day in days:
                self._online.do(partial(self._check, target=target, chunks=spill.chunks(day), began=began))

    async def _check(
        self, store: OnlineStore, target: RegisteredView, chunks: Iterator[pa.RecordBatch], began: float
    ) -> None:
        await check_rows(store, target, chunks, self._now_us, began, self._stop)

    def _scan(self, spill: Spill) -> None:
        """The history into the spill."""
        for batch in self._history():
            self._stop.check()
            spill.add(known_by(batch, self._now_us))
            self._progress(self._about.view, "scan", spill.n_rows, None)
        spill.flush()
        self._about.rows_read = spill.n_rows
        digests = "".join(spill.digest(day) for day in spill.dates())
        self._about.digest = hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()

    def _history(self) -> Iterator[pa.RecordBatch]:
        """Rows that may be online now, from the table at its present version, or the source and what was pushed.

        Raises:
            IncompleteHistoryError: there is no history, or it lacks what the online store was filled with.
        """
        rv, config = self._rv, self._opened.config
        history = History(config, self._opened.registry, allow_incomplete=True, as_of_us=self._now_us)
        source = history.source_for(rv, np.array([self._now_us], np.int64))
        kept = kept_us(rv.view.ttl_us)
        start, end = None if kept is None else self._now_us - kept, self._now_us + 1
        table = history.table(rv)
        version = self._about.history_version = table.version if table.exists else None
        stored: Iterator[pa.RecordBatch] = iter(())
        if version is not None:
            stored = table.read(rv.view.feature_names, start, end, version=version)
        if source is None:
            self._check_covered(start)
            return stored
        scanned = scan_source(source, rv, config.repo, start_us=start, end_us=end, options=history.options)
        return chain(scanned, stored)

    def _check_covered(self, start_us: int | None) -> None:
        """The table has all event times that the online store was filled with, but for what retention removed."""
        registry, view_id = self._opened.registry, self._rv.view_id
        held = registry.intervals(view_id, "offline")
        removed = missing_before(registry.upkeep(view_id).removed_before_us, held)
        if removed is not None:  # longer ago than the ttl
            start_us = removed if start_us is None else max(start_us, removed)
        for interval in registry.intervals(view_id, "online"):
            low = interval.start_us if start_us is None else max(start_us, interval.start_us or start_us)
            if low is not None and low >= interval.end_us:
                continue
            for gap in uncovered(held, low, interval.end_us):
                begin = "" if gap[0] is None else f" --start {format_timestamp(gap[0])}"
                raise IncompleteHistoryError(
                    "the online store was filled with rows that the offline table lacks",
                    where=f"FeatureView {self._about.view!r}",
                    hint=f"run `materializer run --view {self._about.view} --target offline{begin}"
                    f" --end {format_timestamp(gap[1] - 1)}` first",
                )

    def _carry(self, target: RegisteredView, live: int) -> None:
        wanted = self._request.carry
        if isinstance(self._rv.view.source, PushSource) if wanted is None else wanted:
            self._about.rows_carried = self._online.do(
                lambda store: carry(store, self._rv.at(live), target, self._now_us, self._stop)
            )

    def _check_enough(self, sets: RowSets) -> None:
        """There are not suddenly few rows: a source that was cut short must not empty a view."""
        live, made = sets.live, sets.other
        assert made is not None
        self._about.rows_before = self._online.do(lambda store: count(store, live))
        self._about.rows = self._online.do(lambda store: count(store, made))
        if self._about.rows < FEW * self._about.rows_before and not self._request.allow_fewer:
            raise MaterializeError(
                f"the new set has {self._about.rows:,} rows, the served one {self._about.rows_before:,}",
                where=f"FeatureView {self._about.view!r}",
                hint="nothing was switched; if that is right, say --allow-fewer",
            )

    def _give_up(self, sets: RowSets) -> None:
        """The new set is none any more; its rows go now, or by the next run."""
        with suppress(FastserveError, Stopped):
            self._online.move(sets, RowSets(sets.view_id, sets.live))
            self._reclaim()
