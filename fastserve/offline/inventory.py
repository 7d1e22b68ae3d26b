"""What files an offline table has, date by date; from its log alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
from deltalake import DeltaTable

from fastserve.offline.schema import EVENT_DATE


@dataclass(frozen=True, slots=True)
class Day:
    """The files of one date.

    Attributes:
        sizes: bytes of each file.
        rows: in all of them.
    """

    day: date
    sizes: tuple[int, ...]
    rows: int

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.sizes)

    def small(self, size: int) -> int:
        """How many files are no larger than `size` bytes."""
        return sum(each <= size for each in self.sizes)


def inventory(table: DeltaTable | None) -> list[Day]:
    """The dates that have files, ascending; none without a table."""
    if table is None:
        return []
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return []
    found: dict[date, tuple[list[int], list[int]]] = {}
    columns = (actions[name].to_pylist() for name in (f"partition.{EVENT_DATE}", "size_bytes", "num_records"))
    for day, size, rows in zip(*columns, strict=True):
        sizes, counts = found.setdefault(day, ([], []))
        sizes.append(size)
        counts.append(rows or 0)
    return [Day(day, tuple(sizes), sum(counts)) for day, (sizes, counts) in sorted(found.items())]


def totals(days: Sequence[Day]) -> tuple[int, int, int]:
    """(files, bytes, rows) of all dates."""
    return sum(len(day.sizes) for day in days), sum(day.bytes for day in days), sum(day.rows for day in days)
