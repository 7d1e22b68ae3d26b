"""What is asked of a backfill, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from fastserve.errors import RequestError
from fastserve.timeutil import format_timestamp
from materializer.engine import check_engine
from materializer.summary import EXIT_ALREADY_RUNNING, EXIT_FAILED, EXIT_OK, error_dict
from materializer.window import check_bounds

_SHOWN_BY_HAND: Final = ("view", "status", "start_us", "end_us", "seconds", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """What to backfill.

    Attributes:
        view: `NAME` or `NAME@vN`.
        start_us, end_us: event times, microseconds UTC; the dates of both are backfilled whole. None for the first
            date of the source, and for the present.
        target: `online`, `offline` or `both`; None for what the view declares.
        workers: so many read and write at once, in processes of their own if more than one; None for 1, or for as many
            as Spark has cores.
        again: do dates that are complete again.
        now_us: the present, for a replay; None for the wall clock.
        engine, master: where the work is done, see materializer.engine.open_engine.
    """

    view: str
    start_us: int | None = None
    end_us: int | None = None
    target: str | None = None
    workers: int | None = None
    again: bool = False
    now_us: int | None = None
    engine: str = "local"
    master: str | None = None


def check_request(request: BackfillRequest) -> None:
    """Look at it before anything is done.

    Raises:
        RequestError: a start after the end, no worker, no such engine.
    """
    check_bounds(request.start_us, request.end_us)
    if request.workers is not None and request.workers < 1:
        raise RequestError(f"{request.workers} workers", where="--workers", hint="1 or more")
    check_engine(request.engine, request.master)


@dataclass(slots=True)
class BackfillSummary:
    """What a backfill did.

    Attributes:
        start_us, end_us: the event times of its dates, both inclusive.
        dates: of the source in that window.
        dates_done: (date, store) pairs written; dates_unchanged: read, and found as they were; dates_skipped: whose
            files did not change since they were complete, so they were not read.
        rows_read: rows of the dates written or found unchanged.
        rows_offline_new, rows_online_written: as of `run`.
        bytes: of the files added to the offline table.
        seconds: wall clock.
    """

    view: str
    status: Literal["ok", "failed", "already_running", "stopped"] = "ok"
    start_us: int | None = None
    end_us: int | None = None
    workers: int = 1
    dates: int = 0
    dates_done: int = 0
    dates_unchanged: int = 0
    dates_skipped: int = 0
    rows_read: int = 0
    rows_offline_new: int = 0
    rows_online_written: int = 0
    bytes: int = 0
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 3 another run holds the view. Signals are the CLI's."""
        codes = {"ok": EXIT_OK, "already_running": EXIT_ALREADY_RUNNING}
        return codes.get(self.status, EXIT_FAILED)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown: dict[str, Any] = {"view": self.view, "status": self.status}
        if self.end_us is not None and self.start_us is not None:
            shown["window"] = {"start": format_timestamp(self.start_us), "end": format_timestamp(self.end_us)}
        shown |= {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _SHOWN_BY_HAND}
        shown["seconds"] = round(self.seconds, 3)
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown
