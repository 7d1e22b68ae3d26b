"""Materialization as a job: fastserve.jobs runs these functions in a process of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastserve.config import Config
from fastserve.errors import AlreadyRunningError, MaterializeError
from fastserve.jobs.context import JobContext, JobStopped
from fastserve.registry import open_registry
from materializer.backfill import BackfillRequest
from materializer.backfill import backfill as backfill_view
from materializer.progress import Phase
from materializer.reconcile.request import Request as ReconcileRequest
from materializer.reconcile.run import reconcile as reconcile_views
from materializer.refresh import RefreshRequest, SetsSummary
from materializer.refresh import refresh as refresh_view
from materializer.refresh import rollback as rollback_view
from materializer.run import Request, run
from materializer.select import choose
from materializer.stop import Stop
from materializer.summary import Summary


def materialize(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `materialize`; the result is the run's summary.

    Args:
        args: fields of materializer.run.Request by name; times in microseconds.

    Raises:
        JobStopped: it was stopped; what it finished is kept.
        AlreadyRunningError: other runs held its views.
        MaterializeError: a view failed; the message names all that did.
        RequestError, ConfigError, RegistryError: as `run`.
    """
    request = Request(**{**args, "views": tuple(args.get("views", ()))})
    progress = _Progress(context, _count(context.config, request))
    summary = run(context.config, request, progress=progress, stop=_Asked(context))
    totals = summary.to_dict()["totals"]
    context.report(
        rows=totals["rows_read"], partitions=totals["partitions_done"] + totals["partitions_skipped"]
    )
    _check(summary)
    context.report(eta_s=0.0)
    return summary.to_dict()


def reconcile(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `reconcile`; the result is its report, also where something differs.

    Args:
        args: fields of materializer.reconcile.request.Request by name.

    Raises:
        JobStopped: it was stopped; what was put right stays so.
        AlreadyRunningError: a view was being materialized all the time.
        MaterializeError: a view failed; the message names all that did.
        RequestError, ConfigError, RegistryError, StoreError: as `materializer.reconcile.run.reconcile`.
    """
    lists = {name: tuple(args.get(name, ())) for name in ("views", "ignore")}
    request = ReconcileRequest(**{**args, **lists})
    progress = _Progress(context, len(request.views))
    report = reconcile_views(context.config, request, progress=progress, stop=_Asked(context))
    if report.status in ("stopped", "not_run"):
        raise JobStopped
    texts = [f"view {view.view}: {view.error}" for view in report.views if view.error is not None]
    if report.status == "already_running":
        raise AlreadyRunningError("; ".join(texts), hint="wait for the other run, then ask again")
    if report.status == "failed":
        raise MaterializeError("; ".join(texts), hint="views that are not named here were looked at")
    context.report(eta_s=0.0)
    return report.to_dict()


def backfill(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `backfill`; the result is its summary.

    Args:
        args: fields of materializer.backfill.BackfillRequest by name; times in microseconds.

    Raises:
        JobStopped: it was stopped; the dates it finished are kept.
        FastserveError: why it failed; likewise.
    """
    progress = _Progress(context, 1)
    summary = backfill_view(context.config, BackfillRequest(**args), progress=progress, stop=_Asked(context))
    if summary.error is not None:
        raise summary.error
    if summary.status != "ok":
        raise JobStopped
    done = summary.dates_done + summary.dates_unchanged + summary.dates_skipped
    context.report(rows=summary.rows_read, partitions=done, partitions_total=done, eta_s=0.0)
    return summary.to_dict()


def refresh(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `refresh`; the result is its summary.

    Args:
        args: fields of materializer.refresh.RefreshRequest by name.

    Raises:
        JobStopped: it was stopped; the rows served are those before.
        FastserveError: why it failed; likewise.
    """
    request = RefreshRequest(**args)
    progress = _Progress(context, 1)
    return _sets_result(refresh_view(context.config, request, progress=progress, stop=_Asked(context)))


def rollback(context: JobContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of kind `rollback`; the result is its summary.

    Args:
        args: `view`, and perhaps `keep_us`.

    Raises:
        FastserveError: why it failed; the rows served are those before.
    """
    return _sets_result(rollback_view(context.config, **args, stop=_Asked(context)))


def _sets_result(summary: SetsSummary) -> dict[str, Any]:
    if summary.error is not None:
        raise summary.error
    if summary.status != "ok":
        raise JobStopped
    return summary.to_dict()


class _Asked(Stop):
    """A Stop that hears of it from the job."""

    def __init__(self, context: JobContext) -> None:
        super().__init__()
        self._context = context

    def check(self) -> None:
        if self._context.stopping:
            self.signum = self.signum or 15
        super().check()


class _Progress:
    """Views, rows and partitions so far, and how long the rest takes at the pace so far."""

    def __init__(self, context: JobContext, views: int) -> None:
        self._context = context
        self._views = views
        self._started = time.monotonic()
        self._rows: dict[str, int] = {}
        self._partitions: dict[str, tuple[int, int]] = {}

    def __call__(self, view: str, phase: Phase, done: int, total: int | None) -> None:
        if phase == "scan":
            self._rows[view] = done
        else:
            self._partitions[view] = (done, total or done)
        self._context.report(
            view=view,
            phase=phase,
            rows=sum(self._rows.values()),
            partitions=sum(done for done, _ in self._partitions.values()),
            partitions_total=sum(total for _, total in self._partitions.values()),
            views_total=self._views,
            eta_s=self._eta_s(),
        )

    def _eta_s(self) -> float | None:
        """Seconds; None before the first partition is written."""
        share = sum(done / total for done, total in self._partitions.values() if total) / max(self._views, 1)
        elapsed = time.monotonic() - self._started
        return round(elapsed * (1 - share) / share, 1) if share else None


def _count(config: Config, request: Request) -> int:
    with open_registry(config.registry, config.project) as registry:
        return len(choose(registry.snapshot(), request.views, request.target))


def _check(summary: Summary) -> None:
    if summary.status == "ok":
        return
    if summary.status in ("stopped", "not_run"):
        raise JobStopped
    texts = [f"view {view.view}: {view.error}" for view in summary.views if view.error is not None]
    if summary.status == "already_running":
        raise AlreadyRunningError("; ".join(texts), hint="wait for the other run, then ask again")
    raise MaterializeError("; ".join(texts), hint="views that are not named here are done")
