"""Composition: registry + online store + read path + front end = a server.

`serve` starts the workers; each runs an App, whose requests go to api.router.Router.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop

from fastserve.api.admission import Admission
from fastserve.api.feast import FeastReads
from fastserve.api.feast_jobs import FeastJobs
from fastserve.api.handlers import BATCH, FeatureReads
from fastserve.api.metrics import Groups, Metrics
from fastserve.api.openapi import openapi_routes
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.api.writes import FeatureWrites
from fastserve.config import Config
from fastserve.errors import ConfigError, FastserveError, StoreError
from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from fastserve.http.server import Server, make_ssl_context
from fastserve.http.workers import Announce, Worker, run_workers
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import check_owner
from fastserve.registry import open_registry
from fastserve.serving.answer_log import AnswerLog, AnswerLogSettings
from fastserve.serving.catalog import Catalog
from fastserve.serving.push import Pusher
from fastserve.serving.read_path import ReadPath
from fastserve.serving.row_cache import ViewCache
from fastserve.streaming.pushes import EventPusher
from fastserve.timeutil import now_us

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 6566
OWNER_POLL_S: Final = 0.5
M_TRIM_THRESHOLD: Final = -1  # malloc.h
M_MMAP_THRESHOLD: Final = -3
HEAP_BLOCK: Final = 8 * 1024 * 1024  # what glibc itself would come to once a block of this size was freed


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `fastserve serve` can be told.

    Attributes:
        repo: directory with fastserve.toml.
        host, port: where to listen; port 0 takes a free one.
        workers: processes sharing the port.
        cert, key: PEM files for TLS; '' for cleartext.
        clock_us: a frozen clock, to replay a moment of the past; None for the wall clock.
        deadline_ms: how long a request waits for the online store.
        drain_s: how long a stopping server lets requests in flight finish.
        cache_mb: memory of each worker for rows read lately; 0 for none. Only before a store that tells of
            changes (Redis): the embedded ones are as near as a cache.
        stale_if_down_s: how old a cached row may be that is answered, flagged, while the store is down; 0 for never.
        max_queue_ms: estimated work that a burst may leave queued in a worker; beyond it requests are refused with 429.
        limits: of the front end, name -> number or its text; they go before those of the repo.
        log_answers: directory of a log of answers; '' for what the repo says.
        log_rate: the share of answers in it; None for what the repo says.
        compat: 'feast' answers every Feast request as `?compat=feast` does; '' only those.
        worker, metrics_folder: set by `serve` for each worker: its number, and where they share their figures.
    """

    repo: str = "."
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 1
    cert: str = ""
    key: str = ""
    clock_us: int | None = None
    deadline_ms: int = 1_000
    drain_s: float = 10.0
    cache_mb: int = 64
    stale_if_down_s: float = 300.0
    max_queue_ms: int = 200
    limits: Mapping[str, Any] = field(default_factory=dict)
    log_answers: str = ""
    log_rate: float | None = None
    compat: str = ""
    worker: int = 0
    metrics_folder: str = ""

    @property
    def clock(self) -> Callable[[], int]:
        """The clock that ages rows."""
        frozen = self.clock_us
        return now_us if frozen is None else lambda: frozen


class App:
    """One process of the data plane.

    Args:
        options: see ServeOptions.
        limits: bounds of the front end; those of the options and the repo without.

    Raises:
        ConfigError: fastserve.toml, a limit or the TLS files will not do.
    """

    def __init__(self, options: ServeOptions, limits: Limits | None = None) -> None:
        self.options = options
        config = Config.from_repo(options.repo)
        tls = make_ssl_context(options.cert, options.key) if options.cert else None
        self._store: OnlineStore = open_store(config.online_store)
        registry = open_registry(config.registry, config.project)
        self.catalog = Catalog(registry, config.repo)
        self._jobs = FeastJobs(self.catalog, registry, config)
        self._cache = _cache(self._store, options)
        self._read_path = ReadPath(
            self._store, options.clock, cache=self._cache, deadline_us=options.deadline_ms * 1_000
        )
        gate = Gate([BATCH])
        self._admission = Admission(options.max_queue_ms, gate=gate)
        self._answer_log = _answer_log(config, options, self.catalog)
        reader = Reader(self._read_path, self._admission, self._answer_log)
        self._pusher = Pusher(
            registry,
            self.catalog.snapshot,
            offline_root=config.offline_store,
            online=self._store,
            now=options.clock,
        )
        self._events = EventPusher(config, options.clock)
        self._started = False
        self._owner_checks: asyncio.Task[None] | None = None
        self._metrics = Metrics(options.worker, self._figures(), options.metrics_folder)
        router = Router(
            FeatureReads(self.catalog, reader).routes,
            FeastReads(self.catalog, reader, compat=options.compat == "feast").routes,
            FeatureWrites(self.catalog, self._pusher, self._events).routes,
            self._jobs.routes,
            openapi_routes(),
            self._metrics.routes,
        )
        self.server = Server(router, limits=limits or limits_of(config, options), gate=gate, ssl_context=tls)

    def _figures(self) -> Groups:
        """What /metrics tells, beside the process' own."""
        groups: dict[str, Callable[[], Mapping[str, float]]] = {
            "http": lambda: self.server.stats.as_dict(),
            "admission": self._admission.counters,
            "store": self._read_path.counters,
            "on_demand": self.catalog.computing.figures,
            "workers": lambda: {"configured": self.options.workers},
        }
        if self._answer_log is not None:
            groups["answer_log"] = self._answer_log.counters
        return groups if self._cache is None else groups | {"cache": self._cache.counters}

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, and follow the registry.

        Raises:
            ConfigError: the port is taken, or the online store belongs to another registry.
        """
        await self.check_owner()
        self.catalog.warm()
        if self._read_path.blocked:
            log.warning("the online store does not answer: %s", self._read_path.blocked)
            self._owner_checks = asyncio.get_running_loop().create_task(self._check_owner_until_known())
        await self.server.start(self.options.host, self.options.port, sock=sock)
        self._started = True
        self.catalog.watch(self._store, self._sure)
        self._metrics.start()

    async def check_owner(self) -> None:
        """Whether the store may be read; while it does not answer, every answer says UNAVAILABLE.

        Raises:
            ConfigError: the store belongs to another registry.
        """
        try:
            await check_owner(self._store, self.catalog.snapshot.registry_id)
            self._sure(await self.catalog.follow_sets(self._store))
        except StoreError as error:
            self._read_path.blocked = error.message
        else:
            self._read_path.blocked = ""

    def _sure(self, until_us: int) -> None:
        self._read_path.sure_until_us = until_us

    async def _check_owner_until_known(self) -> None:
        """A store that was away at the start may come back as another registry's: its rows are not ours."""
        while self._read_path.blocked:
            await asyncio.sleep(OWNER_POLL_S)
            try:
                await self.check_owner()
            except ConfigError as error:
                if self._read_path.blocked != error.message:
                    log.error("not reading the online store: %s", error)
                self._read_path.blocked = error.message
        log.info("the online store answers")

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Finish what is in flight, then let go of everything.

        Args:
            hurry: see Server.drain.
        """
        self._metrics.close()  # a successor may tell its own by now
        if self._started:
            await self.server.drain(self.options.drain_s, hurry)
        if self._answer_log is not None:
            await asyncio.to_thread(self._answer_log.close)
        await self._pusher.close()
        await self._events.close()
        self._jobs.close()
        if self._owner_checks is not None:
            self._owner_checks.cancel()
            await asyncio.gather(self._owner_checks, return_exceptions=True)
        await self.catalog.close()
        await self._store.close()


def limits_of(config: Config, options: ServeOptions) -> Limits:
    """The front end's; what the options say goes before what the repo says.

    Raises:
        ConfigError: a limit will not do.
    """
    return Limits.of({**config.limits, **options.limits})


def _cache(store: OnlineStore, options: ServeOptions) -> ViewCache | None:
    if not (options.cache_mb and store.tells_changes):
        return None
    return ViewCache(store, options.cache_mb << 20, stale_if_down_us=int(options.stale_if_down_s * 1_000_000))


def _answer_log(config: Config, options: ServeOptions, catalog: Catalog) -> AnswerLog | None:
    settings = AnswerLogSettings.of(config.answer_log, config.repo, options.log_answers, options.log_rate)
    if settings is None:
        return None
    return AnswerLog(settings, registry_id=catalog.snapshot.registry_id, project=config.project)


def serve(options: ServeOptions, announce: Announce | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    What is wrong with the options or the repo is found here, before a worker is started.

    Args:
        announce: the line to print once requests are answered, from (workers, host, port).

    Raises:
        ConfigError: the repo, an option or the port; the online store belongs to another registry.
        RegistryError: the registry cannot be read.
    """
    limits_of(Config.from_repo(options.repo), options)
    if bool(options.cert) != bool(options.key):
        raise ConfigError("TLS needs both a certificate and a key", hint="--cert chain.pem --key key.pem")
    if options.workers > 1:
        _log_to_stderr()
        uvloop.run(_rehearse(options))
    with TemporaryDirectory(prefix="fastserve-") as folder:
        if options.workers > 1:
            options = replace(options, metrics_folder=folder)
        return run_workers(
            options.workers,
            partial(_work, asdict(options)),
            host=options.host,
            port=options.port,
            stop_timeout_s=options.drain_s + 5,
            announce=announce,
        )


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("fastserve").setLevel(logging.INFO)


def _work(told: dict[str, Any], worker: Worker) -> None:
    """One worker. `told` are ServeOptions by name: after a restart this code may be newer than the supervisor's."""
    _log_to_stderr()
    try:
        uvloop.run(_serve(replace(ServeOptions(**told), worker=worker.index), worker))
    except FastserveError as error:
        if worker.count == 1:
            raise
        log.error("%s", error)
        worker.report_failure(str(error))
        sys.exit(1)


async def _rehearse(options: ServeOptions) -> None:
    """Open what a worker opens, so that what is wrong is said once, here."""
    app = App(options)
    try:
        await app.check_owner()
    finally:
        await app.stop()


def settle() -> None:
    """What is loaded by now stays: the collector looks at it no more, and seldom at all.

    Requests leave no cycles. A look at all that the libraries have made stops the worker for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    keep_heap()


def keep_heap() -> None:
    """Have glibc keep what answers are made of, and not give it back and fault it in again for each burst of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 2 * HEAP_BLOCK)


async def _serve(options: ServeOptions, worker: Worker) -> None:
    app = App(options)
    try:
        await app.start(worker.listen())
        settle()
        worker.report_ready(app.server.listen)
        await worker.stopped()
        log.info("stopping: finishing what is in flight")
    finally:
        await app.stop(worker.hurry)
