"""Which rows a run is about: closed windows of event time, and what came late.

Both ends of a window are inclusive, so a run up to t holds what a point-in-time join at t sees. Consecutive
incremental runs leave no gap and no overlap: the next one begins one microsecond after the end of the last.

Of either kind only rows created up to the run's present are taken: the others are not known yet, and a later run
finds them by their created time.

    event time     ───────────┤ event_hw                 end
    last run       ███████████│
    this run         · ·   ·  │██████████████████████████│      · rows created after created_hw: late rows, and
                                                                  corrections of rows read before
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fastserve.errors import RequestError
from fastserve.registry import Cursor
from fastserve.timeutil import format_timestamp


@dataclass(frozen=True, slots=True)
class Window:
    """Rows with `start_us <= event_ts <= end_us`, or `created_ts > created_after_us` and `event_ts <= end_us`.

    Attributes:
        start_us: microseconds UTC; None for all there is.
        end_us: never after the run's present.
        created_after_us: None for no such rows.
        end_clamped: whether a later end was asked for.
        floor_us: no row of an earlier event time, whenever it was created; None for all. Retention has it.
    """

    start_us: int | None
    end_us: int
    created_after_us: int | None = None
    end_clamped: bool = False
    floor_us: int | None = None

    def from_floor(self, floor_us: int | None) -> Window:
        """The same without what is earlier than a floor."""
        if floor_us is None:
            return self
        start = floor_us if self.start_us is None else max(self.start_us, floor_us)
        return replace(self, start_us=start, floor_us=floor_us)

    @property
    def is_empty(self) -> bool:
        """Whether there can be no row: a window that begins in the future."""
        return self.created_after_us is None and self.start_us is not None and self.start_us > self.end_us


def check_bounds(start_us: int | None, end_us: int | None) -> None:
    """Raise RequestError for a start after the end."""
    if start_us is not None and end_us is not None and start_us > end_us:
        raise RequestError(
            f"start {format_timestamp(start_us)} is after end {format_timestamp(end_us)}",
            where="--start",
            hint="swap them",
        )


def explicit(start_us: int | None, end_us: int | None, now_us: int) -> Window:
    """The window asked for, up to the present: rows of the future belong to a later run."""
    end = now_us if end_us is None else min(end_us, now_us)
    return Window(start_us, end, end_clamped=end_us is not None and end_us > now_us)


def incremental(
    cursors: Iterable[Cursor | None], end_us: int | None, now_us: int, overlap_us: int = 0
) -> Window:
    """What is new since the cursors: of several targets, what the one furthest behind lacks.

    Args:
        cursors: one per target, at least one; None for a target never filled, which gives everything.
        overlap_us: read that much again, for sources whose rows become visible after their created time.
    """
    whole = explicit(None, end_us, now_us)
    events, created = [], []
    for cursor in cursors:
        # No created time: no row was ever seen, so there is nothing that a new row could be late for.
        if cursor is None or cursor.event_hw_us is None or cursor.created_hw_us is None:
            return whole
        events.append(cursor.event_hw_us)
        created.append(cursor.created_hw_us)
    return Window(
        start_us=min(events) + 1 - overlap_us,
        end_us=whole.end_us,
        created_after_us=min(created) - overlap_us,
        end_clamped=whole.end_clamped,
    )
