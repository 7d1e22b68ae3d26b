"""Sums of floats and integers that are exact, so that no order, split or merge can change them.

A double is an integer times 2^-1074, its square one times 2^-2148: so a sum of either is a Python integer of units of
2^-2148, beside how many values were NaN or infinite. It is rounded once, when it is asked for. `_ext/exact.h` is the
twin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fastserve.aggregations.wire_py import Reader, check, put_int, put_uint

UNIT_BITS: Final = 2148
MAX_BYTES: Final = 600
_COUNTS: Final = 1 << 48


@dataclass(frozen=True, slots=True)
class Exact:
    """A sum: finite values as a multiple of 2^-2148, and how many of the others there were."""

    units: int = 0
    nans: int = 0
    plus: int = 0
    minus: int = 0

    def __add__(self, other: Exact) -> Exact:
        return Exact(
            self.units + other.units,
            self.nans + other.nans,
            self.plus + other.plus,
            self.minus + other.minus,
        )

    @property
    def finite(self) -> bool:
        """Whether all values were."""
        return not (self.nans or self.plus or self.minus)

    def rounded(self) -> float:
        """The nearest float64, ties to even; what overflows is infinite, and a sum of zero +0.0."""
        if self.nans or (self.plus and self.minus):
            return math.nan
        if self.plus or self.minus:
            return math.inf if self.plus else -math.inf
        return round_units(self.units, UNIT_BITS)


def exact(value: float | int, squared: bool = False) -> Exact:
    """One value, or its square."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return Exact(nans=1)
        return Exact(plus=1) if value > 0 or squared else Exact(minus=1)
    top, bottom = value.as_integer_ratio()
    if squared:
        top, bottom = top * top, bottom * bottom
    return Exact((top << UNIT_BITS) // bottom)


def round_units(units: int, bits: int) -> float:
    """units * 2^-bits as the nearest float64, or infinite."""
    try:
        return units / (1 << bits)
    except OverflowError:
        return math.inf if units > 0 else -math.inf


def encode_exact(out: bytearray, total: Exact) -> None:
    """[size of m << 2 | m < 0 << 1 | others follow] [NaNs, +inf, -inf] [e] [m]: m * 2^e with m odd, or nothing."""
    size = exponent = 0
    magnitude = abs(total.units)
    if magnitude:
        zeros = (magnitude & -magnitude).bit_length() - 1
        magnitude >>= zeros
        exponent = zeros - UNIT_BITS
        size = (magnitude.bit_length() + 7) // 8
    put_uint(out, size << 2 | (total.units < 0) << 1 | (not total.finite))
    if not total.finite:
        for count in (total.nans, total.plus, total.minus):
            put_uint(out, count)
    if size:
        put_int(out, exponent)
        out += magnitude.to_bytes(size, "little")


def decode_exact(data: Reader, lowest: int, top: int) -> Exact:
    """What encode_exact wrote: a multiple of 2^lowest below 2^top."""
    head = data.unsigned()
    size, negative, others = head >> 2, head >> 1 & 1, head & 1
    counts = [data.unsigned(_COUNTS) for _ in range(3)] if others else [0, 0, 0]
    check(any(counts) or not others)
    if not size:
        check(not negative)
        return Exact(0, *counts)
    exponent = data.signed()
    check(lowest <= exponent and size <= MAX_BYTES and exponent + 8 * size <= top)
    written = data.take(size)
    check(bool(written[0] & 1 and written[-1]))
    units = int.from_bytes(written, "little") << exponent + UNIT_BITS
    return Exact(-units if negative else units, *counts)
