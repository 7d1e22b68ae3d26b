"""Values of windows, word for word: an entity's events one by one, exactly; nothing is shared with the product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any


def window_value(
    function: str,
    events: Sequence[tuple[int, Any]],
    *,
    t: int,
    window: int,
    hop: int,
    dtype: str,
    argument: Any = None,
    hashed: Callable[[Any], int] = hash,
) -> Any:
    """The value at t over events (event_ts, value or None); None for null.

    Args:
        function: of the definitions; "events" is count of "*".
        dtype: of the values.
        argument: n of last_n, the bound of count_distinct, (quantile, bits) of approx_quantile.
        hashed: count_distinct's 64-bit hash of a value.
    """
    start = math.floor(Fraction(t - window, hop)) * hop
    inside = [event for event in events if start < event[0] <= t]
    if function == "events":
        return len(inside)
    ranked = sorted(((ts, v) for ts, v in inside if v is not None), key=lambda e: (e[0], rank(e[1])))
    values = [value for _, value in ranked]
    if function == "count":
        return len(values)
    if function == "count_distinct":
        return distinct(values, argument, hashed)
    if not values:
        return None
    if function in ("first", "last"):
        return values[0 if function == "first" else -1]
    if function == "last_n":
        return values[::-1][:argument]
    if function == "approx_quantile":
        return quantile([float(v) for v in values if v == v], *argument)
    if function in ("min", "max"):
        nans = [v for v in values if v != v]
        return nans[0] if nans else sorted(values, key=rank)[0 if function == "min" else -1]
    return moments(function, values, dtype)


def rank(value: Any) -> Any:
    """-0.0 before 0.0, NaN after infinity."""
    if not isinstance(value, float):
        return value
    return (value != value, 0.0 if value != value else value, math.copysign(1.0, value))


def moments(function: str, values: list[Any], dtype: str) -> Any:
    n = len(values)
    if function == "sum" and dtype in ("int32", "int64"):
        return sum(values) if -(2**63) <= sum(values) < 2**63 else None
    odd = {str(v) for v in values if not math.isfinite(v)}
    if odd:
        total = float(odd.pop()) if len(odd) == 1 else math.nan
        return {"sum": total, "mean": total / n}.get(function, math.nan)
    exact = [Fraction(v) for v in values]
    if function in ("sum", "mean"):
        return nearest(sum(exact)) / (n if function == "mean" else 1)
    variance = nearest(n * sum(v * v for v in exact) - sum(exact) ** 2) / float(n * n)
    return math.sqrt(variance) if function == "std" else variance


def nearest(value: Fraction | int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def distinct(values: list[Any], bound: int, hashed: Callable[[Any], int]) -> int:
    """The number of values, or what the bound-th smallest hash says of it."""
    hashes = sorted({hashed(v) for v in values})
    return (
        len(hashes)
        if len(hashes) < bound
        else round(Fraction(bound - 1) / Fraction(hashes[bound - 1], 2**64))
    )


def quantile(values: list[float], q: float, bits: int) -> float | None:
    """The value of rank ceil(q * n), and then the middle of those that share its leading bits."""
    if not values:
        return None
    value = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    if math.isinf(value) or abs(value) < 2.0 ** (-1022 - bits):
        return 0.0 if math.isfinite(value) else value
    step = math.ulp(value) * 2 ** (52 - bits)
    middle = math.floor(Fraction(abs(value)) / Fraction(step)) * Fraction(step) + Fraction(step) / 2
    return math.copysign(float(middle), value)
