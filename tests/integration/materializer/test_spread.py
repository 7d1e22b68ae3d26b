"""A run by tasks leaves the rows, statistics and ledger that one in one process leaves. On Spark: tests/spark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fastserve.definitions import FeatureView, Field, FileInput, SQLSource
from fastserve.errors import InvalidDataError
from fastserve.offline.delta import OfflineTable
from fastserve.registry import Interval, Registry
from fastserve.types import Float64
from materializer import run as run_module
from materializer.engine import Engine
from materializer.engine.processes import Inline, Processes
from materializer.moves import spread
from materializer.run import Summary, materialize
from materializer.shards import plan
from materializer.statistics import Collector
from tests.integration.materializer.repo import DAY, HOUR, T0, USER, Repo
from tests.integration.materializer.test_crash import fill
from tests.integration.materializer.test_statistics import noted
from tests.unit.materializer.test_statistics import approx

N_DAYS = 15
NOW = T0 + 30 * DAY
DONE = T0 + N_DAYS * DAY


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "DEAL_ROWS", 50)
    monkeypatch.setattr(spread, "WRITE_ROWS", 80)


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """What `engine="spark"` is, one after the other; with none left, tasks run in this process."""
    made: list[Engine] = []
    monkeypatch.setattr(
        run_module, "open_engine", lambda config, stop, **asked: made.pop() if made else Inline(stop)
    )
    return made


@pytest.fixture
def twin(repo: Repo, tmp_path: Path) -> Repo:
    """Another with the same rows, to be filled by one process."""
    fill(repo, N_DAYS)
    return repo.copy(tmp_path / "twin")


def covered(registry: Registry, view_id: int, target: str) -> list[Interval]:
    return [replace(found, run_id=0, finished_us=0) for found in registry.intervals(view_id, target)]


def check_same_statistics(repo: Repo, twin: Repo) -> None:
    mine, its = noted(repo), noted(twin)
    assert (mine is None) == (its is None)
    if mine is None or its is None:
        return
    one, other = mine.to_dict(), its.to_dict()
    features = other.pop("features")
    for name, told in one.pop("features").items():
        assert told == approx(features[name]), name
    assert one == other


def check_same(repo: Repo, twin: Repo) -> None:
    """Rows, statistics, cursors, intervals; and nothing is left behind."""
    assert repo.offline_table() == twin.offline_table()
    assert repo.online_rows() == twin.online_rows()
    check_same_statistics(repo, twin)
    with repo.registry() as one, twin.registry() as other:
        view_id = repo.view().view_id
        for target in ("online", "offline"):
            assert one.get_cursor(view_id, target) == other.get_cursor(view_id, target)
            assert covered(one, view_id, target) == covered(other, view_id, target)
    left = repo.path / ".fastserve" / "offline"
    assert not list(left.glob(".fastserve-work-*"))


def test_tasks_in_processes_leave_what_one_process_leaves(
    repo: Repo, twin: Repo, engines: list[Engine]
) -> None:
    engines.append(Processes(2))
    spread_out = repo.materialize(NOW, incremental=True, engine="spark").views[0]
    here = twin.materialize(NOW, incremental=True).views[0]
    for name in ("rows_read", "rows_offline_new", "partitions_done", "start_us", "end_us"):
        assert getattr(spread_out, name) == getattr(here, name), name
    check_same(repo, twin)


def test_late_rows_and_corrections_come_with_the_next_run(repo: Repo, twin: Repo) -> None:
    for present in (T0 + 5 * DAY, T0 + 7 * DAY + HOUR, NOW):
        repo.materialize(present, incremental=True, engine="spark")
        twin.materialize(present, incremental=True)
        check_same(repo, twin)


def test_windows_targets_and_lifetimes(repo_with_ttl: Repo, tmp_path: Path) -> None:
    repo = repo_with_ttl
    fill(repo, N_DAYS)
    twin = repo.copy(tmp_path / "twin")
    for options in (
        {"start_us": T0 + 5 * DAY, "end_us": T0 + 7 * DAY, "target": "online"},
        {"start_us": T0 + 12 * DAY, "end_us": DONE},
        {"start_us": T0 + 500 * DAY, "end_us": None},  # nothing
    ):
        repo.materialize(DONE, engine="spark", **options)
        twin.materialize(DONE, **options)
        check_same(repo, twin)


def test_a_row_that_does_not_fit_changes_nothing(repo: Repo, twin: Repo) -> None:
    row = {"user": None, "event_timestamp": T0, "created": T0}
    repo.write([row], "z.parquet")
    summary = materialize(repo.config, incremental=True, now_us=NOW, engine="spark")
    [view] = summary.views
    assert isinstance(view.error, InvalidDataError)
    assert "column 'user', row 0" in str(view.error)
    assert not repo.online_rows() and not repo.offline_rows()
    (repo.path / "data" / "z.parquet").unlink()
    repo.materialize(NOW, incremental=True, engine="spark")
    twin.materialize(NOW, incremental=True)
    assert repo.online_rows() == twin.online_rows()


def test_a_run_that_failed_is_taken_up_and_skips_what_it_did(
    repo: Repo, twin: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = spread.commit_written, []

    def fails_later(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise OSError("disk full")
        return commit(*given)

    with monkeypatch.context() as patch:
        patch.setattr(spread, "commit_written", fails_later)
        failed: Summary = materialize(repo.config, incremental=True, now_us=NOW, engine="spark")
    assert failed.status == "failed"
    again = repo.materialize(NOW, incremental=True, engine="spark").views[0]
    assert 0 < again.partitions_skipped == failed.views[0].partitions_done
    assert again.partitions_done + again.partitions_skipped == 2 * N_DAYS
    twin.materialize(NOW, incremental=True)
    assert repo.offline_table() == twin.offline_table() and repo.online_rows() == twin.online_rows()
    assert noted(repo) is not None
    check_same_statistics(repo, twin)


def test_dates_that_others_write_meanwhile_are_staged_again(
    repo: Repo, twin: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = spread.commit_written
    table = OfflineTable(repo.config.offline_store, "test", repo.view())

    def after_another(given: Any, written: Any, restage: Any) -> Any:
        monkeypatch.setattr(spread, "commit_written", commit)
        staged = [one for one in written if one.staged is not None and one.staged.adds]
        day = pa.array([staged[0].day]).cast(pa.timestamp("us", "UTC")).cast(pa.int64())[0].as_py()
        assert table.append_new(twin_table.read(None, day, day + DAY)).rows_new
        return commit(given, written, restage)

    twin.materialize(NOW, incremental=True)
    twin_table = OfflineTable(twin.config.offline_store, "test", twin.view())
    monkeypatch.setattr(spread, "commit_written", after_another)
    repo.materialize(NOW, incremental=True, engine="spark")
    assert repo.offline_table() == twin.offline_table()


def test_the_answer_of_a_query_is_dealt_out_too(tmp_path: Path) -> None:
    source = SQLSource("SELECT * FROM d", {"d": FileInput("data")})
    view = FeatureView("stats", entities=[USER], schema=[Field("amount", Float64)], source=source)
    repo = Repo.make(tmp_path / "repo", view)
    fill(repo, N_DAYS)
    twin = repo.copy(tmp_path / "twin")
    repo.materialize(NOW, incremental=True, engine="spark")
    twin.materialize(NOW, incremental=True)
    check_same(repo, twin)


def test_a_fault_in_statistics_costs_no_row_and_is_told(
    repo: Repo, twin: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Collector, batch: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Collector, "_add", broken)
    [view] = repo.materialize(NOW, incremental=True, engine="spark").views
    assert view.statistics_error == "ZeroDivisionError: a fault"
    assert view.rows_offline_new and noted(repo) is None
