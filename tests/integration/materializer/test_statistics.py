"""Runs leave statistics in the registry that count every row once, whatever is repeated, killed or late."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from click.testing import CliRunner

from fastserve import FeatureStore
from fastserve.cli.main import cli
from fastserve.registry import run_statistics
from fastserve.statistics import ViewStatistics
from materializer import run
from materializer.moves.here import Here
from materializer.select import Target
from materializer.statistics import Collector
from materializer.summary import Summary
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo

NOW = T0 + 30 * DAY


def rows(days: range, *, created: int | None = None) -> list[dict[str, Any]]:
    """24 rows a day of one to four users, the amount the hour."""
    return [
        {
            "user": f"u{hour % 4}",
            "event_timestamp": T0 + day * DAY + hour * HOUR,
            "created": created or T0 + day * DAY + hour * HOUR,
            "amount": None if hour == 5 else float(hour),
            "visits": day,
            "city": "Köln" if hour % 3 else "Rome",
        }
        for day in days
        for hour in range(24)
    ]


def noted(repo: Repo, *within: int | None) -> ViewStatistics | None:
    with repo.registry() as registry:
        return registry.statistics(repo.view().view_id, *within)


def count(repo: Repo, *within: int | None) -> tuple[int, int, bool]:
    found = noted(repo, *within)
    return (0, 0, False) if found is None else (found.rows, found.runs, found.overlapping)


def test_a_run_that_is_repeated_counts_once(repo: Repo) -> None:
    repo.write(rows(range(10)))
    for _ in range(2):
        repo.materialize(NOW, start_us=T0, end_us=T0 + 10 * DAY)
        found = noted(repo)
        assert found is not None and (found.rows, found.runs) == (240, 1)
    amount = found.to_dict()["features"]["amount"]
    assert (amount["nulls"], amount["min"], amount["max"]) == (10, 0.0, 23.0)
    assert amount["mean"] == pytest.approx((sum(range(24)) - 5) / 23)


def test_a_run_that_failed_or_was_resumed_counts_once(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write(rows(range(100)))  # two groups of dates
    write = Here._write
    calls: list[str] = []

    def fails_once(self: Any, target: Target, days: Sequence[date]) -> int:
        calls.append(target)
        if len(calls) == 4:
            raise OSError("disk full")
        return write(self, target, days)

    monkeypatch.setattr(Here, "_write", fails_once)
    failed: Summary = run.materialize(repo.config, incremental=True, now_us=T0 + 200 * DAY)
    assert failed.status == "failed" and count(repo) == (0, 0, False)
    again = repo.materialize(T0 + 200 * DAY, incremental=True)
    assert again.views[0].partitions_skipped > 0  # it took the other one up
    assert count(repo) == (2_400, 1, False)


def test_incremental_runs_add_late_rows_once(repo: Repo) -> None:
    repo.write(rows(range(10)), "a.parquet")
    repo.materialize(T0 + 10 * DAY, incremental=True)
    late = rows(range(3, 4), created=T0 + 11 * DAY)
    repo.write([*rows(range(10, 12)), *late], "b.parquet")
    repo.materialize(T0 + 12 * DAY, incremental=True)
    assert count(repo) == (240 + 48 + 24, 2, False)
    run.run(repo.config, run.Request(incremental=True, overlap_us=5 * DAY, now_us=T0 + 13 * DAY))
    assert count(repo) == (240 + 48 + 24, 2, False)  # what is read again is not counted again
    assert count(repo, T0 + 3 * DAY) == (72, 1, False)  # the second run's, late rows and all
    assert count(repo, T0, T0 + 10 * DAY) == (240, 1, False)
    assert count(repo, T0 + 20 * DAY) == (0, 0, False)


def test_a_run_takes_the_place_of_those_within_and_tells_of_others(repo: Repo) -> None:
    repo.write(rows(range(12)))
    for day in range(6):
        repo.materialize(NOW, start_us=T0 + day * DAY, end_us=T0 + (day + 1) * DAY - 1)
    assert count(repo) == (144, 6, False)
    repo.materialize(NOW, start_us=T0 + DAY, end_us=T0 + 4 * DAY - 1)
    assert count(repo) == (144, 4, False)
    repo.materialize(NOW, start_us=T0 + 3 * DAY, end_us=T0 + 8 * DAY - 1)
    assert count(repo) == (144 + 48 + 24, 3, True)  # day 3 in two of them
    repo.materialize(NOW, start_us=T0, end_us=T0 + 12 * DAY)
    assert count(repo) == (288, 1, False)


def test_older_runs_are_merged_by_month(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_statistics, "KEEP_RUNS", 3)
    repo.write(rows(range(12)))
    for day in range(12):
        repo.materialize(NOW, start_us=T0 + day * DAY, end_us=T0 + (day + 1) * DAY - 1)
    assert count(repo) == (288, 12, False)
    assert count(repo, T0 + 11 * DAY) == (24, 1, False)
    assert count(repo, T0 + DAY, T0 + 2 * DAY) == (0, 0, False)  # part of a month now


def test_a_fault_in_statistics_costs_no_row_and_is_told(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Collector, batch: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Collector, "_add", broken)
    repo.write(rows(range(2)))
    summary = repo.materialize(NOW, incremental=True)
    assert summary.status == "ok" and summary.views[0].rows_offline_new == 48
    assert summary.to_dict()["views"][0]["statistics_error"] == "ZeroDivisionError: a fault"
    assert count(repo) == (0, 0, False)


def test_describe_and_the_sdk_show_them(repo: Repo) -> None:
    repo.write(rows(range(3)))
    where = ["--repo", str(repo.path)]
    runner = CliRunner()
    none = runner.invoke(cli, ["describe", *where, "stats", "--statistics"], catch_exceptions=False)
    assert "statistics: none" in none.output
    assert repo.cli("--incremental", "--now", "2013-10-28", "--no-statistics")[0] == 0
    assert count(repo) == (0, 0, False)
    repo.materialize(NOW, start_us=T0, end_us=T0 + 3 * DAY)
    shown = runner.invoke(cli, ["describe", *where, "stats", "--statistics"], catch_exceptions=False)
    (line,) = [line for line in shown.output.splitlines() if line.startswith("city ")]
    assert line.split()[:4] == ["city", "string", "72", "0.0%"] and "Köln 67%, Rome 33%" in line
    options = [*where, "stats", "--statistics", "--start", "2014-01-01", "--json"]
    found = json.loads(runner.invoke(cli, ["describe", *options], catch_exceptions=False).output)
    assert found[0]["statistics"] is None
    with FeatureStore(repo.path) as store:
        of_sdk = store.statistics("stats", start=T0, end=T0 + 3 * DAY)
        assert of_sdk is not None and of_sdk.rows == 72
        assert store.statistics("stats", end="2012-01-01") is None
