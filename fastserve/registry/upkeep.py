"""The upkeep of offline tables in SQL: when their files were last put in order, and what retention removed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from fastserve.registry.runs import Interval, coalesce
from fastserve.registry.schema import intervals, upkeep


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What was done to a view's offline table.

    Attributes:
        optimized_us: when all of it was done last; None for never.
        removed_before_us: rows of earlier event times were removed by retention; None when none ever was.
        removed_retention_us: the view's retention then.
        ordered: date -> rows it had when they were ordered by entity.
    """

    view_id: int
    optimized_us: int | None = None
    removed_before_us: int | None = None
    removed_retention_us: int | None = None
    ordered: Mapping[str, int] = field(default_factory=dict)


def read_upkeep(connection: sa.Connection, view_id: int) -> Upkeep:
    """A view's; an empty one before the first."""
    row = connection.execute(sa.select(upkeep).where(upkeep.c.view_id == view_id)).one_or_none()
    if row is None:
        return Upkeep(view_id)
    return Upkeep(**{**row._mapping, "ordered": json.loads(row.ordered)})


def write_upkeep(connection: sa.Connection, view_id: int, **changes: Any) -> None:
    """Change attributes of a view's."""
    now = replace(read_upkeep(connection, view_id), **changes)
    values = {
        "optimized_us": now.optimized_us,
        "removed_before_us": now.removed_before_us,
        "removed_retention_us": now.removed_retention_us,
        "ordered": json.dumps(dict(now.ordered), sort_keys=True),
    }
    changed = connection.execute(sa.update(upkeep).where(upkeep.c.view_id == view_id).values(**values))
    if changed.rowcount == 0:
        connection.execute(sa.insert(upkeep).values(view_id=view_id, **values))


def remove_before(connection: sa.Connection, view_id: int, before_us: int, retention_us: int) -> None:
    """Note that earlier rows go, and that the table covers those times no more."""
    offline = (intervals.c.view_id == view_id, intervals.c.target == "offline")
    ranges = connection.execute(sa.select(intervals.c.start_us, intervals.c.end_us).where(*offline))
    covered = [Interval(view_id, "offline", row.start_us, row.end_us) for row in ranges]
    done = missing_before(read_upkeep(connection, view_id).removed_before_us, covered)
    if done is None or done < before_us:
        write_upkeep(connection, view_id, removed_before_us=before_us, removed_retention_us=retention_us)
    connection.execute(sa.delete(intervals).where(*offline, intervals.c.end_us <= before_us))
    earlier = sa.or_(intervals.c.start_us.is_(None), intervals.c.start_us < before_us)
    connection.execute(sa.update(intervals).where(*offline, earlier).values(start_us=before_us))


def missing_before(removed_us: int | None, covered: Iterable[Interval]) -> int | None:
    """Before which event time rows are missing that retention removed; None where nothing is.

    Args:
        removed_us: `Upkeep.removed_before_us`.
        covered: what the table holds; where that reaches further back, it was filled again from there on.
    """
    if removed_us is None:
        return None
    for found in coalesce(covered):
        if (found.start_us is None or found.start_us < removed_us) and found.end_us >= removed_us:
            return found.start_us
    return removed_us
