"""Rewriting the files of an offline table: joined, dropped, deleted. The rows that stay are the same rows.

Two rewrites of one table at the same time would each replace the same files by a copy of their rows, and the table
would hold both copies: Delta does not refuse that. So whoever rewrites holds the view's rewrite lock, and looks at
the table only then. Writers that add rows need no lock. Where a delete or an overwrite and a compaction touch the
same files, Delta does refuse the later commit, and its owner looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Final

from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError

from fastserve.offline.delta import OfflineTable
from fastserve.offline.schema import EVENT_DATE

if TYPE_CHECKING:
    from fastserve.registry import Registry

COMPACT_FILES: Final = 32
COMPACT_BYTES: Final = (
    16 << 20
)  # a larger file is left alone: rows of a day are written again a few times, no more
_WRITER: Final = WriterProperties(compression="ZSTD")


@contextmanager
def rewriting(registry: Registry, table: OfflineTable) -> Iterator[Rewrite]:
    """Hold a table's files; who holds them may rewrite them.

    Raises:
        AlreadyRunningError: another process or thread rewrites them.
    """
    with registry.lock_rewrite(table.rv.view_id):
        yield Rewrite(table)


class Rewrite:
    """The rewrites of a table whose lock is held; `rewriting` makes it. Each looks at the newest version."""

    def __init__(self, table: OfflineTable) -> None:
        self._table = table

    def compact(self, days: Iterable[date], files: int = COMPACT_FILES) -> int:
        """Join the small files of those dates that have at least so many; the rows stay the same.

        Every append adds a file a date, and the cost of the next one grows with them. Earlier versions of the
        table stay readable. Writers may go on; where one was faster, nothing is done this time.

        Returns:
            How many files were replaced.
        """
        table = self._table.open()
        if table is None:
            return 0
        many = [day.isoformat() for day in days if len(_paths(table, day)) >= files]
        if not many:
            return 0
        try:
            done = table.optimize.compact(
                [(EVENT_DATE, "in", many)],
                target_size=COMPACT_BYTES,
                writer_properties=_WRITER,
            )
        except CommitFailedError:
            return 0
        return int(done["numFilesRemoved"])


def _paths(table: DeltaTable, day: date) -> list[str]:
    """The files of a date."""
    found: list[str] = table.file_uris(file_pruning_predicate=[(EVENT_DATE, "=", day.isoformat())])
    return found
