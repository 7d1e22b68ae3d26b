"""One reconciliation: for every view, its history beside its online rows. START HERE.

    choose   the views                                   all that are online and have a history, or those named
    sets     which rows are served                       fastserve/online/live.py
    truth    the newest row of each key, pinned          truth.py
    looks    two at the store, and the repair            looks.py, judge.py
    note     the outcome in the registry                 `fastserve describe`, the control plane's metrics

Nothing is written but what is put right, and that only where nobody else wrote since. Reading takes no lock; the view's
lock is held for the second look alone, which only differences cost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fastserve.config import Config
from fastserve.definitions import AggregatedFeatureView, batch_source
from fastserve.errors import AlreadyRunningError, RegistryError, UnknownObjectError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.online_rows import kept_us
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import check_owner, claim
from fastserve.online.live import RowSets, look
from fastserve.registry import RegisteredView, Registry, Snapshot, open_registry
from fastserve.timeutil import format_timestamp
from fastserve.timeutil import now_us as wall_clock_us
from materializer.progress import Progress, silent
from materializer.reconcile.judge import Judge
from materializer.reconcile.looks import Looks, kinds_to_mend
from materializer.reconcile.report import Report, ViewReport
from materializer.reconcile.request import Request, check
from materializer.reconcile.shards import Shards
from materializer.reconcile.tally import Tally
from materializer.reconcile.truth import Truth, moved_on
from materializer.run import off_loop
from materializer.select import is_personal, name_of, refuse_aggregated, stored_view
from materializer.stop import Stop, told_in
from materializer.write import new_event_loop

log = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 30.0
LOCK_TRY_S: Final = 0.2


def reconcile(
    config: Config, request: Request, *, progress: Progress = silent, stop: Stop | None = None
) -> Report:
    """Compare what is online with what history says. Also from within a running event loop.

    A view that fails does not stop the others: look at the report's `status` and its views' `error`.

    Raises:
        RequestError: an unknown view, or a request that makes no sense.
        ConfigError: a store's URL is wrong, or the online store belongs to another registry.
        RegistryError: the registry cannot be read.
        StoreError: an embedded online store cannot be opened.
    """
    check(request)
    return off_loop(partial(_reconcile, config, request, progress, stop or Stop()))


def _reconcile(config: Config, request: Request, progress: Progress, stop: Stop) -> Report:
    started = time.monotonic()
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        views = choose(config, snapshot, request.views)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            work = _views(_Context(config, request, registry, snapshot, progress, stop), views)
            report = Report(runner.run(work))
    report.seconds = time.monotonic() - started
    return report


def choose(config: Config, snapshot: Snapshot, names: Sequence[str]) -> list[RegisteredView]:
    """The views named; or all that are online and have a history, by name and version.

    Raises:
        UnknownObjectError: no such view or version.
    """
    if names:
        found = list({rv.view_id: rv for rv in (stored_view(snapshot, name) for name in names)}.values())
        for rv in found:
            refuse_aggregated(rv, "reconcile")
        return found
    online = [snapshot.views[key] for key in sorted(snapshot.views) if snapshot.views[key].view.online]
    return [
        rv
        for rv in online
        if not isinstance(rv.view, AggregatedFeatureView)
        and (
            batch_source(rv.view.source) is not None
            or OfflineTable(config.offline_store, config.project, rv).exists
        )
    ]


@dataclass(frozen=True, slots=True)
class _Context:
    """What the views share."""

    config: Config
    request: Request
    registry: Registry
    snapshot: Snapshot
    progress: Progress
    stop: Stop


async def _views(context: _Context, views: Sequence[RegisteredView]) -> list[ViewReport]:
    if not views:
        return []
    store = open_store(context.config.online_store, read_only=not context.request.repair)
    try:
        mine = claim if context.request.repair else check_owner
        await mine(store, context.snapshot.registry_id)
        return [await _one_view(context, store, rv) for rv in views]
    finally:
        await store.close()


async def _one_view(context: _Context, store: OnlineStore, rv: RegisteredView) -> ViewReport:
    """Reconcile one view; whatever goes wrong ends up in its report."""
    about = ViewReport(name_of(rv.view), ignored=context.request.ignore)
    if context.stop.signum:
        return about
    started = time.monotonic()
    with told_in(about):
        await _compare(context, store, rv, about)
        about.settle()
    about.seconds = time.monotonic() - started
    if about.status in ("equal", "repaired", "different"):
        _note(context.registry, rv, about)
    return about


async def _compare(context: _Context, store: OnlineStore, rv: RegisteredView, about: ViewReport) -> None:
    request = context.request
    about.now_us = wall_clock_us() if request.now_us is None else request.now_us
    if request.sample is not None:
        about.sample = request.sample
        about.seed = random.randrange(2**32) if request.seed is None else request.seed
    sets = await _row_sets(store, rv)
    about.online_id = sets.live
    about.history, tally = await _look_at(context, store, rv.at(sets.live), about)
    about.take(tally)
    if request.repair and sets.other is not None and sets.role == "kept":
        # A rollback would serve it. One that is being built is filled from the history anyway.
        _, tally = await _look_at(context, store, rv.at(sets.other), about)
        about.kept = {"online_id": sets.other, "repaired": tally.repaired.total()}
    if (await _row_sets(store, rv)).live != sets.live:
        raise moved_on(rv)


async def _row_sets(store: OnlineStore, rv: RegisteredView) -> RowSets:
    sets = (await look(store, {rv.view_id: rv.online_id}))[rv.view_id]
    if not sets.ids:
        raise UnknownObjectError(f"feature view {rv.view.name!r} was retired, and its rows removed")
    return sets


async def _look_at(
    context: _Context, store: OnlineStore, rv: RegisteredView, about: ViewReport
) -> tuple[dict[str, Any], Tally]:
    """Compare one row set of a view with its history, and put right what is to be."""
    request = context.request
    truth = Truth(context.config, context.registry, rv, about.now_us)
    looks = Looks(
        truth,
        Judge(rv, about.now_us, request.grace_us, kept_us(rv.view.ttl_us)),
        store,
        mend=kinds_to_mend(repair=request.repair, prune=request.prune),
        ttl_us=rv.view.ttl_us,
        now_us=about.now_us,
        masked=is_personal(context.snapshot, rv),
        stop=context.stop,
        told=lambda rows: context.progress(about.view, "scan", rows, None),
    )
    sample = None if about.sample is None or about.seed is None else (about.sample, about.seed)
    with Shards("row", "held") as suspects:
        await looks.first(suspects, sample)
        if suspects.n_keys:
            async with _held(context, rv):
                _check_unchanged(context, rv)
                await looks.second(suspects)
    return truth.pin.to_dict(), looks.tally


@asynccontextmanager
async def _held(context: _Context, rv: RegisteredView) -> AsyncIterator[None]:
    """The view's lock, waited for a while: a run that is between its two stores looks like many differences."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        lock = context.registry.lock_view(rv.view_id)
        try:
            lock.__enter__()
            break
        except AlreadyRunningError:
            if time.monotonic() > deadline:
                raise
        context.stop.check()
        await asyncio.sleep(LOCK_TRY_S)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _check_unchanged(context: _Context, rv: RegisteredView) -> None:
    """Rows of a layout that we do not know would all look corrupt."""
    now = context.registry.snapshot().views.get((rv.view.name, rv.view.version))
    if now is None or now.at(rv.online_id) != rv:
        raise moved_on(rv)


def _note(registry: Registry, rv: RegisteredView, about: ViewReport) -> None:
    kept = {name: value for name, value in about.to_dict().items() if name not in ("view", "examples")}
    try:
        registry.note_reconciled(rv.view_id, kept | {"finished_at": format_timestamp(wall_clock_us())})
    except RegistryError as error:  # the outcome is told all the same
        log.warning("the outcome of view %s could not be noted: %s", about.view, error)
