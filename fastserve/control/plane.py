"""What the handlers share: registry, online store, and the loop that looks after the jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from fastserve.config import Config
from fastserve.errors import RegistryError, StoreError
from fastserve.jobs.supervisor import Supervisor
from fastserve.online import OnlineStore, open_store
from fastserve.online.claim import check_owner
from fastserve.registry import Registry, Snapshot, open_registry

log = logging.getLogger(__name__)

BUSY_TICK_S: Final = 0.2
IDLE_TICK_S: Final = 1.0
T = TypeVar("T")


class ControlPlane:
    """One process of the control plane.

    Args:
        config: the repo.
        max_jobs: how many jobs may run at once; 0 leaves them queued.

    Raises:
        ConfigError: an URL is wrong.
        RegistryError: the registry cannot be opened.
    """

    def __init__(self, config: Config, *, max_jobs: int) -> None:
        self.config = config
        self.registry: Registry = open_registry(config.registry, config.project)
        self.jobs = self.registry.jobs
        self.max_jobs = max_jobs
        self._store: OnlineStore = open_store(config.online_store)
        self._supervisor = Supervisor(self.jobs, config, max_jobs=max_jobs)
        self._snapshot: Snapshot | None = None
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """Something that talks to the registry, off the event loop."""
        return await asyncio.to_thread(function)

    async def snapshot(self) -> Snapshot:
        """The newest definitions."""
        return await self.call(self.current)

    def current(self) -> Snapshot:
        """The newest definitions; blocking: one SELECT, more on a change."""
        held = self._snapshot
        if held is None or self.registry.revision() != held.revision:
            held = self._snapshot = self.registry.snapshot()
        return held

    def wake(self) -> None:
        """There is a new job, or one to be cancelled: look now."""
        self._wake.set()

    async def probe_store(self) -> None:
        """Does the online store answer, and is it ours? Raises StoreError or ConfigError if not."""
        await asyncio.wait_for(check_owner(self._store, self.registry.registry_id), 2.0)

    def start(self) -> None:
        """Look after the jobs from now on; on a running loop."""
        self._loop = asyncio.create_task(self._look_after_jobs())

    async def close(self) -> None:
        """Let go of everything; jobs that run go on."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._supervisor.close()
        self.registry.close()
        with contextlib.suppress(StoreError):
            await self._store.close()

    async def _look_after_jobs(self) -> None:
        failing = False
        while True:
            self._wake.clear()
            try:
                await asyncio.shield(asyncio.to_thread(self._supervisor.tick))
                failing = False
            except RegistryError as error:
                if not failing:
                    log.warning("the registry does not answer, jobs wait: %s", error.message)
                failing = True
            except Exception:
                log.exception("a round of the supervisor failed")
            pause = BUSY_TICK_S if self._supervisor.children else IDLE_TICK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
