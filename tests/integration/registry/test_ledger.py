"""Runs, partitions, intervals and cursors, on both databases."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fastserve.errors import AlreadyRunningError, RegistryError
from fastserve.registry import Cursor, Interval, Partition, Registry, open_registry
from fastserve.registry.ledger import KEEP_INTERVALS
from tests.integration.registry.objects import USER, view

DAY = 86_400_000_000


@pytest.fixture
def view_id(registry: Registry) -> Iterator[int]:
    registry.apply([USER, view()])
    yield registry.snapshot().view("stats").view_id


def _interval(view_id: int, start: int | None, end: int, rows: int = 1) -> Interval:
    return Interval(view_id, "online", start, end, rows)


def test_intervals_are_merged(registry: Registry, view_id: int) -> None:
    for start, end in ((0, 10), (10, 20), (30, 40), (5, 12)):
        registry.record_interval(_interval(view_id, start, end))
    merged = registry.intervals(view_id, "online")
    assert [(i.start_us, i.end_us, i.rows) for i in merged] == [(0, 20, 3), (30, 40, 1)]
    raw = registry.intervals(view_id, "online", raw=True)
    assert [(i.start_us, i.end_us) for i in raw] == [(0, 10), (10, 20), (30, 40), (5, 12)]
    assert all(i.finished_us > 0 for i in raw)
    assert registry.intervals(view_id, "offline") == []


def test_an_interval_without_start_covers_all_before(registry: Registry, view_id: int) -> None:
    registry.record_interval(_interval(view_id, 5, 8))
    registry.record_interval(_interval(view_id, None, 6))
    assert [(i.start_us, i.end_us) for i in registry.intervals(view_id, "online")] == [(None, 8)]


def test_intervals_of_an_unknown_view_are_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError):
        registry.record_interval(_interval(999, 0, 1))


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(RegistryError, match="empty"):
        _interval(1, 5, 5)


def test_the_cursor_moves_with_its_interval(registry: Registry, view_id: int) -> None:
    assert registry.get_cursor(view_id, "online") is None
    cursor = Cursor(view_id, "online", 7, None)
    registry.record_interval(_interval(view_id, 0, 10), cursor=cursor)
    assert registry.get_cursor(view_id, "online") == cursor
    with pytest.raises(RegistryError):  # the cursor cannot be written: neither is the interval
        registry.record_interval(_interval(view_id, 10, 20), cursor=Cursor(999, "online", 9, 9))
    assert [(i.start_us, i.end_us) for i in registry.intervals(view_id, "online")] == [(0, 10)]
    assert registry.get_cursor(view_id, "offline") is None


def test_a_cursor_can_be_set_back(registry: Registry, view_id: int) -> None:
    for cursor in (Cursor(view_id, "offline", 9, 9), Cursor(view_id, "offline", None, 3)):
        registry.set_cursor(cursor)
        assert registry.get_cursor(view_id, "offline") == cursor


def test_intervals_stay_few(registry: Registry, view_id: int) -> None:
    """Years of hourly runs are merged from the oldest on; what is covered does not change."""
    run = registry.start_run(view_id, "online", 0, DAY)
    n = 3 * KEEP_INTERVALS
    registry.finish_run(run, [_interval(view_id, i, i + 1) for i in range(n)])
    registry.record_interval(_interval(view_id, n, n + 1))
    assert len(registry.intervals(view_id, "online", raw=True)) <= KEEP_INTERVALS + 2
    (merged,) = registry.intervals(view_id, "online")
    assert (merged.start_us, merged.end_us, merged.rows) == (0, n + 1, n + 1)


def test_apply_keeps_intervals_and_cursors(registry: Registry, view_id: int) -> None:
    registry.record_interval(_interval(view_id, 0, 10), cursor=Cursor(view_id, "online", 1, 2))
    registry.apply([view(ttl="9d"), view("b")])
    assert len(registry.intervals(view_id, "online")) == 1
    assert registry.get_cursor(view_id, "online") == Cursor(view_id, "online", 1, 2)


def test_a_run_from_start_to_finish(registry: Registry, view_id: int) -> None:
    run_id = registry.start_run(view_id, "both", None, DAY, fingerprint="abc")
    run = registry.unfinished_run(view_id)
    assert run is not None
    assert (run.run_id, run.status, run.target, run.start_us, run.end_us) == (
        run_id,
        "running",
        "both",
        None,
        DAY,
    )
    assert (run.fingerprint, run.pid, run.finished_us, run.error) == ("abc", os.getpid(), None, "")
    registry.mark_partitions([Partition(run_id, "2020-01-02", "online", 5, "d1")])
    registry.mark_partitions([Partition(run_id, "2020-01-01", "offline", 6, "d2")])
    registry.mark_partitions([Partition(run_id, "2020-01-02", "online", 7, "d3")])
    assert [(p.date, p.target, p.rows, p.digest) for p in registry.partitions(run_id)] == [
        ("2020-01-01", "offline", 6, "d2"),
        ("2020-01-02", "online", 7, "d3"),
    ]
    registry.finish_run(run_id, [_interval(view_id, None, DAY, 13)], [Cursor(view_id, "online", 1, 2)])
    assert registry.unfinished_run(view_id) is None
    (run,) = registry.runs()
    assert (run.status, run.error) == ("complete", "")
    assert run.finished_us is not None
    assert registry.intervals(view_id, "online")[0].rows == 13
    assert registry.get_cursor(view_id, "online") == Cursor(view_id, "online", 1, 2)


def test_finishing_is_all_or_nothing(registry: Registry, view_id: int) -> None:
    run_id = registry.start_run(view_id, "online", 0, 10)
    with pytest.raises(RegistryError):
        registry.finish_run(run_id, [_interval(view_id, 0, 10)], [Cursor(999, "online")])
    assert registry.intervals(view_id, "online") == []
    assert registry.unfinished_run(view_id) is not None


def test_a_failed_run_is_resumed(registry: Registry, view_id: int) -> None:
    run_id = registry.start_run(view_id, "online", 0, 10)
    registry.mark_partitions([Partition(run_id, "2020-01-01", "online", 5)])
    registry.fail_run(run_id, "disk full")
    run = registry.unfinished_run(view_id, "online")
    assert run is not None
    assert (run.status, run.error) == ("failed", "disk full")
    assert registry.unfinished_run(view_id, "offline") is None
    assert registry.intervals(view_id, "online") == []
    resumed = registry.resume_run(run_id)
    assert (resumed.status, resumed.error, resumed.finished_us) == ("running", "", None)
    assert len(registry.partitions(run_id)) == 1
    registry.finish_run(run_id)
    assert registry.unfinished_run(view_id) is None


def test_a_lost_run_is_marked_failed_by_the_next(registry: Registry, view_id: int) -> None:
    lost = registry.start_run(view_id, "online", 0, 10)
    run_id = registry.start_run(view_id, "online", 0, 10)
    assert [(r.run_id, r.status) for r in registry.runs()] == [(run_id, "running"), (lost, "failed")]
    assert "ended without" in registry.runs()[1].error


def test_a_run_that_lost_its_lock_writes_no_more(registry: Registry, view_id: int) -> None:
    lost = registry.start_run(view_id, "online", 0, 10)
    registry.start_run(view_id, "online", 0, 10)
    for call in (
        lambda: registry.mark_partitions([Partition(lost, "2020-01-01", "online", 5)]),
        lambda: registry.finish_run(lost, [_interval(view_id, 0, 10)]),
    ):
        with pytest.raises(AlreadyRunningError, match=f"run {lost} was ended: its process ended without"):
            call()
    assert registry.intervals(view_id, "online") == []


def test_a_run_resumed_elsewhere_is_theirs(registry: Registry, view_id: int) -> None:
    run_id = registry.start_run(view_id, "online", 0, 10)
    child = os.fork()
    if child == 0:
        try:
            registry.resume_run(run_id)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(AlreadyRunningError, match=f"taken over by pid {child} on "):
        registry.finish_run(run_id)
    assert registry.resume_run(run_id).pid == os.getpid()
    registry.finish_run(run_id)


def test_partitions_of_complete_runs_are_forgotten(registry: Registry, view_id: int) -> None:
    first = registry.start_run(view_id, "online", 0, 10)
    registry.mark_partitions([Partition(first, "2020-01-01", "online", 5)])
    registry.finish_run(first)
    assert len(registry.partitions(first)) == 1
    registry.start_run(view_id, "online", 10, 20)
    assert registry.partitions(first) == []


def test_a_complete_run_is_closed(registry: Registry, view_id: int) -> None:
    run_id = registry.start_run(view_id, "online", 0, 10)
    registry.finish_run(run_id)
    with pytest.raises(RegistryError, match="is complete"):
        registry.mark_partitions([Partition(run_id, "2020-01-01", "online", 5)])
    with pytest.raises(RegistryError, match="is complete"):
        registry.finish_run(run_id)
    with pytest.raises(RegistryError, match="no run 999"):
        registry.fail_run(999, "x")


def test_runs_are_listed_newest_first(registry: Registry, view_id: int, url: str) -> None:
    registry.apply([view("other")])
    other = registry.snapshot().view("other").view_id
    ids = [registry.start_run(v, "online", 0, 10) for v in (view_id, other, view_id)]
    assert [r.run_id for r in registry.runs()] == ids[::-1]
    assert [r.run_id for r in registry.runs(1)] == ids[:1:-1]
    assert [r.run_id for r in registry.runs(view_id=other)] == [ids[1]]
    with open_registry(url, "another") as another:
        assert another.runs() == []
