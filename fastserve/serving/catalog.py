"""The registry as the server sees it: the newest snapshot, and the plans compiled from it.

A watcher asks for the revision every half second, off the event loop. A new revision replaces snapshot and
plans in one assignment: a request holds the plan it started with, so none fails on a change. When the registry cannot
be reached the server goes on with what it has, and `health` says since when.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from typing import Final, TypeAlias

from fastserve.definitions import merge_refs
from fastserve.errors import FastserveError, RegistryError
from fastserve.registry import Registry, Snapshot
from fastserve.serving.plan import ReadPlan, compile_plan
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

    Attributes:
        current: the snapshot that is served, and its plans; replaced in one assignment.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.current: tuple[Snapshot, Plans] = (registry.snapshot(), OrderedDict())
        self.stale_since_us: int | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._data_version: int | None = None  # of the registry, when its revision was asked for

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

    def warm(self) -> None:
        """Compile the plans of the services now, rather than at their first requests."""
        self._warm(*self.current)

    def _warm(self, snapshot: Snapshot, plans: Plans) -> None:
        for name in list(snapshot.services)[:MAX_PLANS]:
            try:
                self._compiled(snapshot, plans, name, (), False)
            except FastserveError as error:  # whoever asks for it is told why
                log.warning("service %s: %s", name, error)

    @staticmethod
    def _compiled(
        snapshot: Snapshot, plans: Plans, service: str, features: tuple[str, ...], full_feature_names: bool
    ) -> ReadPlan:
        parts = snapshot.service(service).features if service else merge_refs(features)
        plan = compile_plan(snapshot, parts, service=service, full_feature_names=full_feature_names)
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
            snapshot, plans = self._registry.snapshot(), Plans()
            self._warm(snapshot, plans)
            self.current = (snapshot, plans)
        self._data_version = version
        return changed

    def watch(self) -> None:
        """Start following the registry on the running loop."""
        self._watcher = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self._registry.close()

    async def _follow(self) -> None:
        while True:
            # Jitter: the workers of a host do not swap, and compile, in the same instant.
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1.2))
            try:
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
