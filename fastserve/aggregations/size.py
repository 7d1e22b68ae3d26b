"""How large the online row of an aggregated view gets: it follows from the definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastserve.aggregations.program import Program, State, StateKind
from fastserve.codec.layout import HEADER_BYTES
from fastserve.types import SCALARS

_UINT: Final = 10  # the longest number; of a count, which is less than 2^48, 7
_COUNT: Final = 7
_SUM_BITS: Final = {"int32": 80, "int64": 112, "float32": 326, "float64": 2226}
"""From the least value's lowest bit to 2^48 times the largest value; squares have up to twice as many."""
_USUAL_SUM: Final = {"int32": 6, "int64": 8, "float32": 8, "float64": 10}
_USUAL_EVENT: Final = 4  # the time from an event to the next
_USUAL_OCTAVES: Final = 2  # values within a factor of 4


@dataclass(frozen=True, slots=True)
class RowSize:
    """Of one entity's row; docs/tile-format.md.

    Attributes:
        tiles: no row has more.
        usual: bytes of a row that has all of them, of values that are not far from each other.
        most: bytes that no row exceeds, whatever the values are; None where strings or bytes are kept.
    """

    tiles: int
    usual: int
    most: int | None


def row_size(program: Program) -> RowSize | None:
    """The size of a program's rows; None if a window is exact, for then each of its events is a tile."""
    if any(level.hop_us == 1 for level in program.levels):
        return None
    tiles = usual = 0
    most: int | None = HEADER_BYTES
    for level in program.levels:
        n = -(-level.span_us // level.hop_us) + 1
        tiles += n
        usual += 1 + n * (1 + sum(_usual(state, _dtype(program, state)) for state in level.states))
        states = [_most(state, _dtype(program, state)) for state in level.states]
        known = [size for size in states if size is not None]
        if most is not None:
            most = most + _UINT + n * (_UINT + sum(known)) if len(known) == len(states) else None
    return RowSize(tiles, HEADER_BYTES + usual, most)


def _dtype(program: Program, state: State) -> str:
    return program.columns[state.column].dtype if state.column >= 0 else "int64"


def _usual(state: State, dtype: str) -> int:
    """Bytes of one state of few hundred events; of a text 8."""
    width = SCALARS[dtype].width or 8
    match state.kind:
        case StateKind.EVENTS | StateKind.COUNT:
            return 1
        case StateKind.SUM:
            return _USUAL_SUM[dtype]
        case StateKind.SQUARES:
            return 2 * _USUAL_SUM[dtype]
        case StateKind.MIN | StateKind.MAX:
            return 1 + width
        case StateKind.DISTINCT:
            return 2 + 8 * state.parameter
        case StateKind.QUANTILES:
            return 1 + 2 * (_USUAL_OCTAVES << state.parameter)
    return 1 + max(state.parameter, 1) * (_USUAL_EVENT + width)


def _most(state: State, dtype: str) -> int | None:
    """Bytes that no such state exceeds."""
    width = SCALARS[dtype].width
    match state.kind:
        case StateKind.EVENTS | StateKind.COUNT:
            return _COUNT
        case StateKind.SUM | StateKind.SQUARES:
            bits = _SUM_BITS[dtype] << (state.kind is StateKind.SQUARES)
            return 2 + 3 * _COUNT + 2 + (bits + 7) // 8
        case StateKind.MIN | StateKind.MAX:
            return 1 + width
        case StateKind.DISTINCT:
            return _UINT + 8 * state.parameter
        case StateKind.QUANTILES:
            return 2 * _UINT + (2 * (0x7FF << state.parameter) + 2) * (4 + _COUNT)
    return _UINT + max(state.parameter, 1) * (_UINT + width) if width else None
