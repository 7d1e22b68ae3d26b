"""The summary of a run: the worst view names it, and the exit code follows."""

from __future__ import annotations

import json

import pytest

from fastserve.errors import ConfigError
from materializer.summary import Status, Summary, ViewSummary

CASES: list[tuple[list[Status], Status, int]] = [
    ([], "ok", 0),
    (["ok", "ok"], "ok", 0),
    (["ok", "already_running"], "already_running", 3),
    (["already_running", "failed", "ok"], "failed", 1),
    (["failed", "stopped", "not_run"], "stopped", 1),
]


@pytest.mark.parametrize(("statuses", "status", "code"), CASES)
def test_the_worst_view_counts(statuses: list[Status], status: Status, code: int) -> None:
    summary = Summary([ViewSummary("v", found) for found in statuses])
    assert (summary.status, summary.exit_code) == (status, code)
    assert summary.to_dict()["status"] == status


def test_totals_add_up_and_times_are_readable() -> None:
    views = [
        ViewSummary("a", "ok", None, 86_400_000_000, rows_read=2, partitions_done=3),
        ViewSummary("b", "failed", 0, 500_000, end_clamped=True, rows_read=5),
        ViewSummary("c", "already_running"),
    ]
    views[1].error = ConfigError("wrong", where="here", hint="mend it")
    shown = json.loads(json.dumps(Summary(views).to_dict()))
    assert (shown["totals"]["rows_read"], shown["totals"]["partitions_done"]) == (7, 3)
    assert shown["views"][0]["window"] == {"start": None, "end": "1970-01-02T00:00:00Z"}
    assert shown["views"][1]["window"] == {
        "start": "1970-01-01T00:00:00Z",
        "end": "1970-01-01T00:00:00.500000Z",
    }
    assert shown["views"][1]["error"] == {
        "code": "ConfigError",
        "message": "wrong",
        "where": "here",
        "hint": "mend it",
    }
    assert "window" not in shown["views"][2]


def test_an_error_before_any_view_is_a_failure() -> None:
    shown = Summary(error=OSError("disk full")).to_dict()
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "OSError", "message": "disk full", "where": "", "hint": ""}
