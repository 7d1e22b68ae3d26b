"""What materialization runs leave in the registry: covered intervals, cursors, the partition ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fastserve.errors import RegistryError

Target = Literal["online", "offline"]
RunTarget = Literal["online", "offline", "both"]
Status = Literal["running", "complete", "failed"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Event times ``[start_us, end_us)`` that a target holds; written only after success.

    Attributes:
        start_us: microseconds UTC; None when everything before `end_us` is covered.
        rows: rows written.
        run_id: the run that wrote it; None for several runs taken together.
        finished_us: when it was written; 0 lets the registry fill in the present.
    """

    view_id: int
    target: Target
    start_us: int | None
    end_us: int
    rows: int = 0
    run_id: int | None = None
    finished_us: int = 0

    def __post_init__(self) -> None:
        if self.start_us is not None and self.start_us >= self.end_us:
            raise RegistryError(
                f"an interval [{self.start_us}, {self.end_us}) is empty", where=f"view id {self.view_id}"
            )


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a view's source has been read for a target: the highest times seen, microseconds UTC."""

    view_id: int
    target: Target
    event_hw_us: int | None = None
    created_hw_us: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One materialization run of a view.

    Attributes:
        start_us, end_us: the event times it covers, ``[start_us, end_us)``; start None for all history.
        fingerprint: what the caller wants unchanged when it resumes (definition, source, options).
        pid, host: the process that runs, or ran, it.
    """

    run_id: int
    view_id: int
    target: RunTarget
    start_us: int | None
    end_us: int
    status: Status
    fingerprint: str
    started_us: int
    finished_us: int | None
    error: str
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class Partition:
    """A finished part of a run: one date of one target; `finished_us` is set when it is noted."""

    run_id: int
    date: str
    target: Target
    rows: int
    digest: str = ""
    finished_us: int = 0


def coalesce(intervals: Iterable[Interval]) -> list[Interval]:
    """Overlapping and touching intervals of one view and target as one, by ascending start.

    Rows add up; `finished_us` is the latest; `run_id` stays only where a single interval went in.
    """
    merged: list[Interval] = []
    for item in sorted(intervals, key=_start):
        last = merged[-1] if merged else None
        if last is None or (item.start_us is not None and item.start_us > last.end_us):
            merged.append(item)
            continue
        merged[-1] = replace(
            last,
            end_us=max(last.end_us, item.end_us),
            rows=last.rows + item.rows,
            run_id=None,
            finished_us=max(last.finished_us, item.finished_us),
        )
    return merged


def uncovered(
    intervals: Iterable[Interval], start_us: int | None, end_us: int
) -> list[tuple[int | None, int]]:
    """The parts of ``[start_us, end_us)`` that no interval covers, ascending; empty when all is covered."""
    gaps: list[tuple[int | None, int]] = []
    at = start_us
    for item in coalesce(intervals):
        if at is not None and item.end_us <= at:
            continue
        if item.start_us is not None and (at is None or item.start_us > at):
            if item.start_us >= end_us:
                break
            gaps.append((at, item.start_us))
        at = item.end_us
        if at >= end_us:
            return gaps
    gaps.append((at, end_us))
    return gaps


def _start(interval: Interval) -> tuple[bool, int]:
    return (interval.start_us is not None, interval.start_us or 0)
