"""Values of features from the states of their windows; `_ext/tile_finals.pxd` is the twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastserve.aggregations.exact_py import UNIT_BITS, Exact, round_units
from fastserve.aggregations.program import Output
from fastserve.aggregations.sketches_py import distinct_estimate, quantile


def finalize(output: Output, states: Sequence[Any], parameter: int) -> Any:
    """The value, None for null.

    Args:
        states: those that output.states names, in that order, folded over the output's window.
        parameter: of the first of them.

    Returns:
        int, float, bool or bytes (of strings too), or of last_n a list of them, newest first.
    """
    first = states[0]
    match output.function:
        case "sum":
            return total(output.dtype, first) if states[1] else None
        case "mean":
            return first.rounded() / states[1] if states[1] else None
        case "var" | "std":
            return spread(first, states[1], states[2], output.function == "std")
        case "first" | "last":
            return first[0][1] if first else None
        case "last_n":
            return [value for _, value in reversed(first)] or None
        case "count_distinct":
            return distinct_estimate(first, parameter)
        case "approx_quantile":
            return quantile(first, output.argument, parameter)
    return first  # count, min, max


def total(dtype: str, added: Exact) -> int | float | None:
    """A sum: of integers an int64, or None where it is none."""
    if dtype != "int64":
        return added.rounded()
    whole = added.units >> UNIT_BITS
    return whole if -(2**63) <= whole < 2**63 else None


def spread(squares: Exact, added: Exact, n: int, root: bool) -> float | None:
    """The population variance (n * squares - added^2) / n^2, or its root: the numerator is exact and rounded once."""
    if not n:
        return None
    if not added.finite:
        return math.nan
    numerator = round_units(n * (squares.units << UNIT_BITS) - added.units**2, 2 * UNIT_BITS)
    variance = numerator / float(n * n)
    if root:  # negative only where a corrupt tile's sum is not that of its squares
        return math.sqrt(variance) if variance >= 0 else math.nan
    return variance
