"""Rewriting the files of an offline table: joined, ordered, dropped, deleted. The rows that stay are the same rows.

Two rewrites of one table at the same time would each replace the same files by a copy of their rows, and the table
would hold both copies: Delta does not refuse that. So whoever rewrites holds the view's rewrite lock, and looks at
the table only then. Writers that add rows need no lock. Where a delete or an overwrite and a compaction touch the
same files, Delta does refuse the later commit, and its owner looks again.

Each rewrite is one commit: killed at any moment, it is done or it is not. Files that nothing refers to any more stay,
for readers of earlier versions, until `vacuum`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from fastserve.errors import MaterializeError
from fastserve.offline.delta import OfflineTable, tended
from fastserve.offline.inventory import inventory, totals
from fastserve.offline.parquet import writer_properties
from fastserve.offline.schema import EVENT_DATE
from fastserve.timeutil import now_us

if TYPE_CHECKING:
    from fastserve.registry import Registry

COMPACT_FILES: Final = 32
COMPACT_BYTES: Final = (
    16 << 20
)  # a larger file is left alone: rows of a day are written again a few times, no more
TARGET_BYTES: Final = 128 << 20  # of a file, when time is taken for it
GROUP_ROWS: Final = 131_072  # of an ordered file: its statistics tell few entities apart in larger ones
SPILL_BYTES: Final = 1 << 30
ATTEMPTS: Final = 5
LOG_DAYS: Final = 30  # as _CONFIGURATION of delta.py has it
_LOG: Final = "delta.logRetentionDuration"
_HOUR_US: Final = 3_600_000_000
_DAY_MS: Final = 86_400_000


@contextmanager
def rewriting(registry: Registry, table: OfflineTable) -> Iterator[Rewrite]:
    """Hold a table's files; who holds them may rewrite them.

    Raises:
        AlreadyRunningError: another process or thread rewrites them.
    """
    with registry.lock_rewrite(table.rv.view_id):
        yield Rewrite(table)


class Rewrite:
    """The rewrites of a table whose lock is held; `rewriting` makes it. Each looks at the newest version.

    They raise OfflineStoreError when the table cannot be read or written.
    """

    def __init__(self, table: OfflineTable) -> None:
        self._table = table

    def compact(
        self, days: Iterable[date], files: int = COMPACT_FILES, target_bytes: int = COMPACT_BYTES
    ) -> int:
        """Join the small files of those dates that have at least so many; the rows stay the same.

        Every append adds a file a date, and the cost of the next one grows with them. Earlier versions of the
        table stay readable. Writers may go on; where one was faster, nothing is done this time.

        Args:
            target_bytes: files as large as that are left alone.

        Returns:
            How many files were replaced.
        """
        with tended(self._table.uri):
            table = self._table.open()
            if table is None:
                return 0
            many = [day.isoformat() for day in days if len(_paths(table, day)) >= files]
            if not many:
                return 0
            try:
                done = table.optimize.compact(
                    [(EVENT_DATE, "in", many)],
                    target_size=target_bytes,
                    writer_properties=writer_properties(pa.schema(table.schema())),
                )
            except CommitFailedError:
                return 0
            return int(done["numFilesRemoved"])

    def order(self, day: date, columns: Sequence[str]) -> bool:
        """Write a date's rows anew along a Z-order curve over columns; False where a writer was faster."""
        with tended(self._table.uri):
            table = self._table.open()
            if table is None:
                return False
            try:
                table.optimize.z_order(
                    columns,
                    [(EVENT_DATE, "=", day.isoformat())],
                    target_size=TARGET_BYTES,
                    max_concurrent_tasks=1,
                    max_spill_size=SPILL_BYTES,
                    writer_properties=writer_properties(
                        pa.schema(table.schema()), max_row_group_size=GROUP_ROWS
                    ),
                )
            except CommitFailedError:
                return False
            return True

    def drop_before(self, day: date) -> tuple[int, int]:
        """Remove all rows of earlier dates; (files, rows) removed.

        Raises:
            MaterializeError: others wrote to these dates each time we tried; nothing was removed.
        """
        for _ in range(ATTEMPTS):
            with tended(self._table.uri):
                table = self._table.open()
                files, _, rows = totals([each for each in inventory(table) if each.day < day])
                if table is None or not files:
                    return 0, 0
                try:
                    table.delete(f"{EVENT_DATE} < '{day.isoformat()}'")
                except CommitFailedError:
                    continue
                return files, rows
        raise MaterializeError(
            "other writers changed the old dates each time we tried; nothing was removed",
            where=self._table.uri,
            hint="run it again",
        )

    def vacuum(self, versions: Collection[int], after_us: int, *, dry_run: bool = False) -> tuple[int, int]:
        """Delete files that no version within `after_us` of the present needs, nor one of `versions`.

        What a killed writer left behind goes too. Of the versions, those the log no longer reaches are passed over.

        Returns:
            (files, bytes) deleted; or, in a dry run, that would be.
        """
        with tended(self._table.uri):
            table = self._table.open()
            if table is None:
                return 0, 0
            kept = sorted(v for v in versions if _opens(self._table, v))

            def run(dry: bool) -> list[str]:
                found: list[str] = table.vacuum(
                    -(-after_us // _HOUR_US),
                    dry_run=dry,
                    enforce_retention_duration=False,
                    full=True,
                    keep_versions=kept or None,
                )
                return found

            paths = run(dry=True)
            size = _bytes(table, paths)
            if paths and not dry_run:
                run(dry=False)
            return len(paths), size

    def keep_log(self, versions: Collection[int]) -> None:
        """Have the log kept as far back as the oldest of these versions; else for 30 days.

        Writers drop older parts of the log themselves, and a version that they drop cannot be read any more,
        whatever files are there.
        """
        with tended(self._table.uri):
            table = self._table.open()
            if table is None:
                return
            opened = [old for v in versions if (old := _opens(self._table, v)) is not None]
            made = [old.history(1)[0]["timestamp"] for old in opened]
            days = LOG_DAYS
            while made and days < (now_us() // 1_000 - min(made)) // _DAY_MS + LOG_DAYS:
                days *= 2
            wanted = f"interval {days} days"
            if table.metadata().configuration.get(_LOG) != wanted:
                table.alter.set_table_properties({_LOG: wanted})


def _opens(table: OfflineTable, version: int) -> DeltaTable | None:
    """The table at a version; None when its log no longer reaches that."""
    try:
        return DeltaTable(table.uri, version=version)
    except Exception:  # deltalake has several for it
        return None


def _bytes(table: DeltaTable, paths: Sequence[str]) -> int:
    files = table.to_pyarrow_dataset().filesystem
    return sum(info.size or 0 for info in files.get_file_info(list(paths))) if paths else 0


def _paths(table: DeltaTable, day: date) -> list[str]:
    """The files of a date."""
    found: list[str] = table.file_uris(file_pruning_predicate=[(EVENT_DATE, "=", day.isoformat())])
    return found
