"""Work on another thread: in order, never more of it than said, and no failure goes unnoticed."""

from __future__ import annotations

from threading import Event, get_ident

import pytest

from materializer.aside import Aside


def test_jobs_are_done_in_order_on_one_other_thread() -> None:
    done: list[tuple[int, int]] = []
    with Aside(ahead=3) as aside:
        for number in range(50):
            aside.do(lambda number=number: done.append((number, get_ident())))  # type: ignore[misc]
        aside.finish()
        assert [number for number, _ in done] == list(range(50))
        assert len({thread for _, thread in done}) == 1 and done[0][1] != get_ident()


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_is_unfinished_than_said(ahead: int) -> None:
    done: list[int] = []
    with Aside(ahead) as aside:
        for given in range(1, 301):
            aside.do(lambda: done.append(sum(range(2_000))))
            assert given - len(done) <= ahead
        aside.finish()
    assert len(done) == 300


def test_a_failure_is_raised_by_the_next_call() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with Aside() as aside:
        aside.do(fail)
        with pytest.raises(OSError, match="disk full"):
            aside.do(lambda: None)
        aside.do(fail)
        with pytest.raises(OSError, match="disk full"):
            aside.finish()
        aside.finish()  # once


def test_leaving_drops_what_has_not_begun() -> None:
    free, begun, done = Event(), Event(), list[str]()
    with Aside(ahead=3) as aside:
        aside.do(lambda: (begun.set(), free.wait(), done.append("first"))[0])
        assert begun.wait(10)
        aside.do(lambda: done.append("second"))
        aside._pool.shutdown(wait=False, cancel_futures=True)
        free.set()
    assert done == ["first"]
