"""The control plane's server: an aiohttp application on a port of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from fastserve.config import Config
from fastserve.control.answers import envelope
from fastserve.control.catalog import CatalogRoutes
from fastserve.control.dataset_routes import DatasetRoutes
from fastserve.control.health import HealthRoutes
from fastserve.control.job_routes import JobRoutes
from fastserve.control.metrics import Metrics
from fastserve.control.plane import ControlPlane
from fastserve.control.reconcile_routes import ReconcileRoutes
from fastserve.control.requests import MAX_BODY, query_of
from fastserve.control.set_routes import SetRoutes
from fastserve.http.workers import Announce, Worker, run_workers

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 6567
_OPENAPI: Final = Path(__file__).with_name("openapi.json")


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """What `fastserve control` can be told.

    Attributes:
        repo: directory with fastserve.toml.
        host, port: where to listen; port 0 takes a free one.
        max_jobs: how many jobs run at the same time; 0 leaves them queued for another control plane.
        drain_s: how long a stopping server lets requests in flight finish.
    """

    repo: str = "."
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_jobs: int = 2
    drain_s: float = 10.0


def make_app(plane: ControlPlane) -> web.Application:
    """All routes over a plane; the application closes it."""
    metrics = Metrics(plane)
    middlewares: list[Any] = [metrics.middleware(), envelope]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
    jobs = (JobRoutes(plane), SetRoutes(plane), ReconcileRoutes(plane), DatasetRoutes(plane))
    tables = (CatalogRoutes(plane), *jobs, HealthRoutes(plane), metrics)
    for table in tables:
        app.add_routes(table.routes)
    app.router.add_get("/openapi.json", _openapi)

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        plane.start()
        yield
        await plane.close()

    app.cleanup_ctx.append(lifetime)
    return app


async def _openapi(request: web.Request) -> web.Response:
    query_of(request, {})
    return web.Response(body=_OPENAPI.read_bytes(), content_type="application/json")


def control(options: ControlOptions, announce: Announce | None = None) -> int:
    """Run the control plane until SIGTERM or SIGINT; the exit status. Jobs that run go on without it.

    Args:
        announce: the line to print once requests are answered, from (workers, host, port).

    Raises:
        ConfigError: the repo, an option or the port.
        RegistryError: the registry cannot be opened.
    """
    Config.from_repo(options.repo)
    return run_workers(
        1,
        partial(_work, options),
        host=options.host,
        port=options.port,
        stop_timeout_s=options.drain_s + 5,
        announce=announce,
    )


def _work(options: ControlOptions, worker: Worker) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("fastserve").setLevel(logging.INFO)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    asyncio.run(_serve(options, worker))


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a record is about this server: what is no HTTP is its sender's mistake, answered with 400."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _serve(options: ControlOptions, worker: Worker) -> None:
    plane = ControlPlane(Config.from_repo(options.repo), max_jobs=options.max_jobs)
    runner = web.AppRunner(make_app(plane), access_log=None, shutdown_timeout=options.drain_s)
    await runner.setup()
    try:
        await web.SockSite(runner, worker.listen()).start()
        worker.report_ready()
        await worker.stopped()
        log.info("stopping; jobs that run go on")
    finally:
        await runner.cleanup()
