"""Aggregations over windows of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fastserve.definitions.freeze import freeze, frozen_tags
from fastserve.timeutil import DAY_US, MICROS, format_duration, parse_duration

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
DISTINCT_BOUND: Final = 256
"""Up to so many distinct values are counted exactly, where nothing else is declared."""
EVERY: Final = "*"
"""The column of a count of events."""
WHOLE_TYPES: Final = ("int32", "int64")
NUMBERS: Final = (*WHOLE_TYPES, "float32", "float64")
ORDERED: Final = (*NUMBERS, "timestamp")
ANY: Final = (*ORDERED, "bool", "string", "bytes")
FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "count": ANY,
    "sum": NUMBERS,
    "mean": NUMBERS,
    "min": ORDERED,
    "max": ORDERED,
    "var": NUMBERS,
    "std": NUMBERS,
    "first": ANY,
    "last": ANY,
    "last_n": ANY,
    "count_distinct": ANY,
    "approx_quantile": NUMBERS,
}
"""Function -> the types that it takes."""


def default_hop(window_us: int) -> int:
    """The longest of HOPS_US of which the window is at least TILES_IN_WINDOW; 1 s for short ones."""
    fitting = [hop for hop in HOPS_US if hop * TILES_IN_WINDOW <= window_us]
    return fitting[-1] if fitting else HOPS_US[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """A function of one column over one or more windows: one feature for each window.

    Args:
        column: a column of the events; ``*`` for a count of events.
        function: one of FUNCTIONS.
        windows: how far back (``"5m"``, ``"30d"`` or timedeltas). Features are named after them as they are written.
        hop: by how much a window's tail moves at a time; a window is up to a hop longer than it says. ``0`` for exact
            windows, which keep every event. None: `default_hop` of each window.
        name: of the feature; with several windows ``name_5m``, … Default: column, function and window.
        n: how many values ``last_n`` keeps.
        quantile: the quantile of ``approx_quantile``, 0 … 1.
        bound: how many distinct values ``count_distinct`` counts exactly; beyond, it estimates with a standard error of
            1 / sqrt(bound - 2).
        description, tags: of the features.
    """

    column: str
    function: str
    windows: tuple[str, ...] = ()
    hop: str | None = None
    name: str = ""
    n: int = 0
    quantile: float | None = None
    bound: int = DISTINCT_BOUND
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        column: str,
        function: str,
        *,
        windows: Sequence[str | timedelta] | str | timedelta,
        hop: timedelta | str | int | None = None,
        name: str = "",
        n: int = 0,
        quantile: float | None = None,
        bound: int = DISTINCT_BOUND,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(windows, (str, timedelta)):
            windows = (windows,)
        freeze(
            self,
            column=column,
            function=function,
            windows=tuple(_text(window) for window in windows),
            hop=None if hop is None else _text(hop),
            name=name,
            n=n,
            quantile=quantile,
            bound=bound,
            description=description,
            tags=frozen_tags(tags),
        )

    def features(self) -> Iterator[tuple[str, str]]:
        """(feature name, window as written), in the order of the windows."""
        for window in self.windows:
            if self.name:
                yield (self.name if len(self.windows) == 1 else f"{self.name}_{window}"), window
            else:
                yield "_".join([*self._about(), window]), window

    def hop_us(self, window_us: int) -> int:
        """The hop of a window; an exact one is a hop of one microsecond, the clock's own.

        Raises:
            ValueError: the hop is no duration.
        """
        if self.hop is None:
            return default_hop(window_us)
        return max(parse_duration(self.hop), 1)

    def dtype(self, column: str) -> str:
        """The type of the features, of the column's type."""
        if self.function in ("count", "count_distinct"):
            return "int64"
        if self.function == "sum":
            return "int64" if column in WHOLE_TYPES else "float64"
        if self.function in ("min", "max", "first", "last"):
            return column
        return f"list<{column}>" if self.function == "last_n" else "float64"

    def _about(self) -> list[str]:
        if self.column == EVERY:
            return [self.function]
        what = {"last_n": f"last_{self.n}", "approx_quantile": _percent(self.quantile)}
        return [self.column, what.get(self.function, self.function)]


def _text(duration: timedelta | str | int) -> str:
    if isinstance(duration, timedelta):
        return format_duration(duration // timedelta(microseconds=1))
    return "0s" if duration == 0 else str(duration)


def _percent(quantile: float | None) -> str:
    """``p95`` of 0.95, ``p99_9`` of 0.999."""
    if not isinstance(quantile, (int, float)):
        return "quantile"
    return "p" + f"{round(quantile * 100, 6):g}".replace(".", "_")
