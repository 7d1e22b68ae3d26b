"""Composition: registry + online store + read path + front end = one serving process.

START HERE for a server: `serve` (or one worker of several) -> `App.start` -> requests go to api.handlers.DataPlane.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastserve.api.handlers import DataPlane
from fastserve.config import Config
from fastserve.http.limits import Limits
from fastserve.http.server import Server, make_ssl_context
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import check_claim
from fastserve.registry import open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.read_path import ReadPath
from fastserve.timeutil import now_us

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 6566


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

    @property
    def clock(self) -> Callable[[], int]:
        """The clock that ages rows."""
        frozen = self.clock_us
        return now_us if frozen is None else lambda: frozen


class App:
    """One process of the data plane.

    Args:
        options: see ServeOptions.
        limits: bounds of the front end.
    """

    def __init__(self, options: ServeOptions, limits: Limits | None = None) -> None:
        self.options = options
        config = Config.from_repo(options.repo)
        tls = make_ssl_context(options.cert, options.key) if options.cert else None
        self._store: OnlineStore = open_store(config.online_store)
        self.catalog = Catalog(open_registry(config.registry, config.project))
        self._read_path = ReadPath(self._store, options.clock, deadline_us=options.deadline_ms * 1_000)
        self.server = Server(DataPlane(self.catalog, self._read_path), limits=limits, ssl_context=tls)

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, and follow the registry.

        Raises:
            ConfigError: the port is taken, or the online store belongs to another registry.
        """
        await check_claim(self._store, self.catalog.snapshot.registry_id)
        await self.server.start(self.options.host, self.options.port, sock=sock)
        self.catalog.watch()

    async def stop(self) -> None:
        """Finish what is in flight, then let go of everything."""
        await self.server.drain(self.options.drain_s)
        await self.catalog.close()
        await self._store.close()


async def run_app(app: App, sock: socket.socket | None, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        sock: a bound socket, or None to bind the options' host and port.
        ready: called with the port once requests are answered.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await app.start(sock)
        ready(app.server.port)
        await stop.wait()
        log.info("stopping: finishing what is in flight")
    finally:
        await app.stop()


