"""What Prometheus scrapes: read from the registry at each scrape, so that every control plane tells the same.

fastserve_registry_up                        1 when the registry answered
fastserve_registry_revision
fastserve_jobs{status}                       jobs kept
fastserve_view_freshness_seconds{view,target}    now minus the newest materialized end
fastserve_last_run_rows{view,target}         rows of the newest finished interval
fastserve_last_run_timestamp_seconds{view}   when the newest run ended
fastserve_last_run_failed{view}              1 when it failed
fastserve_reconcile_differences{view}        what the newest reconciliation left different
fastserve_reconcile_timestamp_seconds{view}  when it ended
fastserve_control_requests_total{method,route,status}
process_*, python_info                       of this process
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fastserve.control.answers import Handler
from fastserve.control.plane import ControlPlane
from fastserve.control.requests import query_of
from fastserve.errors import RegistryError
from fastserve.registry import RegisteredView, Registry, Run, Snapshot
from fastserve.timeutil import MICROS, now_us, parse_timestamp

_TARGETS: Final[tuple[Literal["online", "offline"], ...]] = ("offline", "online")
_METHODS: Final = ("GET", "HEAD", "POST")


class Metrics:
    """The route and the counters of one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._collectors = CollectorRegistry()
        ProcessCollector(registry=self._collectors)
        PlatformCollector(registry=self._collectors)
        self._requests = Counter(
            "fastserve_control_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._collectors,
        )
        self._collectors.register(_RegistryCollector(plane))

    @property
    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [web.get("/metrics", self._scrape)]

    def middleware(self) -> object:
        """Counts requests; labels are routes, never paths, so that there is a bounded number of them."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = await handler(request)
            resource = request.match_info.route.resource
            route = "unknown" if resource is None else resource.canonical
            method = request.method if request.method in _METHODS else "other"
            self._requests.labels(method, route, str(answer.status)).inc()
            return answer

        return count

    async def _scrape(self, request: web.Request) -> web.Response:
        query_of(request, {})
        text = await self._plane.call(lambda: generate_latest(self._collectors))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _RegistryCollector(Collector):
    """Reads the registry at each scrape; without one, it says only that there is none."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: or the registry would be read when the collector is made."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            families = list(self._families())
        except RegistryError:
            yield GaugeMetricFamily("fastserve_registry_up", "1 when the registry answers.", 0)
            return
        yield GaugeMetricFamily("fastserve_registry_up", "1 when the registry answers.", 1)
        yield from families

    def _families(self) -> Iterator[GaugeMetricFamily]:
        registry, snapshot = self._plane.registry, self._plane.current()
        yield GaugeMetricFamily(
            "fastserve_registry_revision", "Revision of the definitions.", snapshot.revision
        )
        counts = GaugeMetricFamily("fastserve_jobs", "Jobs kept, by status.", labels=("status",))
        for status, count in registry.jobs.counts().items():
            counts.add_metric((status,), count)
        yield counts
        yield from _intervals(registry, snapshot)
        yield from _runs(registry, snapshot)
        yield from _reconciled(registry, snapshot)


def _intervals(registry: Registry, snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    fresh = GaugeMetricFamily(
        "fastserve_view_freshness_seconds",
        "Now minus the newest materialized end.",
        labels=("view", "target"),
    )
    rows = GaugeMetricFamily(
        "fastserve_last_run_rows", "Rows of the newest finished interval.", labels=("view", "target")
    )
    now = now_us()
    for registered in snapshot.views.values():
        for target in _TARGETS:
            found = registry.intervals(registered.view_id, target, raw=True)
            if found:
                labels = (_name(registered), target)
                fresh.add_metric(labels, (now - max(one.end_us for one in found)) / MICROS)
                rows.add_metric(labels, found[-1].rows)
    yield fresh
    yield rows


def _runs(registry: Registry, snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    ended = GaugeMetricFamily(
        "fastserve_last_run_timestamp_seconds", "When the newest run ended.", labels=("view",)
    )
    failed = GaugeMetricFamily("fastserve_last_run_failed", "1 when the newest run failed.", labels=("view",))
    for registered in snapshot.views.values():
        run: Run | None = next(iter(registry.runs(1, view_id=registered.view_id)), None)
        if run is not None and run.finished_us is not None:
            ended.add_metric((_name(registered),), run.finished_us / MICROS)
            failed.add_metric((_name(registered),), float(run.status == "failed"))
    yield ended
    yield failed


def _reconciled(registry: Registry, snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    left = GaugeMetricFamily(
        "fastserve_reconcile_differences", "What the newest reconciliation left different.", labels=("view",)
    )
    ended = GaugeMetricFamily(
        "fastserve_reconcile_timestamp_seconds", "When the newest reconciliation ended.", labels=("view",)
    )
    for registered in snapshot.views.values():
        outcome = registry.reconciled(registered.view_id)
        if outcome is not None:
            left.add_metric((_name(registered),), outcome["left"])
            ended.add_metric((_name(registered),), parse_timestamp(outcome["finished_at"]) / MICROS)
    yield left
    yield ended


def _name(registered: RegisteredView) -> str:
    view = registered.view
    return view.name if view.version == 1 else f"{view.name}@v{view.version}"
