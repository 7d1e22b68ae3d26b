"""Entries' ids, ``1700000000000-4``: the millisecond in which a log took it, and a number within. As Redis has them."""

from __future__ import annotations

from typing import Final

from fastserve.errors import StoreError

_BITS: Final = 20


def parts_of(place: str) -> tuple[int, int]:
    """(milliseconds, number)."""
    milliseconds, _, number = place.partition("-")
    return int(milliseconds), int(number)


def place_at(time_us: int) -> str:
    """The first one of a millisecond; the first of all for times before 1970."""
    return f"{max(time_us // 1_000, 0)}-0"


def earliest(*places: str) -> str:
    """The first of them in a log."""
    return min(places, key=parts_of)


def number_of(place: str) -> int:
    """One number that rises with it, below 2^63: 43 bits of milliseconds, 20 of the number.

    Raises:
        StoreError: a million entries in a millisecond.
    """
    milliseconds, number = parts_of(place)
    if number >> _BITS:
        raise StoreError(f"entry {place}: more than {1 << _BITS:,} in a millisecond")
    return milliseconds << _BITS | number


def place_of(number: int) -> str:
    """The id again."""
    return f"{number >> _BITS}-{number & (1 << _BITS) - 1}"


def stamped_us(place: str) -> int:
    """The last microsecond of the millisecond in which the log took it."""
    return parts_of(place)[0] * 1_000 + 999
