"""One optimization: the offline table of every view, and of every feed's events (tables.py), step by step. START HERE.

    retention   whole dates that are too old: noted in the registry, then removed     offline/retention.py
    order       large dates, along a curve over the join keys                         plan.py says which
    join        small files of a date
    vacuum      delete files that nothing needs any more

The view's files are held meanwhile (offline/rewrite.py): nobody else rewrites them, and rows are added all the same.
The view itself is held for retention alone. Each step is a commit or a few; killed in between, the next run does what
is left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from fastserve.config import Config
from fastserve.errors import AlreadyRunningError, RequestError
from fastserve.offline.inventory import Day, inventory, totals
from fastserve.offline.retention import kept_from
from fastserve.offline.rewrite import TARGET_BYTES, Rewrite, rewriting
from fastserve.registry import RegisteredView, open_registry
from fastserve.timeutil import DAY_US, format_duration
from fastserve.timeutil import now_us as wall_clock_us
from materializer.optimize.plan import Plan, grouped, make_plan
from materializer.optimize.report import Report, ViewReport
from materializer.optimize.tables import Kept, kept_tables
from materializer.stop import Stop, told_in

if TYPE_CHECKING:
    from fastserve.registry import Registry

__all__ = ["Report", "Request", "optimize"]

VACUUM_AFTER_US: Final = 7 * DAY_US
LEAST_VACUUM_US: Final = 3_600_000_000
"""A file that is no part of the table yet may be a commit on its way."""

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to optimize.

    Attributes:
        views: `NAME` or `NAME@vN`, of an aggregated view for its events; none for all that have an offline table.
        dry_run: only say what would be done.
        vacuum_after_us: files of versions that were replaced longer ago are deleted.
        order: order large dates by entity; files get about a quarter larger.
        keep_datasets: keep what versions need that recorded training data sets were made from.
        now_us: the present that retention counts from, for a replay; None for the wall clock.
    """

    views: tuple[str, ...] = ()
    dry_run: bool = False
    vacuum_after_us: int = VACUUM_AFTER_US
    order: bool = True
    keep_datasets: bool = True
    now_us: int | None = None


def optimize(config: Config, request: Request, *, stop: Stop | None = None) -> Report:
    """Do it; a view that fails or is busy does not stop the others.

    Raises:
        RequestError: an unknown view, or files to be deleted too soon; nothing was changed.
        RegistryError: the registry cannot be read.
    """
    started = time.monotonic()
    if request.vacuum_after_us < LEAST_VACUUM_US:
        raise RequestError(
            f"{format_duration(request.vacuum_after_us)} is too short: writers may be at work on such files",
            where="--vacuum-after",
            hint="1h or more",
        )
    stop = stop or Stop()
    report = Report(dry_run=request.dry_run)
    with open_registry(config.registry, config.project) as registry:
        for kept in kept_tables(config, registry.snapshot(), request.views):
            if request.views or kept.table.exists:
                report.views.append(_one_table(registry, kept, request, stop))
    report.seconds = time.monotonic() - started
    return report


def _one_table(registry: Registry, kept: Kept, request: Request, stop: Stop) -> ViewReport:
    """Optimize one table; whatever goes wrong ends up in its report."""
    about = ViewReport(kept.name)
    if stop.signum:
        return about
    started = time.monotonic()
    with told_in(about):
        run = _TableRun(registry, kept, request, stop, about)
        if request.dry_run:
            run.look()
        else:
            with rewriting(registry, kept.table) as files:
                run.run(files)
        about.status = "already_running" if about.error else "ok"
    about.seconds = time.monotonic() - started
    return about


class _TableRun:
    """One table of an optimization. Methods stand in the order they run."""

    def __init__(
        self, registry: Registry, kept: Kept, request: Request, stop: Stop, about: ViewReport
    ) -> None:
        self._registry = registry
        self._kept = kept
        self._table = table = kept.table
        self._request = request
        self._stop = stop
        self._about = about
        self._view_id = table.rv.view_id
        self._now_us = wall_clock_us() if request.now_us is None else request.now_us
        about.kept_from_us = kept_from(table.rv.view, self._now_us)

    def run(self, files: Rewrite) -> None:
        """Do it. The table's files are held."""
        about = self._about
        about.files_before, about.bytes_before, _ = totals(inventory(self._table.open()))
        self._remove(files)
        self._arrange(files)
        about.files_after, about.bytes_after, _ = totals(inventory(self._table.open()))
        about.pinned = self._pinned()
        files.keep_log(about.pinned)
        about.files_deleted, about.bytes_deleted = files.vacuum(about.pinned, self._request.vacuum_after_us)
        if about.error is None:
            self._registry.note_upkeep(self._view_id, optimized_us=wall_clock_us())

    def look(self) -> None:
        """Say what would be done."""
        about, days = self._about, inventory(self._table.open())
        about.files_before, about.bytes_before, _ = totals(days)
        about.files_after, about.bytes_after = about.files_before, about.bytes_before
        first = self._first_day()
        old = [each for each in days if first is not None and each.day < first]
        about.dates_removed, about.rows_removed = len(old), totals(old)[2]
        plan = self._plan(days[len(old) :])
        about.dates_joined, about.dates_ordered = len(plan.join), len(plan.order)
        about.pinned = self._pinned()
        about.files_deleted, about.bytes_deleted = Rewrite(self._table).vacuum(
            about.pinned, self._request.vacuum_after_us, dry_run=True
        )

    def _remove(self, files: Rewrite) -> None:
        """Remove the dates that retention does not keep.

        The registry is told first: what it takes for removed and is still there is removed by the next run, while
        rows that it took for present would be missing in training sets without a word.
        """
        first, kept_us = self._first_day(), self._about.kept_from_us
        if first is None or kept_us is None:
            return
        old = [each for each in inventory(self._table.open()) if each.day < first]
        retention_us = self._table.rv.view.retention_us
        if not old or retention_us is None:
            return
        try:
            with self._registry.lock_view(self._view_id):
                self._registry.remove_before(self._view_id, kept_us, retention_us)
                _, self._about.rows_removed = files.drop_before(first)
                self._about.dates_removed = len(old)
        except AlreadyRunningError as error:  # being materialized; its files are put in order all the same
            self._about.error = error

    def _arrange(self, files: Rewrite) -> None:
        """Order and join what pays."""
        ordered = self._ordered()
        keys = sorted(self._table.rv.join_keys)
        plan = self._plan(inventory(self._table.open()))
        for day in plan.order:
            self._stop.check()
            if files.order(day.day, keys):
                self._about.dates_ordered += 1
                ordered[day.day.isoformat()] = day.rows
                self._registry.note_upkeep(self._view_id, ordered=ordered)
        for group in grouped(plan.join):
            self._stop.check()
            if files.compact(group, 2, TARGET_BYTES):
                self._about.dates_joined += len(group)

    def _plan(self, days: Sequence[Day]) -> Plan:
        keyed = self._request.order and self._kept.keyed
        return make_plan(days, self._ordered(), self._today(), keyed=keyed)

    def _ordered(self) -> dict[str, int]:
        return dict(self._registry.upkeep(self._view_id).ordered)

    def _today(self) -> date:
        return _EPOCH + timedelta(days=self._now_us // DAY_US)

    def _first_day(self) -> date | None:
        kept_us = self._about.kept_from_us
        return None if kept_us is None else _EPOCH + timedelta(days=kept_us // DAY_US)

    def _pinned(self) -> Sequence[int]:
        """The versions of this very table that recorded training data sets were made from, ascending."""
        if not self._request.keep_datasets:
            return []
        table_id, found = self._table.table_id, set[int]()
        for rv in self._kept.readers:
            found.update(pinned_versions(self._registry, rv, table_id))
        return sorted(found)


def pinned_versions(registry: Registry, rv: RegisteredView, table_id: str) -> list[int]:
    """The versions of the table of a view's history that the project's training data sets were made from, ascending."""
    found = set()
    for dataset in registry.training_datasets(view=rv.view.name):
        for used in dataset.views:
            if used.view_id != rv.view_id:
                continue
            origin = used.origin
            if origin.get("kind") == "offline_table" and origin.get("table_id") == table_id:
                found.add(origin["version"])
            if origin.get("pushed_version") is not None and origin.get("pushed_table_id") == table_id:
                found.add(origin["pushed_version"])
    return sorted(found)
