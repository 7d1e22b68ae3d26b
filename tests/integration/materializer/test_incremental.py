"""Incremental runs: what is late, corrected, from the future or lost is picked up; nothing is skipped."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from materializer.spill import Spill
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo

NOW = T0 + 10 * DAY


def row(user: str, event: int, created: int | None = None, amount: float = 0.0) -> dict[str, Any]:
    return {"user": user, "event_timestamp": event, "created": created, "amount": amount}


def amounts(repo: Repo, *users: str, now: int = NOW) -> list[float | None]:
    return [found[1] for found in repo.read_online(users, now)]


def test_consecutive_runs_read_every_row_once(repo: Repo) -> None:
    """To the microsecond: at the end of the first window, and right behind it."""
    repo.write([row("a", T0), row("b", T0 + 1), row("c", T0 + 2)])
    read = [repo.materialize(T0 + n, incremental=True).views[0].rows_read for n in (0, 1, 2, 2)]
    assert read == [1, 1, 1, 0]
    assert len(repo.offline_rows()) == 3


def test_a_store_that_is_filled_takes_every_row_from_the_spill_once(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what says in the ledger which rows they were: that must not cost a reading of its own."""
    read: list[int] = []
    of_message = Spill._bytes

    def noting(spill: Spill, message: Any) -> bytes:
        read.append(message.offset)
        return of_message(spill, message)

    monkeypatch.setattr(Spill, "_bytes", noting)
    repo.write([row("a", T0 + n * DAY) for n in range(5)])
    repo.materialize(NOW, incremental=True, target="online")
    assert len(read) == len(set(read)) == 5


def test_late_rows_are_picked_up(repo: Repo) -> None:
    repo.write([row("a", T0 + DAY, T0 + DAY)])
    repo.materialize(T0 + 2 * DAY, incremental=True)
    repo.write([row("b", T0, T0 + 3 * DAY, 7.0)], "late.parquet")
    summary = repo.materialize(T0 + 4 * DAY, incremental=True).views[0]
    assert (summary.rows_read, summary.rows_offline_new, summary.rows_online_written) == (1, 1, 1)
    assert amounts(repo, "b") == [7.0]


def test_corrections_of_the_same_event_time_are_picked_up(repo: Repo) -> None:
    repo.write([row("a", T0, T0, 1.0)])
    repo.materialize(T0 + DAY, incremental=True)
    repo.write([row("a", T0, T0 + 2 * DAY, 2.0)], "correction.parquet")
    repo.materialize(T0 + 3 * DAY, incremental=True)
    assert amounts(repo, "a") == [2.0]
    assert repo.offline_rows() == [("a", T0, T0), ("a", T0, T0 + 2 * DAY)]  # history keeps both


def test_of_equal_rows_the_last_in_the_source_counts_in_both_stores(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("materializer.spill.BUFFER_BYTES", 1)
    monkeypatch.setattr("materializer.spill.CHUNK_BYTES", 1)  # each file a chunk of its own
    for n in range(3):
        repo.write([row("a", T0, None, float(n))], f"{n}.parquet")
    repo.materialize(T0, incremental=True)
    assert amounts(repo, "a") == [2.0]
    assert repo.offline_table()["amount"].to_pylist() == [2.0]


async def test_it_can_be_called_where_an_event_loop_runs(repo: Repo) -> None:
    repo.write([row("a", T0)])
    assert repo.materialize(T0, incremental=True).views[0].rows_online_written == 1


def test_a_late_row_does_not_replace_a_newer_one(repo: Repo) -> None:
    repo.write([row("a", T0 + DAY, T0 + DAY, 2.0)])
    repo.materialize(T0 + 2 * DAY, incremental=True)
    repo.write([row("a", T0, T0 + 3 * DAY, 1.0)], "late.parquet")
    summary = repo.materialize(T0 + 4 * DAY, incremental=True).views[0]
    assert (summary.rows_offline_new, summary.rows_online_written) == (1, 0)
    assert amounts(repo, "a") == [2.0]


def test_an_end_in_the_future_does_not_block_later_runs(repo: Repo) -> None:
    repo.write([row("a", T0, None, 1.0), row("a", T0 + 3 * DAY, T0, 2.0)])
    first = repo.materialize(T0 + DAY, incremental=True, end_us=T0 + 99 * DAY).views[0]
    assert (first.end_us, first.end_clamped, first.rows_read) == (T0 + DAY, True, 1)
    second = repo.materialize(T0 + 4 * DAY, incremental=True).views[0]
    assert (second.end_clamped, second.rows_read) == (False, 1)
    assert amounts(repo, "a") == [2.0]


def test_a_window_of_the_future_does_nothing(repo: Repo) -> None:
    repo.write([row("a", T0)])
    summary = repo.materialize(T0, start_us=T0 + DAY, end_us=T0 + 2 * DAY).views[0]
    assert (summary.status, summary.end_clamped, summary.rows_read) == ("ok", True, 0)
    with repo.registry() as registry:
        assert registry.intervals(repo.view().view_id, "online") == []


def test_a_row_created_after_the_present_waits_and_hides_no_late_row(repo: Repo) -> None:
    repo.write([row("a", T0, T0 + 9 * DAY, 1.0), row("c", T0, T0)])
    assert repo.materialize(T0 + DAY, incremental=True).views[0].rows_read == 1
    repo.write([row("b", T0, T0 + 2 * DAY, 3.0)], "late.parquet")
    repo.materialize(T0 + 3 * DAY, incremental=True)
    assert amounts(repo, "a", "b") == [None, 3.0]
    repo.materialize(T0 + 9 * DAY, incremental=True)
    assert amounts(repo, "a", "b") == [1.0, 3.0]


def test_overlap_reads_rows_that_became_visible_behind_the_newest_one(repo: Repo) -> None:
    repo.write([row("a", T0, T0 + 2 * HOUR)])
    repo.materialize(T0 + DAY, incremental=True)
    repo.write([row("b", T0, T0 + HOUR, 4.0)], "slow.parquet")  # created before, visible after
    assert repo.materialize(T0 + DAY, incremental=True).views[0].rows_read == 0
    code, _, _ = repo.cli("--incremental", "--overlap", "1h1s", "--now", "2013-01-10")
    assert code == 0
    assert amounts(repo, "b") == [4.0]


def test_one_target_catches_up_without_moving_the_other(repo: Repo) -> None:
    repo.write([row("a", T0)])
    repo.materialize(T0, incremental=True, target="offline")
    assert amounts(repo, "a") == [None]
    repo.write([row("a", T0), row("a", T0 + 1, None, 5.0)])
    repo.materialize(T0 + 1, incremental=True, target="both")
    assert amounts(repo, "a") == [5.0]
    assert len(repo.offline_rows()) == 2


def test_explicit_runs_leave_the_cursor_alone(repo: Repo) -> None:
    repo.write([row("a", T0, None, 1.0), row("b", T0 + DAY, None, 2.0)])
    repo.materialize(NOW, start_us=T0 + DAY, end_us=T0 + DAY)
    assert amounts(repo, "a", "b") == [None, 2.0]
    assert repo.materialize(NOW, incremental=True).views[0].rows_read == 2
    assert amounts(repo, "a", "b") == [1.0, 2.0]


def test_what_is_recorded_is_what_was_covered(repo: Repo) -> None:
    repo.write([row("a", T0), row("b", T0 + DAY)])
    repo.materialize(T0, incremental=True)
    repo.materialize(T0 + DAY, incremental=True)
    repo.materialize(T0 + DAY, incremental=True)  # nothing new: nothing to record, and no error
    with repo.registry() as registry:
        for target in ("online", "offline"):
            [interval] = registry.intervals(repo.view().view_id, target)  # without a gap, so merged
            assert (interval.start_us, interval.end_us, interval.rows) == (None, T0 + DAY + 1, 2)
            cursor = registry.get_cursor(repo.view().view_id, target)
            assert cursor is not None
            assert (cursor.event_hw_us, cursor.created_hw_us) == (T0 + DAY, T0 + DAY)


def test_running_a_finished_window_again_heals_the_store(repo: Repo) -> None:
    repo.write([row("a", T0, None, 1.0)])
    repo.materialize(NOW, start_us=T0, end_us=NOW)
    wipe_online(repo)
    again = repo.materialize(NOW, start_us=T0, end_us=NOW).views[0]
    assert (again.rows_online_written, again.rows_offline_new, again.partitions_skipped) == (1, 0, 0)
    assert amounts(repo, "a") == [1.0]


def test_an_incremental_run_fills_an_emptied_online_store_anew(
    repo: Repo, caplog: pytest.LogCaptureFixture
) -> None:
    repo.write([row("a", T0, None, 1.0)])
    repo.materialize(T0, incremental=True)
    wipe_online(repo)
    summary = repo.materialize(T0 + DAY, incremental=True).views[0]
    assert (summary.rows_online_written, summary.rows_offline_new) == (1, 0)
    assert amounts(repo, "a") == [1.0]
    assert "its online rows are gone" in caplog.text


def test_a_part_refilled_by_hand_does_not_pass_for_the_whole(repo: Repo) -> None:
    repo.write([row("a", T0, None, 1.0), row("b", T0 + DAY, None, 2.0)])
    repo.materialize(T0 + DAY, incremental=True)
    wipe_online(repo)
    repo.materialize(T0 + DAY, start_us=T0 + DAY, end_us=T0 + DAY)
    assert amounts(repo, "a", "b") == [None, 2.0]
    repo.materialize(T0 + DAY, incremental=True)
    assert amounts(repo, "a", "b") == [1.0, 2.0]


def test_a_deleted_offline_table_is_filled_anew(repo: Repo) -> None:
    repo.write([row("a", T0), row("b", T0 + 1)])
    repo.materialize(T0, incremental=True)
    shutil.rmtree(repo.config.offline_store)
    repo.materialize(T0 + 1, incremental=True)
    assert len(repo.offline_rows()) == 2


def wipe_online(repo: Repo) -> None:
    shutil.rmtree(repo.path / ".fastserve" / "online")
