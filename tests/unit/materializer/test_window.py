"""Windows: closed, never after the present, and without gaps from one incremental run to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import RequestError
from fastserve.registry import Cursor
from materializer.window import Window, check_bounds, explicit, incremental

NOW = 1_000


def cursor(event: int | None, created: int | None) -> Cursor:
    return Cursor(1, "online", event, created)


def test_an_explicit_window_is_the_one_asked_for() -> None:
    assert explicit(10, 20, NOW) == Window(10, 20)
    assert explicit(None, None, NOW) == Window(None, NOW)


def test_an_end_in_the_future_means_now() -> None:
    assert explicit(10, NOW + 1, NOW) == Window(10, NOW, end_clamped=True)
    assert explicit(10, NOW, NOW) == Window(10, NOW)


def test_a_window_that_begins_in_the_future_is_empty() -> None:
    assert explicit(NOW + 1, NOW + 5, NOW).is_empty
    assert not explicit(NOW, NOW + 5, NOW).is_empty


def test_start_after_end_is_refused() -> None:
    with pytest.raises(RequestError, match="is after end"):
        check_bounds(2, 1)
    check_bounds(1, 1)
    check_bounds(None, 1)
    check_bounds(1, None)


def test_the_first_incremental_run_takes_everything_up_to_now() -> None:
    assert incremental([None], None, NOW) == Window(None, NOW)
    assert incremental([cursor(500, 400), None], None, NOW) == Window(None, NOW)


def test_the_next_one_goes_on_behind_the_last() -> None:
    assert incremental([cursor(500, 400)], None, NOW) == Window(501, NOW, created_after_us=400)
    assert incremental([cursor(500, 400)], 2 * NOW, NOW) == Window(
        501, NOW, created_after_us=400, end_clamped=True
    )


def test_the_target_furthest_behind_decides() -> None:
    window = incremental([cursor(500, 400), cursor(300, 450)], None, NOW)
    assert window == Window(301, NOW, created_after_us=400)


def test_after_runs_that_saw_no_row_everything_is_new() -> None:
    assert incremental([cursor(500, None)], None, NOW) == Window(None, NOW)


def test_overlap_reads_again() -> None:
    assert incremental([cursor(500, 400)], None, NOW, 50) == Window(451, NOW, created_after_us=350)


def test_an_incremental_window_is_never_empty_since_rows_may_be_late() -> None:
    assert not incremental([cursor(NOW, 400)], None, NOW).is_empty


def wanted(window: Window, event: int, created: int) -> bool:
    if event > window.end_us:
        return False
    late = window.created_after_us is not None and created > window.created_after_us
    return window.start_us is None or event >= window.start_us or late


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_every_row_is_read_by_the_first_run_that_could_see_it(gaps: list[int], data: st.DataObject) -> None:
    """Rows appear in the source at their created time, in whatever order their event times are in."""
    row = st.tuples(st.integers(0, 200), st.integers(0, 200)).filter(lambda r: r[0] <= r[1])
    rows = set(data.draw(st.lists(row, max_size=20)))
    read: set[tuple[int, int]] = set()
    held: Cursor | None = None
    now = 0
    for gap in gaps:
        now += gap
        window = incremental([held], None, now)
        visible = {r for r in rows if r[1] <= now}
        found = {r for r in visible if wanted(window, *r)}
        read |= found
        assert read == {r for r in visible if r[0] <= now}
        seen = [c for c in (*(r[1] for r in found), held and held.created_hw_us) if c is not None]
        held = cursor(now, max(seen, default=None))
