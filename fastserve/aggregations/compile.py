"""An aggregated view's definition as a Program: which states its features share, and one level for each hop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fastserve.aggregations.program import Column, Level, Output, Program, State, StateKind
from fastserve.definitions import AggregatedFeatureView, Aggregation
from fastserve.definitions.aggregation import EVERY
from fastserve.timeutil import parse_duration

QUANTILE_BITS: Final = 6
"""Of a mantissa, in QUANTILES: a quantile's relative error is at most 2^-7."""

_STATES: Final = {
    "count": (StateKind.COUNT,),
    "sum": (StateKind.SUM, StateKind.COUNT),
    "mean": (StateKind.SUM, StateKind.COUNT),
    "min": (StateKind.MIN,),
    "max": (StateKind.MAX,),
    "var": (StateKind.SQUARES, StateKind.SUM, StateKind.COUNT),
    "std": (StateKind.SQUARES, StateKind.SUM, StateKind.COUNT),
    "first": (StateKind.FIRST,),
    "last": (StateKind.LAST,),
    "last_n": (StateKind.LAST_N,),
    "count_distinct": (StateKind.DISTINCT,),
    "approx_quantile": (StateKind.QUANTILES,),
}


@dataclass(slots=True)
class _Level:
    """A level while it is put together."""

    span_us: int = 0
    states: list[State] = field(default_factory=list)

    def index(self, state: State) -> int:
        if state not in self.states:
            self.states.append(state)
        return self.states.index(state)


def compile_program(view: AggregatedFeatureView) -> Program:
    """What a valid view needs computed. Levels by ascending hop; states and columns in order of first use."""
    columns: list[Column] = []
    levels: dict[int, _Level] = {}
    found: list[tuple[str, Aggregation, int, int, tuple[int, ...]]] = []
    for aggregation in view.aggregations:
        states = _states(view, aggregation, columns)
        for name, window in aggregation.features():
            window_us = parse_duration(window)
            hop_us = aggregation.hop_us(window_us)
            level = levels.setdefault(hop_us, _Level())
            level.span_us = max(level.span_us, window_us)
            found.append((name, aggregation, hop_us, window_us, tuple(map(level.index, states))))
    hops = sorted(levels)
    outputs = [
        Output(
            name,
            _dtype(view, name),
            aggregation.function,
            hops.index(hop_us),
            window_us,
            states,
            float(aggregation.quantile or 0.0),
        )
        for name, aggregation, hop_us, window_us, states in found
    ]
    made = (Level(hop_us, levels[hop_us].span_us, tuple(levels[hop_us].states)) for hop_us in hops)
    return Program(tuple(columns), tuple(made), tuple(outputs))


def _states(
    view: AggregatedFeatureView, aggregation: Aggregation, columns: list[Column]
) -> tuple[State, ...]:
    if aggregation.column == EVERY:
        return (State(StateKind.EVENTS),)
    declared = view.events.column(aggregation.column)
    assert declared is not None  # validate_windows.py
    column = Column(declared.name, declared.dtype)
    if column not in columns:
        columns.append(column)
    parameter = {
        StateKind.LAST_N: aggregation.n,
        StateKind.DISTINCT: aggregation.bound,
        StateKind.QUANTILES: QUANTILE_BITS,
    }
    return tuple(
        State(kind, columns.index(column), parameter.get(kind, 0)) for kind in _STATES[aggregation.function]
    )


def _dtype(view: AggregatedFeatureView, name: str) -> str:
    declared = view.field(name)
    assert declared is not None
    return declared.dtype
