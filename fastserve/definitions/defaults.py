"""Does a declared default fit its type? Defaults are plain Python and JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastserve.timeutil import MAX_US, MIN_US
from fastserve.types import DType


def _is_int(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _is_float(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "bool": lambda v: isinstance(v, bool),
    "int32": _is_int(-(2**31), 2**31 - 1),
    "int64": _is_int(-(2**63), 2**63 - 1),
    "float32": _is_float,
    "float64": _is_float,
    "timestamp": _is_int(MIN_US, MAX_US),  # microseconds
    "string": lambda v: isinstance(v, str),
    "bytes": lambda v: isinstance(v, bytes),
}


def default_problem(value: Any, dtype: DType) -> str:
    """What is wrong with this default for this type; '' when it fits. None is no default."""
    if value is None:
        return ""
    fits = _FITS[dtype.item]
    if not dtype.is_list:
        return "" if fits(value) else f"default {value!r} is not a {dtype}"
    if not isinstance(value, (list, tuple)) or not all(fits(v) for v in value):
        return f"default {value!r} is not a {dtype}"
    if dtype.length is not None and len(value) != dtype.length:
        return f"default has {len(value)} items, not {dtype.length}"
    return ""
