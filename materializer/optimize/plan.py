"""Which dates of a table are worth rewriting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from fastserve.offline.inventory import Day
from fastserve.offline.rewrite import GROUP_ROWS, TARGET_BYTES

ORDER_ROWS: Final = 2 * GROUP_ROWS
"""With fewer rows a date has no row group that a reader of few entities could leave out."""

ORDER_SHARE: Final = 10  # ordered again once more than a tenth of the rows are new
COMMIT_DAYS: Final = 64
COMMIT_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What to rewrite, by date.

    Attributes:
        order: to be ordered by entity, which joins their files too.
        join: with two small files or more.
    """

    order: tuple[Day, ...]
    join: tuple[Day, ...]


def make_plan(days: Sequence[Day], ordered: Mapping[str, int], today: date, *, keyed: bool) -> Plan:
    """The plan for a table.

    Args:
        ordered: date -> rows when it was ordered last.
        today: dates from then on still grow, and are not ordered.
        keyed: whether the view has entities, and dates are to be ordered by them.
    """
    order = [day for day in days if keyed and day.day < today and _pays(day, ordered)]
    rest = [day for day in days if day not in order]
    return Plan(tuple(order), tuple(day for day in rest if day.small(TARGET_BYTES // 2) > 1))


def _pays(day: Day, ordered: Mapping[str, int]) -> bool:
    new = day.rows - ordered.get(day.day.isoformat(), 0)
    return day.rows >= ORDER_ROWS and abs(new) * ORDER_SHARE > day.rows


def grouped(days: Sequence[Day]) -> Iterator[list[date]]:
    """Dates to be joined in one commit: few commits, and little to do again where one is in vain."""
    group: list[date] = []
    size = 0
    for day in days:
        if group and (len(group) >= COMMIT_DAYS or size + day.bytes > COMMIT_BYTES):
            yield group
            group, size = [], 0
        group.append(day.day)
        size += day.bytes
    if group:
        yield group
