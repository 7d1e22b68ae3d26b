"""How far back a view's history reaches: whole UTC dates, so that to remove them is one small commit.

    now - retention falls into a date   ──┤ date ├────────────────── now
                          removed ────────│ kept

A row is kept at least as long as the view says, and at most a day longer. Retention is never shorter than the ttl
(definitions/validate.py), so that what is removed is no answer of today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastserve.definitions import FeatureView
from fastserve.timeutil import DAY_US

if TYPE_CHECKING:
    from fastserve.registry import Upkeep


def kept_from(view: FeatureView, now_us: int) -> int | None:
    """The first event time that is kept, a midnight; None for a view that keeps all."""
    return None if view.retention_us is None else (now_us - view.retention_us) // DAY_US * DAY_US


def written_from(view: FeatureView, done: Upkeep, now_us: int) -> int | None:
    """The first event time that a materialization writes: never what retention removed, whenever its present is.

    A view that keeps rows longer than when they were removed may have them again.
    """
    kept = kept_from(view, now_us)
    if kept is None or done.removed_before_us is None:
        return kept
    longer = done.removed_retention_us is not None and (view.retention_us or 0) > done.removed_retention_us
    return kept if longer else max(kept, done.removed_before_us)
