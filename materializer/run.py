"""One run: for every view, scan its source once and fill its stores date by date. START HERE.

    window   which rows                                       window.py
    scan     source -> canonical batches -> spill by date     offline/source.py, spill.py
               and what the rows are like                     statistics.py
    write    per date, newest first:
               offline   rows the table lacks, one commit     offline/delta.py
               online    latest row per key, newest wins      offline/latest.py, write.py
             and a line in the registry's ledger
             both here, or by the tasks of an engine          moves/
    finish   interval and cursor, in one transaction

Nothing is written before the whole window was read, so a bad row changes nothing. Every step can be repeated: a
run that was killed leaves its ledger, and the next one skips the dates that it finished and that still read the
same. Intervals, cursors and statistics move only after everything is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastserve.config import Config
from fastserve.errors import FastserveError, StoreError
from fastserve.offline.retention import written_from
from fastserve.registry import Cursor, Interval, Partition, Registry, RunStatistics, open_registry
from fastserve.timeutil import now_us as wall_clock_us
from materializer.engine import Engine, check_engine, open_engine
from materializer.engine.reach import Use
from materializer.moves.base import Finished, Job, Mover
from materializer.moves.here import Here
from materializer.progress import Progress, silent
from materializer.reclaim import reclaim_due
from materializer.select import Chosen, Target, choose
from materializer.shards.opening import check_work, place_of
from materializer.statistics import Collector
from materializer.stop import Stop, Stopped, told_in
from materializer.summary import Summary, ViewSummary
from materializer.window import Window, check_bounds, explicit, incremental
from materializer.write import OnlineSink

__all__ = ["Request", "Summary", "ViewSummary", "materialize", "run"]

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to materialize.

    Attributes:
        views: `NAME` or `NAME@vN`; none for all.
        start_us: first event time, inclusive, microseconds UTC; None for all there is.
        end_us: last event time, inclusive; None, or one in the future, for the present.
        incremental: what is new since the last incremental run, instead of from `start_us` on.
        overlap_us: of an incremental run: read again what was created that long before the newest row read.
        target: `online`, `offline` or `both`; None for what each view declares.
        now_us: the present, for a replay; None for the wall clock.
        statistics: note what the rows are like, see materializer/statistics.py.
        engine, master: where rows are read and written, see materializer.engine.open_engine.
        work: with an engine of tasks, path or URL of storage that all workers see, for what they hand on; '' for beside
            the offline tables.
    """

    views: tuple[str, ...] = ()
    start_us: int | None = None
    end_us: int | None = None
    incremental: bool = False
    overlap_us: int = 0
    target: str | None = None
    now_us: int | None = None
    statistics: bool = True
    engine: str = "local"
    master: str | None = None
    work: str = ""


def materialize(  # noqa: PLR0913  (a call names each)
    config: Config,
    *,
    views: Sequence[str] = (),
    start_us: int | None = None,
    end_us: int | None = None,
    incremental: bool = False,
    target: str | None = None,
    now_us: int | None = None,
    engine: str = "local",
    master: str | None = None,
    work: str = "",
    progress: Progress = silent,
) -> Summary:
    """Fill the stores of a repo; `Request` has the arguments. Also from within a running event loop.

    A view that fails does not stop the others: look at the summary's `status` and its views' `error`.

    Raises:
        RequestError: an unknown view or target, or a start after the end; nothing was changed.
        ConfigError: a store's URL is wrong, or the online store belongs to another registry; likewise.
        RegistryError: the registry cannot be read.
    """
    request = Request(
        views=tuple(views),
        start_us=start_us,
        end_us=end_us,
        incremental=incremental,
        target=target,
        now_us=now_us,
        engine=engine,
        master=master,
        work=work,
    )
    return off_loop(partial(run, config, request, progress=progress))


def off_loop(work: Callable[[], T]) -> T:
    """Do what runs an event loop of its own, also from within a running one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as other_thread:  # a notebook: its thread's loop is taken
        return other_thread.submit(work).result()


def run(
    config: Config, request: Request, *, progress: Progress = silent, stop: Stop | None = None
) -> Summary:
    """`materialize` for a Request; `stop` ends it between two batches."""
    started = time.monotonic()
    check_bounds(request.start_us, request.end_us)
    check_engine(request.engine, request.master)
    check_work(request.engine, request.work)
    now_us = wall_clock_us() if request.now_us is None else request.now_us
    stop = stop or Stop()
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        views = choose(snapshot, request.views, request.target)
        with (
            _engine(config, request, views, stop) as engine,
            OnlineSink(config.online_store, snapshot.registry_id) as online,
        ):
            online_views = [view for view in views if "online" in view.targets]
            if online_views:
                with suppress(StoreError):  # down: each view says so, offline ones go on
                    online.claim()
            context = _Context(config, request, registry, online, progress, stop, now_us, engine)
            summary = Summary([_one_view(context, view) for view in views])
            if online_views and summary.status == "ok":
                _tidy(context, online_views)
    summary.seconds = time.monotonic() - started
    return summary


@dataclass(frozen=True, slots=True)
class _Context:
    """What the views of a run share."""

    config: Config
    request: Request
    registry: Registry
    online: OnlineSink
    progress: Progress
    stop: Stop
    now_us: int
    engine: Engine | None


def _engine(
    config: Config, request: Request, views: Sequence[Chosen], stop: Stop
) -> AbstractContextManager[Engine | None]:
    """What runs the tasks; None for no tasks."""
    if request.engine == "local":
        return nullcontext()
    uses: set[Use] = {"registry", *(target for view in views for target in view.targets)}
    if not request.work:
        uses.add("offline")
    return open_engine(config, stop, engine=request.engine, master=request.master, uses=uses)


def _one_view(context: _Context, chosen: Chosen) -> ViewSummary:
    """Run one view; whatever goes wrong ends up in its summary."""
    about = ViewSummary(chosen.name)
    if context.stop.signum:
        return about
    started = time.monotonic()
    view_id = chosen.registered.view_id
    with told_in(about, partial(context.registry.backfills.running, view_id)):
        with context.registry.lock_view(view_id):
            if chosen.is_aggregated:
                _run_tiles(context, chosen, about)
            else:
                _ViewRun(context, chosen, about).run()
        about.status = "ok"
    about.seconds = time.monotonic() - started
    return about


def _run_tiles(context: _Context, chosen: Chosen, about: ViewSummary) -> None:
    """One aggregated view: its rows are made of events."""
    from materializer.tile_run import TileRun  # noqa: PLC0415  (events need more than rows do)

    told = partial(_read, context, about)
    run = TileRun(
        context.config, context.registry, context.online, chosen, context.now_us, context.stop, told
    )
    run.run(about, context.request.end_us)


def _read(context: _Context, about: ViewSummary, rows: int) -> None:
    context.progress(about.view, "scan", rows, None)


def _tidy(context: _Context, views: Sequence[Chosen]) -> None:
    """Remove rows that are expired, or of row sets that were given up."""
    try:
        context.online.sweep()
        registered = [chosen.registered for chosen in views]
        reclaim_due(context.online, context.registry, registered, context.stop, wall_clock_us())
    except (StoreError, Stopped) as error:  # the rows are there; the next run does this
        log.warning("tidying the online store failed: %s", error)


class _ViewRun:
    """One view of a run. Its lock is held. Methods stand in the order they run."""

    def __init__(self, context: _Context, chosen: Chosen, about: ViewSummary) -> None:
        self._context = context
        self._registry = context.registry
        self._chosen = chosen
        self._registered = chosen.registered
        self._view_id = chosen.registered.view_id
        self._about = about
        self._cursors: dict[Target, Cursor | None] = {}
        self._trusted: set[Target] = set()
        self._rows: dict[Target, int] = dict.fromkeys(chosen.targets, 0)

    def run(self) -> None:
        """Do it."""
        self._look_at_stores()
        window = self._window()
        if window.is_empty:
            return
        run_id, finished = self._begin(window)
        try:
            counted = self._counted(window)
            collector = Collector(self._registered, counted) if self._context.request.statistics else None
            with self._mover(window) as mover:
                newest_created = mover.read(collector, self._told)
                self._write(run_id, mover, finished)
            statistics = None if collector is None else self._found(collector, counted, window)
            self._finish(run_id, window, newest_created, statistics)
        except BaseException as error:
            with suppress(FastserveError):  # the first failure is the one to tell
                self._registry.fail_run(run_id, str(error) or type(error).__name__)
            raise

    def _look_at_stores(self) -> None:
        """Read the cursors, and find out which stores still hold what earlier runs wrote.

        Nothing that the registry says of a store that was emptied or replaced is true any more: its cursor goes
        back to the beginning, and no date counts as finished (see _begin).
        """
        for target in self._chosen.targets:
            cursor = self._registry.get_cursor(self._view_id, target)
            if self._holds(target):
                self._trusted.add(target)
            elif cursor is not None and cursor.created_hw_us is not None:
                log.warning("view %s: its %s rows are gone, filling it anew", self._chosen.name, target)
                cursor = Cursor(self._view_id, target)
                self._registry.set_cursor(cursor)
            self._cursors[target] = cursor

    def _holds(self, target: Target) -> bool:
        if target == "online":
            return self._context.online.keeps(self._view_id)
        from fastserve.offline.delta import OfflineTable  # noqa: PLC0415  (a run of online rows needs no Delta)

        config = self._context.config
        return OfflineTable(config.offline_store, config.project, self._registered).exists

    def _window(self) -> Window:
        request, now_us = self._context.request, self._context.now_us
        if request.incremental:
            cursors = [self._cursors[target] for target in self._chosen.targets]
            window = incremental(cursors, request.end_us, now_us, request.overlap_us)
        else:
            window = explicit(request.start_us, request.end_us, now_us)
        window = self._kept(window)
        self._about.start_us, self._about.end_us = window.start_us, window.end_us
        self._about.end_clamped = window.end_clamped
        return window

    def _kept(self, window: Window) -> Window:
        """The window without what the view's retention does not keep; noted, so that training is told of it."""
        view, done = self._registered.view, self._registry.upkeep(self._view_id)
        kept = window.from_floor(written_from(view, done, self._context.now_us))
        if kept.start_us != window.start_us and "offline" in self._chosen.targets:
            assert kept.start_us is not None and view.retention_us is not None
            self._registry.remove_before(self._view_id, kept.start_us, view.retention_us)
        return kept

    def _begin(self, window: Window) -> tuple[int, dict[tuple[str, str], str]]:
        """A new run, or the one that was killed: its id, and the digest of each (date, target) it finished.

        The ledger of a killed run is void when a store lost its rows since. All that relied on the lost rows is
        gone, cursor and ledger, before the store looks filled again: so a kill in between heals too.
        """
        option = self._chosen.option
        unfinished = self._registry.unfinished_run(self._view_id)
        trusted = self._trusted.issuperset(self._chosen.targets)
        if unfinished is not None and unfinished.target == option and trusted:
            self._registry.resume_run(unfinished.run_id)
            found = self._registry.partitions(unfinished.run_id)
            return unfinished.run_id, {(p.date, p.target): p.digest for p in found}
        run_id = self._registry.start_run(self._view_id, option, window.start_us, window.end_us + 1)
        if "online" in self._chosen.targets and "online" not in self._trusted:
            self._context.online.mark(self._view_id)
        return run_id, {}

    def _counted(self, window: Window) -> tuple[int, int] | None:
        """The highest times that an earlier run has read, for a run of what is new; see Collector."""
        cursors = [cursor for cursor in self._cursors.values() if cursor is not None]
        if window.created_after_us is None:
            return None
        events = [c.event_hw_us for c in cursors if c.event_hw_us is not None]
        created = [c.created_hw_us for c in cursors if c.created_hw_us is not None]
        return max(events), max(created)

    def _mover(self, window: Window) -> Mover:
        """What reads and writes the rows: this process, or the tasks of the engine that was asked for."""
        context = self._context
        job = Job(context.config, self._chosen, window, context.now_us, context.stop)
        if context.engine is None:
            return Here(job, self._registry, context.online)
        from materializer.moves.spread import Spread  # noqa: PLC0415  (most runs have no tasks)

        return Spread(job, context.engine, place_of(context.config, context.request.work))

    def _told(self, rows: int) -> None:
        self._about.rows_read = rows
        self._context.progress(self._chosen.name, "scan", rows, None)

    def _write(self, run_id: int, mover: Mover, finished: Finished) -> None:
        """Write the dates, and note each of a store once it is there."""
        about, total = self._about, len(mover.dates()) * len(self._chosen.targets)
        for wrote in mover.write(finished):
            self._registry.mark_partitions(
                [
                    Partition(run_id, day.isoformat(), wrote.target, rows, digest)
                    for day, (rows, digest) in wrote.days.items()
                ]
            )
            self._rows[wrote.target] += wrote.rows
            if wrote.target == "offline":
                about.rows_offline_new += wrote.rows_new
            else:
                about.rows_online_written += wrote.rows_new
            about.partitions_skipped += wrote.skipped
            about.partitions_done += len(wrote.days)
            done = about.partitions_done + about.partitions_skipped
            self._context.progress(self._chosen.name, "write", done, total)

    def _found(
        self, collector: Collector, counted: tuple[int, int] | None, window: Window
    ) -> RunStatistics | None:
        """What the rows were like; None where that could not be told."""
        self._about.statistics_error = collector.error
        if collector.error:
            return None
        start_us = window.start_us if counted is None else counted[0] + 1
        return RunStatistics(collector.result(), start_us, window.end_us + 1, late=counted is not None)

    def _finish(
        self, run_id: int, window: Window, newest_created: int | None, statistics: RunStatistics | None
    ) -> None:
        """Intervals, cursors and statistics, all at once."""
        intervals, cursors = [], []
        for target in self._chosen.targets:
            if window.start_us is None or window.start_us <= window.end_us:
                interval = (self._view_id, target, window.start_us, window.end_us + 1)
                intervals.append(Interval(*interval, rows=self._rows[target], run_id=run_id))
            if self._context.request.incremental:
                cursors.append(self._moved(target, window.end_us, newest_created))
        self._registry.finish_run(run_id, intervals, cursors, statistics)

    def _moved(self, target: Target, end_us: int, newest_created: int | None) -> Cursor:
        """The cursor after this run; it never moves back."""
        before = self._cursors[target] or Cursor(self._view_id, target)
        event = [us for us in (before.event_hw_us, end_us) if us is not None]
        created = [us for us in (before.created_hw_us, newest_created) if us is not None]
        return Cursor(self._view_id, target, max(event), max(created, default=None))
