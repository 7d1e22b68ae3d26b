"""The registry of definitions: revisions, plans, snapshots, and the ledger of materialization runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastserve.registry.plan import ApplyResult, AttributeChange, Change, Plan, Revision
from fastserve.registry.runs import Cursor, Interval, Partition, Run, coalesce, uncovered
from fastserve.registry.snapshot import Pin, RegisteredView, Snapshot

if TYPE_CHECKING:
    from fastserve.registry.backfills import Backfill, DateState
    from fastserve.registry.datasets import TrainingDataset, UsedView
    from fastserve.registry.jobs import Job, JobStore
    from fastserve.registry.registry import Registry, open_registry
    from fastserve.registry.run_statistics import RunStatistics
    from fastserve.registry.upkeep import Upkeep

__all__ = [
    "ApplyResult",
    "AttributeChange",
    "Backfill",
    "Change",
    "Cursor",
    "DateState",
    "Interval",
    "Job",
    "JobStore",
    "Partition",
    "Pin",
    "Plan",
    "RegisteredView",
    "Registry",
    "Revision",
    "Run",
    "RunStatistics",
    "Snapshot",
    "TrainingDataset",
    "Upkeep",
    "UsedView",
    "coalesce",
    "open_registry",
    "uncovered",
]


def __getattr__(name: str) -> Any:
    """Load SQLAlchemy on first use: most readers need only the value classes."""
    if name in ("Registry", "open_registry"):
        from fastserve.registry import registry  # noqa: PLC0415

        return getattr(registry, name)
    if name == "RunStatistics":
        from fastserve.registry import run_statistics  # noqa: PLC0415

        return run_statistics.RunStatistics
    if name in ("Backfill", "DateState"):
        from fastserve.registry import backfills  # noqa: PLC0415

        return getattr(backfills, name)
    if name in ("Job", "JobStore"):
        from fastserve.registry import jobs  # noqa: PLC0415

        return getattr(jobs, name)
    if name == "Upkeep":
        from fastserve.registry import upkeep  # noqa: PLC0415

        return upkeep.Upkeep
    if name in ("TrainingDataset", "UsedView"):
        from fastserve.registry import datasets  # noqa: PLC0415

        return getattr(datasets, name)
    raise AttributeError(f"module 'fastserve.registry' has no attribute {name!r}")
