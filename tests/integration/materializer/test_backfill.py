"""A backfill leaves what a run leaves, date by date, and does again only what is not there as it is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from fastserve import FeatureStore
from fastserve.errors import AlreadyRunningError, IncompleteHistoryError, RequestError
from fastserve.offline.delta import OfflineTable
from materializer.backfill import BackfillRequest, BackfillSummary, backfill
from materializer.run import materialize
from materializer.stop import Stop
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo

N_DAYS = 12
NOW = T0 + 100 * DAY


def rows_of(seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for hour in range(N_DAYS * 24):
        event = T0 + hour * HOUR
        created = event + rng.choice([0, HOUR])
        row = {"user": f"u{rng.randrange(40)}", "event_timestamp": event, "created": created}
        rows.append(row | {"amount": rng.random(), "visits": rng.choice([None, hour])})
    return rows


def fill(repo: Repo, rows: list[dict[str, Any]]) -> None:
    """Three files of four days each."""
    size = len(rows) // 3
    for part in range(3):
        repo.write(rows[part * size : (part + 1) * size], f"{part}.parquet", row_group=48)


def run(repo: Repo, **options: Any) -> BackfillSummary:
    summary = backfill(repo.config, BackfillRequest(view="stats", **{"now_us": NOW, **options}))
    assert summary.status == "ok", summary.error
    return summary


@pytest.fixture
def filled(repo: Repo) -> Iterator[Repo]:
    fill(repo, rows_of())
    yield repo


def test_a_backfill_leaves_what_a_run_leaves_and_again_does_nothing(filled: Repo, tmp_path: Any) -> None:
    other = filled.copy(tmp_path / "other")
    other.materialize(NOW)
    first = run(filled)
    assert (first.dates, first.dates_done, first.rows_offline_new) == (N_DAYS, 2 * N_DAYS, N_DAYS * 24)
    assert filled.offline_table() == other.offline_table()
    assert filled.online_rows() == other.online_rows()
    with filled.registry() as registry:
        view_id = filled.view().view_id
        assert registry.backfills.incomplete(view_id) is None
        [interval] = registry.intervals(view_id, "offline")
        assert (interval.start_us, interval.end_us, interval.rows) == (None, NOW + 1, N_DAYS * 24)
    again = run(filled)
    assert (again.dates_done, again.dates_unchanged, again.dates_skipped) == (0, 0, 2 * N_DAYS)
    assert run(filled, again=True).rows_offline_new == 0


def test_workers_leave_the_same(filled: Repo, tmp_path: Any) -> None:
    other = filled.copy(tmp_path / "other")
    other.materialize(NOW)
    summary = run(filled, workers=2)
    assert summary.dates_done == 2 * N_DAYS
    assert filled.offline_table() == other.offline_table()
    assert filled.online_rows() == other.online_rows()


def test_only_a_changed_date_is_written_and_pushed_rows_stay(filled: Repo) -> None:
    run(filled)
    table = OfflineTable(filled.config.offline_store, "test", filled.view())
    pushed = pa.Table.from_batches(list(table.read(None, T0, T0 + HOUR))).to_batches()[0]
    times = pa.array([T0 + 30 * HOUR + 1], pa.int64()).cast(pushed.schema.field("event_timestamp").type)
    for name in ("event_timestamp", "created_timestamp"):
        pushed = pushed.set_column(pushed.schema.get_field_index(name), name, times)
    assert table.append_new([pushed]).rows_new == 1
    rows = rows_of()
    rows[30]["created"] += 5 * HOUR
    rows[30]["amount"] = -1.0
    fill(filled, rows)  # all files are written anew, with one other row
    summary = run(filled)
    assert (summary.dates_done, summary.dates_unchanged) == (2, 2 * N_DAYS - 2)
    assert summary.rows_offline_new == 1
    assert filled.offline_table().num_rows == N_DAYS * 24 + 2


def test_a_window_is_whole_dates_and_its_end_may_grow(filled: Repo) -> None:
    part = run(filled, start_us=T0 + 2 * DAY + HOUR, end_us=T0 + 3 * DAY + HOUR)
    assert (part.dates, part.rows_offline_new) == (2, 48)
    today = run(filled, start_us=T0 + 4 * DAY, now_us=T0 + 4 * DAY + 5 * HOUR)
    assert 0 < today.rows_offline_new <= 6
    assert run(filled).rows_offline_new == N_DAYS * 24 - 48 - today.rows_offline_new


@pytest.mark.parametrize("store", ["online", "offline"])
def test_a_store_that_lost_its_rows_is_filled_again(filled: Repo, store: str) -> None:
    run(filled)
    before = filled.offline_table(), filled.online_rows()
    shutil.rmtree(filled.path / ".fastserve" / store)
    summary = run(filled)
    assert (summary.dates_done, summary.dates_skipped) == (N_DAYS, N_DAYS)
    assert (filled.offline_table(), filled.online_rows()) == before


def test_a_date_whose_rows_were_deleted_is_written_again(filled: Repo) -> None:
    run(filled)
    table = OfflineTable(filled.config.offline_store, "test", filled.view()).open()
    assert table is not None
    table.delete("event_date = '2013-01-03'")
    summary = run(filled)
    assert (summary.dates_done, summary.rows_offline_new) == (1, 24)


def test_csv_and_shuffled_sources_are_told_apart_by_date(filled: Repo, tmp_path: Any) -> None:
    other = filled.copy(tmp_path / "other")
    rows = rows_of()
    random.Random(3).shuffle(rows)
    fill(other, rows)
    run(filled)
    run(other, workers=1)
    assert other.offline_table() == filled.offline_table()
    assert other.online_rows() == filled.online_rows()


def test_mistakes_are_named(filled: Repo) -> None:
    with pytest.raises(RequestError, match="0 workers"):
        backfill(filled.config, BackfillRequest(view="stats", workers=0))
    with pytest.raises(RequestError, match="after end"):
        backfill(filled.config, BackfillRequest(view="stats", start_us=2, end_us=1))
    filled.write([{"user": None, "event_timestamp": T0 + 5 * DAY, "created": T0}], "9.parquet")
    summary = backfill(filled.config, BackfillRequest(view="stats", now_us=NOW, workers=2))
    assert summary.status == "failed" and "9.parquet" in str(summary.error)
    with filled.registry() as registry:
        found = registry.backfills.incomplete(filled.view().view_id)
        assert found is not None and not found.alive and "dates are done" in str(found)


def test_two_at_once_are_refused_and_told_how_far_the_other_is(filled: Repo) -> None:
    with filled.registry() as registry, registry.lock_view(filled.view().view_id):
        summary = backfill(filled.config, BackfillRequest(view="stats", now_us=NOW))
    assert summary.status == "already_running" and summary.exit_code == 3
    assert isinstance(summary.error, AlreadyRunningError)


def test_a_run_meanwhile_is_told_how_far_the_backfill_is(filled: Repo) -> None:
    """At the moment a date is done the process holds the view and has dates to go."""
    seen = []

    def look(view: str, phase: str, done: int, total: int | None) -> None:
        if phase == "write" and not seen:
            seen.append(materialize(filled.config, now_us=NOW))

    backfill(filled.config, BackfillRequest(view="stats", now_us=NOW), progress=look)
    [summary] = seen
    assert summary.status == "already_running" and summary.exit_code == 3
    assert "a backfill from" in str(summary.views[0].error) and "dates are done" in str(
        summary.views[0].error
    )


def test_training_waits_for_the_backfill_of_what_it_sees(repo_with_ttl: Repo) -> None:
    """Stopped after the newest dates: labels that see only those are fine, others are told how far it is."""
    repo = repo_with_ttl
    fill(repo, rows_of())
    repo.materialize(NOW, end_us=T0 + DAY)  # so that training reads the table
    stop = Stop()

    def look(view: str, phase: str, done: int, total: int | None) -> None:
        stop.signum = 15

    summary = backfill(repo.config, BackfillRequest(view="stats", now_us=NOW), progress=look, stop=stop)
    assert summary.status == "stopped"
    early = label(T0 + 5 * DAY)
    with FeatureStore(repo.path) as store:
        with pytest.raises(IncompleteHistoryError, match=r"dates are done, and it does not run") as caught:
            store.get_historical_features(early, ["stats:amount"])
        assert "materializer backfill stats" in caught.value.hint
        assert len(store.get_historical_features(early, ["stats:amount"], allow_incomplete=True)) == 1
        options = {"allow_incomplete": True, "output": repo.path / "early"}
        made = store.create_training_dataset(early, "early", ["stats:amount"], **options)
        assert made.manifest.views[0]["origin"]["incomplete"] == "0 of 3 dates"
        run(repo)
        whole = store.get_historical_features(early, ["stats:amount"]).to_arrow()
    assert whole["amount"].null_count == 0


def test_a_run_over_dates_that_wait_settles_them(filled: Repo) -> None:
    stop = Stop()

    def look(view: str, phase: str, done: int, total: int | None) -> None:
        stop.signum = 15

    backfill(filled.config, BackfillRequest(view="stats", now_us=NOW), progress=look, stop=stop)
    view_id = filled.view().view_id
    with filled.registry() as registry:
        before = registry.backfills.incomplete(view_id)
        filled.materialize(NOW, start_us=T0 + 1)  # not the whole first date
        after = registry.backfills.incomplete(view_id)
        assert before is not None and after is not None
        assert before.total - before.done > 1 and after.first == after.last == "2013-01-01"
        filled.materialize(NOW, start_us=T0)
        assert registry.backfills.incomplete(view_id) is None
    again = run(filled)
    assert again.rows_offline_new == 0 and again.dates_done + again.dates_unchanged > 0


def label(us: int) -> pa.Table:
    time = pa.array([us], pa.int64()).cast(pa.timestamp("us", "UTC"))
    user = next(row["user"] for row in reversed(rows_of()) if row["event_timestamp"] <= us - HOUR)
    return pa.table({"user": [user], "event_timestamp": time})
