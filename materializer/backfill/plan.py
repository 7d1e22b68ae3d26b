"""What a backfill would do, before it does: dates, rows, bytes, the online store's memory, time. Writes nothing that
stays.

    dates, rows, bytes   footers of the source's files and the ledger; no rows are read
    keys                 the keys of all dates that the online store would keep, or of some evenly apart and Chao's
    estimate memory               encoded rows of a sample, in the sizes that Redis's allocator hands out
    time                 what earlier backfills of the view took a row, or doing its smallest date into a scratch
    directory
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from fastserve.config import Config
from fastserve.errors import RequestError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.online_rows import OnlineRows, kept_us
from fastserve.offline.retention import written_from
from fastserve.offline.source import scan_source
from fastserve.offline.staged import prepare
from fastserve.online import open_store
from fastserve.online.claim import check_owner, keeps_view
from fastserve.registry import open_registry
from fastserve.timeutil import DAY_US, format_timestamp
from fastserve.timeutil import now_us as wall_clock_us
from materializer.backfill.run import Ledger, Window, source_state
from materializer.backfill.sizes import lmdb_bytes, redis_bytes
from materializer.backfill.survey import Survey, date_of, start_of, survey
from materializer.backfill.values import BackfillRequest, check_request
from materializer.backfill.work import Task, Worker, options_of
from materializer.dates import Spec
from materializer.digest import salt_of
from materializer.select import Chosen, Target, choose, refuse_aggregated
from materializer.stop import Stop

SAMPLE_ROWS: Final = 5_000_000
SIZED_ROWS: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """What a backfill would do.

    Attributes:
        start_us, end_us: event times of its dates, both inclusive.
        dates, rows, source_bytes: of the source in the window; uncompressed bytes. `exact` where rows were counted.
        todo, todo_rows: dates to do and their rows, for each store.
        lost: stores that do not hold what was written any more: all their dates are to do.
        keys: distinct keys that the online store would keep; None for an offline target. `keys_exact`: counted.
        online_store, online_bytes: of the view's rows there: memory of a Redis, bytes of an LMDB's file.
        seconds: it would take with `workers`; `seconds_from` is `ledger`, `sample` or '' for nothing to do.
    """

    view: str
    start_us: int
    end_us: int
    workers: int
    dates: int
    rows: int
    source_bytes: int
    exact: bool
    todo: dict[str, int]
    todo_rows: dict[str, int]
    lost: tuple[str, ...]
    keys: int | None
    keys_exact: bool
    online_store: str
    online_bytes: int | None
    seconds: float
    seconds_from: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown = asdict(self)
        del shown["start_us"], shown["end_us"]
        window = {"start": format_timestamp(self.start_us), "end": format_timestamp(self.end_us)}
        return {"view": shown.pop("view"), "window": window, **shown}

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        lines = [
            f"backfill of {self.view}, {format_timestamp(self.start_us)} to {format_timestamp(self.end_us)}",
            f"  source    {self.dates:,} dates, {about}{self.rows:,} rows, {_size(self.source_bytes)}",
        ]
        for target, count in self.todo.items():
            why = " (the store has lost its rows)" if target in self.lost else ""
            lines.append(f"  {target:<9} {count:,} dates to do, about {self.todo_rows[target]:,} rows{why}")
        if self.keys is not None and self.online_bytes is not None:
            told = "" if self.keys_exact else "about "
            lines.append(
                f"  {self.online_store:<9} {told}{self.keys:,} keys, about {_size(self.online_bytes)} in the end"
            )
        lines.append(f"  time      {self._time()}")
        return "\n".join(lines)

    def _time(self) -> str:
        if not self.seconds_from:
            return "nothing to do"
        basis = "earlier backfills" if self.seconds_from == "ledger" else "its smallest date"
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        return f"about {self.seconds:,.0f} s with {workers}, going by {basis}"


def make_plan(config: Config, request: BackfillRequest) -> BackfillPlan:
    """Look, and do nothing.

    Raises:
        RequestError: an unknown view or target, no worker, a start after the end, or no date in the window.
        ConfigError, StoreError: the online store is another registry's, or does not answer.
        InvalidDataError: the source cannot be read.
    """
    check_request(request)
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        [chosen] = choose(snapshot, [request.view], request.target)
        refuse_aggregated(chosen.registered, "a backfill")
        rv = chosen.registered
        now_us = wall_clock_us() if request.now_us is None else request.now_us
        window = Window(request, now_us, written_from(rv.view, registry.upkeep(rv.view_id), now_us))
        keeps = False
        if "online" in chosen.targets:
            keeps = asyncio.run(_keeps(config.online_store, snapshot.registry_id, rv.view_id))
        ledger = Ledger(config, registry, lambda _: keeps, chosen)
    return _Planner(config, request, chosen, ledger, window, now_us).plan()


async def _keeps(url: str, registry_id: str, view_id: int) -> bool:
    store = open_store(url)
    try:
        await check_owner(store, registry_id)
        return await keeps_view(store, view_id)
    finally:
        await store.close()


class _Planner:
    """Makes the plan of one backfill."""

    def __init__(
        self,
        config: Config,
        request: BackfillRequest,
        chosen: Chosen,
        ledger: Ledger,
        window: Window,
        now_us: int,
    ) -> None:
        self._config = config
        self._request = request
        self._chosen = chosen
        self._view = chosen.registered
        self._ledger = ledger
        self._window = window
        self._now_us = now_us
        self._options = options_of(config, now_us)

    def plan(self) -> BackfillPlan:
        window, view = self._window, self._view
        found = survey(
            self._chosen.source, view, self._config.repo, window.start_us, window.end_us, self._options
        )
        if not found.dates:
            raise RequestError(
                "its source has no row in the window", where=f"view {self._chosen.name}", hint="widen it"
            )
        todo = {target: self._todo(found, target) for target in self._chosen.targets}
        keys, exact, n_bytes = self._online(found) if "online" in todo else (None, True, None)
        seconds, basis = self._time(found, todo)
        first = start_of(min(found.dates))
        return BackfillPlan(
            view=self._chosen.name,
            start_us=first if window.start_us is None else window.start_us,
            end_us=window.end_us - 1,
            workers=self._request.workers or 1,
            dates=len(found.dates),
            rows=round(sum(about.rows for about in found.dates.values())),
            source_bytes=round(sum(about.n_bytes for about in found.dates.values())),
            exact=found.exact,
            todo={target: len(days) for target, days in todo.items()},
            todo_rows={target: _rows(found, days) for target, days in todo.items()},
            lost=tuple(sorted(t for t in self._ledger.lost if self._ledger.has(t))),
            keys=keys,
            keys_exact=exact,
            online_store=_kind(self._config.online_store),
            online_bytes=n_bytes,
            seconds=round(seconds, 1),
            seconds_from=basis,
        )

    def _todo(self, found: Survey, target: Target) -> list[date]:
        if self._request.again:
            return sorted(found.dates)
        return [
            day
            for day in sorted(found.dates)
            if not self._ledger.is_complete(
                day, target, source_state(found.dates[day].state, self._chosen), self._window.until(day)
            )
        ]

    # ---- keys and memory -------------------------------------------------------------------------

    def _online(self, found: Survey) -> tuple[int, bool, int]:
        """Keys that the online store would keep, whether they were counted, and the bytes they take."""
        kept = kept_us(self._view.view.ttl_us)
        oldest = None if kept is None else date_of(self._now_us - kept)
        live = [day for day in sorted(found.dates) if oldest is None or day >= oldest]
        if not live:
            return 0, True, 0
        rows = sum(found.dates[day].rows for day in live)
        sampled = live
        if rows > SAMPLE_ROWS and not found.scattered:
            count = max(2, int(SAMPLE_ROWS * len(live) / rows))
            sampled = [live[i * (len(live) - 1) // (count - 1)] for i in range(count)]
            sampled = sorted(set(sampled))
        keys = extrapolated(self._dates_of_keys(sampled), len(sampled), len(live))
        lengths = self._lengths(live)
        expires = kept is not None
        size = redis_bytes if _kind(self._config.online_store) == "redis" else lmdb_bytes
        return round(keys), sampled == live, round(size(lengths, keys, expires=expires))

    def _dates_of_keys(self, days: Sequence[date]) -> dict[int, int]:
        """In so many of the dates -> so many keys are found."""
        names = list(self._view.join_keys)
        parts: list[pa.Table] = []
        for first, last in _spans(days):
            seen: list[pa.Table] = []
            for batch in self._scan(first, last, []):
                dates = batch.column("event_timestamp").cast(pa.int64()).to_numpy() // DAY_US
                table = pa.Table.from_batches([batch.select(names)]).append_column("date", pa.array(dates))
                seen.append(table.group_by([*names, "date"]).aggregate([]))
            if seen:
                parts.append(pa.concat_tables(seen).group_by([*names, "date"]).aggregate([]))
        if not parts:
            return {}
        counted = pa.concat_tables(parts).group_by(names).aggregate([("date", "count")])
        groups = counted.group_by("date_count").aggregate([([], "count_all")])
        return dict(zip(groups["date_count"].to_pylist(), groups["count_all"].to_pylist(), strict=True))

    def _lengths(self, live: Sequence[date]) -> list[tuple[int, int]]:
        """(bytes of the key, bytes of the row) of some rows of the newest date."""
        rows = OnlineRows(self._view)
        for day in reversed(live):
            for batch in self._scan(day, day, None):
                part = batch.slice(0, SIZED_ROWS)
                keys = rows.keys(part)
                rows.encode(keys, part)
                pairs = zip(keys.keys(), keys.rows(), strict=True)
                return [(len(key), len(row or b"")) for key, row in pairs]
        return [(16, 64)]

    def _scan(self, first: date, last: date, columns: list[str] | None) -> Any:
        window = self._window
        start = max(start_of(first), -(2**62) if window.start_us is None else window.start_us)
        end = min(start_of(last) + DAY_US, window.end_us)
        source, repo = self._chosen.source, self._config.repo
        return scan_source(
            source, self._view, repo, columns=columns, start_us=start, end_us=end, options=self._options
        )

    # ---- time ------------------------------------------------------------------------------------

    def _time(self, found: Survey, todo: dict[Target, list[date]]) -> tuple[float, str]:
        """Seconds, and what they go by."""
        rows = {target: _rows(found, days) for target, days in todo.items() if days}
        if not rows:
            return 0.0, ""
        paces = {target: self._pace(target) for target in rows}
        basis = "ledger"
        if any(pace is None for pace in paces.values()):
            paces, basis = dict(self._measured(found, list(rows))), "sample"
        seconds = sum(rows[target] * (paces[target] or 0.0) for target in rows)
        workers = self._request.workers or 1
        return seconds / (
            workers if self._request.engine == "spark" else min(workers, os.cpu_count() or 1)
        ), basis

    def _pace(self, target: Target) -> float | None:
        """Seconds a row that earlier backfills took; None where there were none."""
        states = [s for s in self._ledger.states.values() if s.target == target and s.rows and s.seconds]
        rows = sum(state.rows for state in states)
        return sum(state.seconds for state in states) / rows if rows else None

    def _measured(self, found: Survey, targets: Sequence[Target]) -> dict[Target, float]:
        """Seconds a row, by doing the smallest date into stores of its own."""
        day = min(found.dates, key=lambda one: found.dates[one].rows)
        with tempfile.TemporaryDirectory(prefix="fastserve-plan-") as folder:
            scratch = replace(
                self._config,
                offline_store=str(Path(folder) / "offline"),
                online_store=f"lmdb://{folder}/online?sync=off",
            )
            if "offline" in targets:
                prepare(OfflineTable(scratch.offline_store, scratch.project, self._view))
            salt = salt_of(self._view)
            spec = Spec(scratch, self._chosen.name, self._chosen.option, self._now_us, salt, "plan")
            end = min(start_of(day) + DAY_US, self._window.end_us)
            task = Task((day,), {(day, target): "" for target in targets}, start_of(day), end)
            with Worker(spec, Stop()) as worker:
                worker.do(task)  # once to load what has to be loaded
                started = time.monotonic()
                worker.do(task)
                seconds = time.monotonic() - started
        return dict.fromkeys(targets, seconds / len(targets) / max(found.dates[day].rows, 1))


def extrapolated(dates_of_keys: dict[int, int], sampled: int, of: int) -> float:
    """How many keys all dates have, from how many dates of a sample each key was found in.

    Chao's estimate of what was never seen, and of how much of that further dates bring (Chao et al. 2009, incidence
    data).

    Args:
        dates_of_keys: number of dates -> keys that were found in so many.
        sampled, of: dates looked at, and dates there are.
    """
    seen = float(sum(dates_of_keys.values()))
    once, twice = dates_of_keys.get(1, 0), dates_of_keys.get(2, 0)
    if sampled >= of or not once:
        return seen
    share = (sampled - 1) / sampled
    unseen = share * once * once / (2 * twice) if twice else share * once * (once - 1) / 2
    if not unseen:
        return seen
    return seen + unseen * (1 - (1 - once / (sampled * unseen + once)) ** (of - sampled))


def _spans(days: Sequence[date]) -> list[tuple[date, date]]:
    """Ascending dates as runs of neighbours, 32 at most."""
    spans: list[tuple[date, date]] = []
    for day in days:
        if spans and day - spans[-1][1] == timedelta(days=1) and (day - spans[-1][0]).days < 32:
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return spans


def _rows(found: Survey, days: Sequence[date]) -> int:
    return round(sum(found.dates[day].rows for day in days))


def _kind(url: str) -> str:
    scheme = url.partition(":")[0].partition("+")[0]
    return "redis" if scheme in ("redis", "rediss", "unix") else scheme


def _size(n_bytes: int) -> str:
    value, unit = float(n_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1_024:
            break
        value, unit = value / 1_024, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
