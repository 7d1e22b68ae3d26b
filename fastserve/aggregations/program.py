"""What an aggregated view needs computed: compiled once from its definition, followed by everything else.

    columns   of an event, that some state is made of
    levels    one for each hop: the tiles of it hold one partial aggregate for each of its states
    outputs   one for each feature, in schema order: which states of which level, folded over which window

Features share states: a sum and a mean are the sum and the count that others may want too. A tile row
(docs/tile-format.md) holds the tiles of all levels of one entity; its bytes mean nothing without the program.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StateKind(enum.Enum):
    """A partial aggregate. Nulls are in none of them but EVENTS."""

    EVENTS = "events"  # how many events
    COUNT = "count"  # how many values that are not null
    SUM = "sum"  # the exact sum: of integers an integer, of floats the real number
    SQUARES = "squares"  # the exact sum of squares
    MIN = "min"
    MAX = "max"
    FIRST = "first"  # the least (event_ts, value)
    LAST = "last"  # the greatest (event_ts, value)
    LAST_N = "last_n"  # the `parameter` greatest (event_ts, value)
    DISTINCT = "distinct"  # the `parameter` least hashes of values
    QUANTILES = "quantiles"  # value counts by the top bits of the value, `parameter` of its mantissa


@dataclass(frozen=True, slots=True)
class Column:
    """A column of events: its name and scalar type of fastserve.types."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class State:
    """One partial aggregate of each tile.

    Attributes:
        kind: what it is.
        column: index into Program.columns; -1 for EVENTS.
        parameter: of LAST_N, DISTINCT and QUANTILES; else 0.
    """

    kind: StateKind
    column: int = -1
    parameter: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """The tiles of one hop.

    Attributes:
        hop_us: a tile's length; 1 for windows that are exact.
        span_us: the longest window folded from it: tiles that end no later than ``window_start(newest, span, hop)`` of
            the newest event are of no use to a read, which is as of that event or later.
        states: of each tile.
    """

    hop_us: int
    span_us: int
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One feature.

    Attributes:
        name, dtype: as in the view's schema.
        function: how it is finalized: count, sum, mean, min, max, var, std, first, last, last_n, count_distinct or
            approx_quantile.
        level: index into Program.levels.
        window_us: the window folded.
        states: indices into the level's states: of sum and mean (SUM, COUNT), for the sum of no values is null and not
            0; of var and std (SQUARES, SUM, COUNT); of others one.
        argument: the quantile, 0 … 1.
    """

    name: str
    dtype: str
    function: str
    level: int
    window_us: int
    states: tuple[int, ...]
    argument: float = 0.0


@dataclass(frozen=True, slots=True)
class Program:
    """All of a view's aggregation. Two views with equal programs have tile rows of equal meaning."""

    columns: tuple[Column, ...]
    levels: tuple[Level, ...]
    outputs: tuple[Output, ...]

    @property
    def reach_us(self) -> int:
        """How far back of a moment a window may take events from."""
        return max(level.span_us + level.hop_us for level in self.levels)
