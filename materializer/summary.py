"""What a run did, as an object for the SDK and as one line of JSON for logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastserve.errors import FastserveError
from fastserve.timeutil import format_timestamp

Status = Literal["ok", "failed", "already_running", "stopped", "not_run"]

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_ALREADY_RUNNING: Final = 3
_COUNTS: Final = (
    "rows_read",
    "rows_offline_new",
    "rows_online_written",
    "partitions_done",
    "partitions_skipped",
)


@dataclass(slots=True)
class ViewSummary:
    """What a run did to one view.

    Attributes:
        view: its name, with `@vN` from version 2 on.
        start_us: the first event time of the window, inclusive; None for all there is.
        end_us: the last event time of the window, inclusive; None where it did not get that far.
        end_clamped: whether an end in the future was taken back to the present.
        rows_read: rows of the source in the window.
        rows_offline_new: rows the offline table did not have.
        rows_online_written: keys of the online store that got a newer row.
        partitions_done, partitions_skipped: (date, target) pairs written, and found finished by a killed run.
        statistics_error: why there are no statistics of the rows, which are written all the same.
        error: why it failed.
    """

    view: str
    status: Status = "not_run"
    start_us: int | None = None
    end_us: int | None = None
    end_clamped: bool = False
    rows_read: int = 0
    rows_offline_new: int = 0
    rows_online_written: int = 0
    partitions_done: int = 0
    partitions_skipped: int = 0
    seconds: float = 0.0
    statistics_error: str = ""
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown: dict[str, Any] = {"view": self.view, "status": self.status}
        if self.end_us is not None:
            start = None if self.start_us is None else format_timestamp(self.start_us)
            shown["window"] = {"start": start, "end": format_timestamp(self.end_us)}
            shown["end_clamped"] = self.end_clamped
        shown |= {name: getattr(self, name) for name in _COUNTS}
        shown["seconds"] = round(self.seconds, 3)
        if self.statistics_error:
            shown["statistics_error"] = self.statistics_error
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown


@dataclass(slots=True)
class Summary:
    """What a run did, view by view.

    Attributes:
        error: why nothing ran at all.
    """

    views: list[ViewSummary] = field(default_factory=list)
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def status(self) -> Status:
        """The worst of the views: stopped, failed, already_running, ok."""
        if self.error is not None:
            return "failed"
        found = {view.status for view in self.views}
        order: tuple[Status, ...] = ("stopped", "not_run", "failed", "already_running")
        return next((status for status in order if status in found), "ok")

    @property
    def exit_code(self) -> int:
        """0 ok, 1 a view failed, 3 a view was being materialized by another run. Signals are the CLI's."""
        return exit_code_of(self.status)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: status, views, totals."""
        totals: dict[str, Any] = {name: sum(getattr(v, name) for v in self.views) for name in _COUNTS}
        totals["seconds"] = round(self.seconds, 3)
        shown: dict[str, Any] = {
            "status": self.status,
            "views": [view.to_dict() for view in self.views],
            "totals": totals,
        }
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown


def exit_code_of(status: str) -> int:
    """The exit code of a command whose work ended so."""
    return {"ok": EXIT_OK, "already_running": EXIT_ALREADY_RUNNING}.get(status, EXIT_FAILED)


def error_dict(error: Exception) -> dict[str, str]:
    """An error as code, message, where and hint."""
    if isinstance(error, FastserveError):
        return {
            "code": type(error).__name__,
            "message": error.message,
            "where": error.where,
            "hint": error.hint,
        }
    return {"code": type(error).__name__, "message": str(error), "where": "", "hint": ""}
