"""What an optimization did, as an object, as one line of JSON for logs and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastserve.timeutil import format_timestamp
from materializer.summary import EXIT_ALREADY_RUNNING, EXIT_FAILED, EXIT_OK, Status, error_dict

_COUNTS: Final = (
    "dates_removed",
    "rows_removed",
    "dates_joined",
    "dates_ordered",
    "files_before",
    "files_after",
    "bytes_before",
    "bytes_after",
    "files_deleted",
    "bytes_deleted",
)


@dataclass(slots=True)
class ViewReport:
    """What was done to one view's table; in a dry run, what would be.

    Attributes:
        view: its name, with `@vN` from version 2 on; of a table of streamed events ``payments:card_id``.
        status: ``already_running`` where another process held the view or its files; the error says which.
        kept_from_us: the first event time that the view's retention keeps; None for all.
        dates_removed, rows_removed: older than that.
        dates_joined, dates_ordered: dates whose small files were joined, or whose rows were ordered by entity.
        files_before, files_after, bytes_before, bytes_after: of the table's newest version; equal in a dry run.
        files_deleted, bytes_deleted: that no version needs which is still to be read.
        pinned: versions that training data sets were made from, whose files were kept.
    """

    view: str
    status: Status = "not_run"
    kept_from_us: int | None = None
    dates_removed: int = 0
    rows_removed: int = 0
    dates_joined: int = 0
    dates_ordered: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    pinned: Sequence[int] = ()
    seconds: float = 0.0
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown: dict[str, Any] = {"view": self.view, "status": self.status}
        if self.kept_from_us is not None:
            shown["kept_from"] = format_timestamp(self.kept_from_us)
        shown |= {name: getattr(self, name) for name in _COUNTS}
        shown["versions_pinned"] = list(self.pinned)
        shown["seconds"] = round(self.seconds, 3)
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown


@dataclass(slots=True)
class Report:
    """What was done, view by view."""

    views: list[ViewReport] = field(default_factory=list)
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        """The worst of the views: stopped, failed, already_running, ok."""
        found = {view.status for view in self.views}
        order: tuple[Status, ...] = ("stopped", "not_run", "failed", "already_running")
        return next((status for status in order if status in found), "ok")

    @property
    def exit_code(self) -> int:
        """0 ok, 1 a view failed, 3 a view was busy. Signals are the CLI's."""
        codes = {"ok": EXIT_OK, "already_running": EXIT_ALREADY_RUNNING}
        return codes.get(self.status, EXIT_FAILED)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: status, views, totals."""
        totals: dict[str, Any] = {name: sum(getattr(v, name) for v in self.views) for name in _COUNTS}
        totals["seconds"] = round(self.seconds, 3)
        return {
            "status": self.status,
            "dry_run": self.dry_run,
            "views": [view.to_dict() for view in self.views],
            "totals": totals,
        }

    def show(self) -> None:
        """Print a table to standard output."""
        from rich.console import Console  # noqa: PLC0415  (costs more than --json)
        from rich.table import Table  # noqa: PLC0415

        table = Table("view", "status", title="would be done" if self.dry_run else None)
        for name in ("files", "size", "joined", "ordered", "removed", "deleted"):
            table.add_column(name, justify="right")
        for view in self.views:
            table.add_row(view.view, view.status, *_cells(view))
        Console().print(table)


def _cells(view: ViewReport) -> list[str]:
    files, size = f"{view.files_before:,}", _size(view.bytes_before)
    if view.files_after != view.files_before:
        files = f"{files} → {view.files_after:,}"
    if view.bytes_after != view.bytes_before:
        size = f"{size} → {_size(view.bytes_after)}"
    removed = f"{view.dates_removed:,} dates, {view.rows_removed:,} rows" if view.dates_removed else ""
    deleted = f"{view.files_deleted:,} files, {_size(view.bytes_deleted)}" if view.files_deleted else ""
    counts = [f"{count:,} dates" if count else "" for count in (view.dates_joined, view.dates_ordered)]
    return [files, size, *counts, removed, deleted]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
