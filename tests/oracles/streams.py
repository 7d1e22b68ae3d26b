"""Which events of a log count, one by one; nothing is shared with the product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Counted:
    """What became of a log's events."""

    kept: list[int] = field(default_factory=list)
    late: int = 0
    duplicates: int = 0
    watermark: int | None = None


def counted(events: Sequence[tuple[str | None, int]], lateness: int) -> Counted:
    """Of (id, event_ts) in the order of the log; an id that comes again has the same time."""
    found, seen = Counted(), set[str]()
    for i, (event_id, ts) in enumerate(events):
        before = ts if found.watermark is None else found.watermark
        found.watermark = max(before, ts)
        if ts < before - lateness:
            found.late += 1
        elif event_id is not None and event_id in seen:
            found.duplicates += 1
        else:
            found.kept.append(i)
            if event_id is not None:
                seen.add(event_id)
    return found
