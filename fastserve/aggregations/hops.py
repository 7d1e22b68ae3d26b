"""Where windows and tiles begin and end. All times are microseconds UTC, int64.

A window of length w at time t holds the events with ``floor(t - w, hop) < event_ts <= t``: exact at its head, its tail
moved down to a multiple of its hop. So tiles are open on the left and closed on the right, like windows:

    tile k   events with k * hop < event_ts <= (k + 1) * hop

and every window is the tiles from ``floor(t - w, hop) / hop`` on, for no tile has events later than t. With hop 0 a
window is exact; that is a hop of one microsecond, the clock's own.
"""

from __future__ import annotations


def window_start(t_us: int, window_us: int, hop_us: int) -> int:
    """The last instant before the window: events later than it belong to it."""
    return (t_us - window_us) // hop_us * hop_us


def tile_of(event_us: int, hop_us: int) -> int:
    """The tile of an event."""
    return (event_us - 1) // hop_us
