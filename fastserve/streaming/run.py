"""`fastserve stream run`: registry + online store + a worker + /metrics, until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prometheus_client import start_http_server

from fastserve.config import Config
from fastserve.errors import ConfigError, RequestError
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.registry import Registry, open_registry
from fastserve.streaming.archive import Archive
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed, feeds_of
from fastserve.streaming.members import worker_name
from fastserve.streaming.metrics import Owner, metrics_of
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.stores import open_feeds
from fastserve.streaming.worker import Worker
from fastserve.timeutil import MICROS

log = logging.getLogger(__name__)

_LOOK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How to run a worker.

    Attributes:
        host, port: of /metrics; port None for none, 0 for a free one.
    """

    host: str = "127.0.0.1"
    port: int | None = None


class Runner(Owner, Protocol):
    """What applies events: a worker, or a Spark engine."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then give all shards back. Raises StoreError at the start."""


Make = Callable[[Callable[[], FeedStore], Callable[[], Sequence[Feed]]], Runner]
"""(opens a store, the feeds now) -> runner."""


def run_worker(
    config: Config,
    options: StreamOptions,
    ready: Callable[[str, int | None], None],
    make: Make | None = None,
) -> None:
    """Work until SIGTERM or SIGINT, then give the shards back; a second signal kills.

    Args:
        ready: called with the worker's name and the port of /metrics once it works.
        make: makes another runner than a worker.

    Raises:
        RequestError: no view is computed from events.
        ConfigError: the online store cannot hold feeds, belongs to another registry, or the port is taken.
        StoreError, RegistryError: they do not answer at the start.
    """
    settings = StreamSettings.of(config.streaming)
    with open_registry(config.registry, config.project) as registry:
        definitions = Definitions(registry)
        if not definitions.feeds():
            raise RequestError(
                "no feature view is computed from events",
                hint="declare an AggregatedFeatureView, and run `fastserve apply`",
            )

        def opened() -> FeedStore:
            return open_feeds(config)

        opened().close()
        asyncio.run(_claim(config.online_store, registry.registry_id))
        worker = (make or _worker(config, settings))(opened, definitions.feeds)
        stop = threading.Event()
        server, port = None, None
        if options.port is not None:
            server, port = _serve(options, worker, opened)
        _stop_on_signals(stop)
        archive = _archive(config, settings, worker, opened)
        try:
            ready(worker.name, port)
            worker.run(stop)
        finally:
            if archive is not None:
                archive.stop()
            if server is not None:
                server.shutdown()
                server.server_close()


def _worker(config: Config, settings: StreamSettings) -> Make:
    def make(opened: Callable[[], FeedStore], feeds: Callable[[], Sequence[Feed]]) -> Runner:
        return Worker(opened, config.project, worker_name(), feeds, settings=settings)

    return make


def _archive(
    config: Config, settings: StreamSettings, worker: Runner, opened: Callable[[], FeedStore]
) -> Archive | None:
    """Follows the feeds whose first shard is the worker's."""
    if settings.archive_us is None:
        return None

    def ours() -> list[Feed]:
        return [owned.feed for owned in list(worker.owned.values()) if owned.shard == 0]

    made = Archive(opened, config.offline_store, ours, settings.archive_us / MICROS)
    made.start()
    return made


class Definitions:
    """The feeds that the registry has, asked for again every two seconds."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._revision = -1
        self._feeds: Sequence[Feed] = ()
        self._look_at = 0.0

    def feeds(self) -> Sequence[Feed]:
        """The same object as long as nothing changed.

        Raises:
            RegistryError: the registry cannot be read.
        """
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            if self._registry.revision() != self._revision:
                snapshot = self._registry.snapshot()
                self._feeds, self._revision = feeds_of(snapshot), snapshot.revision
        return self._feeds


async def _claim(url: str, registry_id: str) -> None:
    store = open_store(url)
    try:
        await claim(store, registry_id)
    finally:
        await store.close()


def _serve(options: StreamOptions, worker: Runner, opened: Callable[[], FeedStore]) -> tuple[Any, int]:
    assert options.port is not None
    try:
        server, _ = start_http_server(options.port, addr=options.host, registry=metrics_of(worker, opened))
    except OSError as error:
        raise ConfigError(
            f"cannot listen: {error.strerror}",
            where=f"{options.host}:{options.port}",
            hint="take another --port",
        ) from None
    return server, int(server.server_port)


def _stop_on_signals(stop: threading.Event) -> None:
    def ask(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
