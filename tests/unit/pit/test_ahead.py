"""`ahead`: the items of an iterator in order, the next one being made while one is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from materializer.pit.chunks import ahead


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
