"""One backfill, top to bottom. It holds the view's lock, hands dates to workers, and alone writes the ledger.

A date is complete once it is committed and noted. Killed in between, it is done again, and finds its rows there:
rows of the offline table are told by their keys and times, online the newest wins. So nothing is lost and nothing is
doubled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from uuid import uuid4

from fastserve.config import Config
from fastserve.errors import FastserveError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.retention import written_from
from fastserve.offline.staged import Staged, prepare, rows_by_date
from fastserve.registry import Backfill, Cursor, DateState, Interval, Registry, open_registry, uncovered
from fastserve.timeutil import DAY_US
from fastserve.timeutil import now_us as wall_clock_us
from materializer.backfill.survey import Survey, date_of, start_of, survey
from materializer.backfill.values import BackfillRequest, BackfillSummary, check_request
from materializer.backfill.work import Task, Worker, do, options_of, tasks_of
from materializer.dates import Spec, Written, commit_written
from materializer.digest import salt_of
from materializer.engine import Engine, open_engine, run_tasks
from materializer.progress import Progress, silent
from materializer.select import Chosen, Target, choose, refuse_aggregated
from materializer.stop import Stop, told_in
from materializer.write import OnlineSink

log = logging.getLogger(__name__)

TASK_ROWS = 500_000
Key = tuple[date, Target]


def backfill(
    config: Config, request: BackfillRequest, *, progress: Progress = silent, stop: Stop | None = None
) -> BackfillSummary:
    """Fill a view's stores date by date; look at the summary's `status` and `error`.

    Raises:
        RequestError: an unknown view or target, no worker, or a window without an end; nothing was changed.
        ConfigError: a store's URL is wrong, or the online store belongs to another registry.
        RegistryError: the registry cannot be read.
    """
    started = time.monotonic()
    check_request(request)
    stop = stop or Stop()
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        [chosen] = choose(snapshot, [request.view], request.target)
        refuse_aggregated(chosen.registered, "a backfill")
        view_id = chosen.registered.view_id
        about = BackfillSummary(chosen.name, workers=request.workers or 1)
        with (
            told_in(about, partial(registry.backfills.running, view_id)),
            registry.lock_view(view_id),
            OnlineSink(config.online_store, snapshot.registry_id) as online,
        ):
            _Run(config, registry, online, chosen, request, about, progress, stop).run()
    about.seconds = time.monotonic() - started
    return about


class Window:
    """The event times and dates of a backfill: whole dates up to the present."""

    def __init__(self, request: BackfillRequest, now_us: int, floor_us: int | None) -> None:
        asked = None if request.start_us is None else start_of(date_of(request.start_us))
        self.is_cut = floor_us is not None and (asked is None or asked < floor_us)  # by the view's retention
        self.start_us = floor_us if self.is_cut else asked
        last = now_us if request.end_us is None else request.end_us
        self.end_us = min(start_of(date_of(last)) + DAY_US, now_us + 1)

    def until(self, day: date) -> int:
        """Where a date ends for this backfill, exclusive."""
        return min(start_of(day) + DAY_US, self.end_us)


class Ledger:
    """What the registry says of a view's dates, as far as the stores still bear it out."""

    def __init__(
        self, config: Config, registry: Registry, keeps: Callable[[int], bool], chosen: Chosen
    ) -> None:
        self._registered = chosen.registered
        self._table = OfflineTable(config.offline_store, config.project, chosen.registered)
        self.states = registry.backfills.dates(chosen.registered.view_id)
        self.lost: set[Target] = set()
        self._rows: dict[str, int] = {}
        for target in chosen.targets:
            there = keeps(chosen.registered.view_id) if target == "online" else self._table.exists
            if not there:
                self.lost.add(target)
        if "offline" in chosen.targets and "offline" not in self.lost:
            self._rows = rows_by_date(self._table)

    def has(self, target: Target) -> bool:
        """Whether anything was ever written to a store."""
        return any(s.target == target and s.rows for s in self.states.values())

    def state(self, day: date, target: Target) -> DateState | None:
        """What is noted of a date; None where that is nothing, or where the store lost its rows."""
        state = self.states.get((day.isoformat(), target))
        if state is None or target in self.lost:
            return None
        if target == "offline" and self._rows.get(state.date, 0) < state.rows_new:
            return None
        return state

    def is_complete(self, day: date, target: Target, source: str, until_us: int) -> bool:
        """Whether a date need not even be read."""
        state = self.state(day, target)
        if state is None or state.status != "complete" or not source:
            return False
        return state.source == source and state.until_us >= until_us


def source_state(found: str, chosen: Chosen) -> str:
    """What a date is noted to be read from: its files, and what is made of them; '' where that says nothing."""
    return found and f"{found} {salt_of(chosen.registered)}"


class _Run:
    """One backfill. Its view's lock is held. Methods stand in the order they run."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        online: OnlineSink,
        chosen: Chosen,
        request: BackfillRequest,
        about: BackfillSummary,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._config = config
        self._registry = registry
        self._online = online
        self._chosen = chosen
        self._request = request
        self._about = about
        self._progress = progress
        self._stop = stop
        self._view_id = chosen.registered.view_id
        self._now_us = wall_clock_us() if request.now_us is None else request.now_us
        floor_us = written_from(chosen.registered.view, registry.upkeep(self._view_id), self._now_us)
        self._window = Window(request, self._now_us, floor_us)
        self._table = OfflineTable(config.offline_store, config.project, chosen.registered)
        self._salt = salt_of(chosen.registered)
        self._spec = Spec(config, chosen.name, chosen.option, self._now_us, self._salt, uuid4().hex)
        self._held: dict[tuple[str, str], DateState] = {}  # what is noted, and still true

    def run(self) -> None:
        """Do it."""
        window, chosen = self._window, self._chosen
        if window.start_us is not None and window.start_us >= window.end_us:
            return
        found = survey(
            chosen.source,
            chosen.registered,
            self._config.repo,
            window.start_us,
            window.end_us,
            options_of(self._config, self._now_us),
        )
        self._sources = {d: source_state(s.state, chosen) for d, s in found.dates.items()}
        self._about.dates = len(found.dates)
        first = start_of(min(found.dates)) if found.dates else window.end_us - 1
        self._about.start_us = first if window.start_us is None else window.start_us
        self._about.end_us = window.end_us - 1
        ledger = Ledger(self._config, self._registry, self._online.keeps, chosen)
        known = self._todo(found, ledger)
        self._about.dates_skipped = len(found.dates) * len(chosen.targets) - len(known)
        if known or not self._is_covered():
            self._fill(found, ledger, known)

    def _todo(self, found: Survey, ledger: Ledger) -> dict[Key, str]:
        """(date, store) to do -> digest of what it holds already."""
        known: dict[Key, str] = {}
        for day in found.dates:
            for target in self._chosen.targets:
                state = ledger.state(day, target)
                if state is not None:
                    self._held[state.date, target] = state
                until = self._window.until(day)
                if self._request.again or not ledger.is_complete(day, target, self._sources[day], until):
                    known[day, target] = "" if state is None or self._request.again else state.digest
        return known

    def _is_covered(self) -> bool:
        """Whether all that the window covers is recorded already."""
        return not any(
            uncovered(
                self._registry.intervals(self._view_id, target), self._window.start_us, self._window.end_us
            )
            for target in self._chosen.targets
        )

    def _fill(self, found: Survey, ledger: Ledger, known: dict[Key, str]) -> None:
        with self._engine(known) as engine:
            self._about.workers = self._request.workers or engine.slots
            self._fill_with(engine, found, ledger, known)

    def _engine(self, known: dict[Key, str]) -> Engine:
        """What will do the work; nothing was written yet. Without two dates to do, this process will."""
        request, n_dates = self._request, len({day for day, _ in known})
        if not n_dates or (n_dates == 1 and request.engine == "local"):
            return open_engine(self._config, self._stop)
        return open_engine(
            self._config,
            self._stop,
            engine=request.engine,
            master=request.master,
            workers=request.workers,
            uses={"registry", *(target for _, target in known)},
        )

    def _fill_with(self, engine: Engine, found: Survey, ledger: Ledger, known: dict[Key, str]) -> None:
        view = self._chosen.registered.view
        if self._window.is_cut and "offline" in self._chosen.targets:
            assert self._window.start_us is not None and view.retention_us is not None
            self._registry.remove_before(self._view_id, self._window.start_us, view.retention_us)
        self._forget_lost(ledger)
        asked = Backfill(
            0, self._view_id, self._chosen.option, self._about.start_us or 0, self._window.end_us,
            self._about.workers, "running", 0, None, "", 0, "",
        )  # fmt: skip
        todo = [self._state(day, target, status="pending") for day, target in known]
        gone = [
            replace(state, status="complete", source="", digest="", rows=0)
            for state in ledger.states.values()
            if state.status != "complete" and self._is_gone(state, found)
        ]
        lost = sorted(ledger.lost)
        self._backfill = self._registry.backfills.begin(asked, [*todo, *gone], lost)
        try:
            if "online" in lost:
                self._online.mark(self._view_id)
            if any(target == "offline" for _, target in known):
                prepare(self._table)
            self._work(engine, found, known)
            self._registry.backfills.finish(self._backfill, self._intervals(found))
        except BaseException as error:
            with suppress(FastserveError):  # the first failure is the one to tell
                self._registry.backfills.finish(self._backfill, error=str(error) or type(error).__name__)
            raise

    def _is_gone(self, state: DateState, found: Survey) -> bool:
        """Whether a date that was never finished has no rows in the source any more, or is not kept any more."""
        day, first = date.fromisoformat(state.date), self._window.start_us
        before = first is not None and start_of(day) < first
        inside = not before and start_of(day) < self._window.end_us and day not in found.dates
        return state.target in self._chosen.targets and (inside or (before and self._window.is_cut))

    def _forget_lost(self, ledger: Ledger) -> None:
        """The cursor of a store that was emptied goes back to the beginning before the store looks filled again."""
        for target in ledger.lost:
            cursor = self._registry.get_cursor(self._view_id, target)
            if cursor is not None and cursor.created_hw_us is not None:
                log.warning("view %s: its %s rows are gone, filling it anew", self._chosen.name, target)
                self._registry.set_cursor(Cursor(self._view_id, target))

    def _state(self, day: date, target: Target, **values: object) -> DateState:
        """What is to be noted of a date; what it holds stays noted until it is written."""
        key = (day.isoformat(), target)
        base = self._held.get(key) or DateState(view_id=self._view_id, target=target, date=key[0])
        return replace(base, until_us=self._window.until(day), **values)  # type: ignore[arg-type]

    def _work(self, engine: Engine, found: Survey, known: dict[Key, str]) -> None:
        rows = {day: about.rows for day, about in found.dates.items()}
        share = sum(rows[day] for day in {day for day, _ in known}) / (self._about.workers * 4)
        size = share * 2 if found.scattered else min(TASK_ROWS, max(share, 1))
        ends = (self._about.start_us or 0, self._window.end_us)
        tasks = tasks_of(known, rows, ends, size)
        total = len(known)
        work, where = partial(do, self._spec), f"view {self._spec.view}"
        for task, written in run_tasks(engine, work, tasks, self._stop, taken=self._taken, where=where):
            self._note(task, written)
            done = self._about.dates_done + self._about.dates_unchanged
            self._progress(self._chosen.name, "scan", self._about.rows_read, None)
            self._progress(self._chosen.name, "write", done, total)

    def _taken(self, task: Task) -> None:
        number = self._backfill.backfill_id
        running = [self._state(*pair, status="running", backfill_id=number) for pair in task.known]
        self._registry.backfills.note(self._backfill, running)

    def _note(self, task: Task, written: list[Written]) -> None:
        """Commit what was staged, then note the dates."""

        def restage(stale: Sequence[Staged]) -> list[Staged]:
            with Worker(self._spec, self._stop) as worker:
                return [worker.restage(one.day, task) for one in stale]

        states = [self._count(one) for one in commit_written(self._table, written, restage)]
        self._registry.backfills.note(self._backfill, states)

    def _count(self, one: Written) -> DateState:
        about = self._about
        about.dates_done += not one.unchanged
        about.dates_unchanged += one.unchanged
        about.rows_read += one.rows
        about.bytes += one.n_bytes
        if one.target == "offline":
            about.rows_offline_new += one.rows_new
        else:
            about.rows_online_written += one.rows_new
        before = self._held.get((one.day.isoformat(), one.target))
        return self._state(
            one.day,
            one.target,
            status="complete",
            source=self._sources[one.day] if one.settled else "",
            digest=one.digest,
            rows=one.rows,
            rows_new=one.rows_new + (before.rows_new if before else 0),
            bytes=one.n_bytes + (before.bytes if before else 0),
            seconds=one.seconds if not one.unchanged or before is None else before.seconds,
            backfill_id=self._backfill.backfill_id,
            finished_us=wall_clock_us(),
        )

    def _intervals(self, found: Survey) -> list[Interval]:
        """What the backfill covers, for each store."""
        states = self._registry.backfills.dates(self._view_id)
        made = []
        for target in self._chosen.targets:
            rows = sum(s.rows for day in found.dates if (s := states.get((day.isoformat(), target))))
            made.append(
                Interval(self._view_id, target, self._window.start_us, self._window.end_us, rows=rows)
            )
        return made
