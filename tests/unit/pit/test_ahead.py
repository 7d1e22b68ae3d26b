"""Items of an iterator in order: `ahead`, the next is made while one is used; `as_they_come`, by several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from materializer.pit.chunks import ahead, as_they_come


def test_items_come_in_order_and_their_error_after_them() -> None:
    def some() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sixth")

    found: list[int] = []
    with pytest.raises(ValueError, match="the sixth"):
        found.extend(ahead(some()))
    assert found == [0, 1, 2, 3, 4]


def test_the_next_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    items = ahead(two())
    assert next(items) == 1
    assert made.wait(300)  # nobody has asked for it
    assert list(items) == [2]


def test_who_stops_early_waits_for_what_is_being_made_and_no_more() -> None:
    made: list[int] = []

    def many() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    items = ahead(many())
    assert next(items) == 0
    items.close()
    assert made in ([0], [0, 1])


def test_jobs_that_come_are_shared_out_and_answers_keep_their_order() -> None:
    both = threading.Barrier(2)

    def met(i: int) -> int:
        both.wait(300)  # a job each
        return i * i

    assert as_they_come(met, iter(range(6)), 2) == [0, 1, 4, 9, 16, 25]
    assert as_they_come(abs, iter([]), 3) == []

    def some() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        as_they_come(abs, some(), 2)
