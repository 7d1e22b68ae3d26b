"""The registry as the server sees it: the newest snapshot, and the plans compiled from it.

A watcher asks for the revision every half second, off the event loop. A new revision replaces snapshot and
plans in one assignment: a request holds the plan it started with, so none fails on a change. When the registry cannot
be reached the server goes on with what it has, and `health` says since when.

It also asks the online store which row sets are served (fastserve/online/live.py), and a switch replaces snapshot and
plans in the same way: one request reads a view from one set. The store says so itself, so a server that is cut off
from the registry does not go on reading rows that are being removed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from fastserve.definitions import merge_refs
from fastserve.errors import FastserveError, RegistryError, StoreError
from fastserve.online import OnlineStore
from fastserve.online.live import SURE_US, look
from fastserve.registry import Registry, Snapshot
from fastserve.serving.compile import compile_plan
from fastserve.serving.computing import Computing
from fastserve.serving.plan import ReadPlan
from fastserve.timeutil import now_us

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
MAX_PLANS: Final = 1_024

PlanKey: TypeAlias = tuple[str, tuple[str, ...], bool]
Plans: TypeAlias = OrderedDict[PlanKey, ReadPlan]


class Catalog:
    """Snapshot and plans, kept current.

    Args:
        registry: where definitions are.
        repo: the directory whose files hold the functions of on-demand views; None for none.

    Attributes:
        computing: of on-demand views.
        current: the snapshot that is served, and its plans; replaced in one assignment.
    """

    def __init__(self, registry: Registry, repo: Path | None = None) -> None:
        self._registry = registry
        self.computing = Computing(repo)
        self.current: tuple[Snapshot, Plans] = (registry.snapshot(), OrderedDict())
        self._prepare(self.snapshot)
        self.stale_since_us: int | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._data_version: int | None = None  # of the registry, when its revision was asked for
        self._live: dict[int, int | None] = {}  # see Snapshot.serving; as the store said last
        self._taking = asyncio.Lock()  # of two that replace `current` neither undoes what the other did

    @property
    def snapshot(self) -> Snapshot:
        """The registry revision being served."""
        return self.current[0]

    def plan(self, service: str, features: tuple[str, ...], full_feature_names: bool) -> ReadPlan:
        """The plan for a service, or for references; compiled at its first use in this revision.

        Raises:
            UnknownObjectError, RequestError: as compile_plan.
        """
        snapshot, plans = self.current  # read once: a refresh may swap both from its thread
        plan = plans.get((service, features, full_feature_names))
        return plan or self._compiled(snapshot, plans, service, features, full_feature_names)

    def _prepare(self, snapshot: Snapshot) -> None:
        self.computing.prepare(rv.view for rv in snapshot.views.values())

    def warm(self) -> None:
        """Compile the plans of the services now, rather than at their first requests."""
        self._warm(*self.current)

    def _warm(self, snapshot: Snapshot, plans: Plans) -> None:
        for name in list(snapshot.services)[:MAX_PLANS]:
            try:
                self._compiled(snapshot, plans, name, (), False)
            except FastserveError as error:  # whoever asks for it is told why
                log.warning("service %s: %s", name, error)

    def _compiled(
        self,
        snapshot: Snapshot,
        plans: Plans,
        service: str,
        features: tuple[str, ...],
        full_feature_names: bool,
    ) -> ReadPlan:
        parts = snapshot.service(service).features if service else merge_refs(features)
        plan = compile_plan(
            snapshot,
            parts,
            service=service,
            full_feature_names=full_feature_names,
            computing=self.computing,
        )
        plans[service, features, full_feature_names] = plan
        if len(plans) > MAX_PLANS:
            plans.popitem(last=False)
        return plan

    def refresh(self) -> bool:
        """Take over a new revision, if there is one. Blocking: one SELECT, less where nothing was written."""
        # Asked before the revision: what is written between the two is seen the next time.
        version = self._registry.data_version()
        if version is not None and version == self._data_version:
            return False
        changed = self._registry.revision() != self.snapshot.revision
        if changed:
            self._take(self._registry.snapshot().serving(self._live))
        self._data_version = version
        return changed

    def _take(self, snapshot: Snapshot) -> None:
        plans = Plans()
        self._prepare(snapshot)
        self._warm(snapshot, plans)
        self.current = (snapshot, plans)

    async def follow_sets(self, store: OnlineStore) -> int:
        """Take over the row sets that the store says are served; until when they are sure, by the monotonic clock.

        Raises:
            StoreError: the store did not answer; what was known stays.
        """
        async with self._taking:
            begun = time.monotonic_ns() // 1_000
            found = await look(store, self.snapshot.online_ids())
            self._live = {view_id: sets.live if sets.ids else None for view_id, sets in found.items()}
            serving = self.snapshot.serving(self._live)
            if serving is not self.snapshot:
                await asyncio.to_thread(self._take, serving)
                log.info("now serving other row sets: %s", serving.online_ids())
            return begun + SURE_US

    def watch(
        self, store: OnlineStore | None = None, sure: Callable[[int], None] = lambda until_us: None
    ) -> None:
        """Start following the registry, and the row sets of a store, on the running loop.

        Args:
            sure: told until when the row sets are known, whenever the store has said.
        """
        self._watcher = asyncio.get_running_loop().create_task(self._follow(store, sure))

    async def close(self) -> None:
        """Stop following."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self._registry.close()

    async def _follow(self, store: OnlineStore | None, sure: Callable[[int], None]) -> None:
        while True:
            # Jitter: the workers of a host do not swap, and compile, in the same instant.
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1.2))
            try:
                async with self._taking:
                    changed = await asyncio.to_thread(self.refresh)
            except RegistryError as error:
                if self.stale_since_us is None:
                    self.stale_since_us = now_us()
                    log.warning(
                        "registry unreachable, serving revision %d: %s", self.snapshot.revision, error
                    )
            else:
                self.stale_since_us = None
                if changed:
                    log.info("now serving registry revision %d", self.snapshot.revision)
            if store is not None:
                await self._follow_sets(store, sure)

    async def _follow_sets(self, store: OnlineStore, sure: Callable[[int], None]) -> None:
        try:
            sure(await self.follow_sets(store))
        except StoreError as error:  # reads say so too
            log.debug("which rows are served is not known anew: %s", error)
