"""Aggregations over windows of events."""

from __future__ import annotations

from typing import Final

from fastserve.timeutil import DAY_US, MICROS

HOPS_US: Final = (
    MICROS,
    10 * MICROS,
    60 * MICROS,
    600 * MICROS,
    3_600 * MICROS,
    21_600 * MICROS,
    DAY_US,
)
"""Hops that are chosen where none is declared: 1 s, 10 s, 1 m, 10 m, 1 h, 6 h, 1 d. Each divides the next."""
TILES_IN_WINDOW: Final = 24
"""A window is at least so many of its default hop: its tail is at most a 24th of it too long."""


def default_hop(window_us: int) -> int:
    """The longest of HOPS_US of which the window is at least TILES_IN_WINDOW; 1 s for short ones."""
    fitting = [hop for hop in HOPS_US if hop * TILES_IN_WINDOW <= window_us]
    return fitting[-1] if fitting else HOPS_US[0]
