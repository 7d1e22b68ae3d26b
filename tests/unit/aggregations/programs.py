"""Programs, events and their oracle, for tests of tile rows: any function over any type, several windows and hops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from fastserve.aggregations.program import Column, Level, Output, Program, State, StateKind
from fastserve.aggregations.sketches_py import xxh64
from fastserve.aggregations.values_py import value_bytes
from fastserve.codec.layout import Layout
from fastserve.types import SCALARS, arrow_type, parse_dtype
from tests.oracles.bits import bits
from tests.oracles.windows import window_value

NUMBERS = ("int32", "int64", "float32", "float64")
ORDERED = (*NUMBERS, "timestamp")
KINDS = {
    "count": (StateKind.COUNT,),
    "sum": (StateKind.SUM, StateKind.COUNT),
    "mean": (StateKind.SUM, StateKind.COUNT),
    "var": (StateKind.SQUARES, StateKind.SUM, StateKind.COUNT),
    "std": (StateKind.SQUARES, StateKind.SUM, StateKind.COUNT),
    "min": (StateKind.MIN,),
    "max": (StateKind.MAX,),
    "first": (StateKind.FIRST,),
    "last": (StateKind.LAST,),
    "last_n": (StateKind.LAST_N,),
    "count_distinct": (StateKind.DISTINCT,),
    "approx_quantile": (StateKind.QUANTILES,),
    "events": (StateKind.EVENTS,),
}
FUNCTIONS = {dtype: [f for f in KINDS if f != "events" and (
    f in ("count", "first", "last", "last_n", "count_distinct")
    or (f in ("min", "max") and dtype in ORDERED)
    or dtype in NUMBERS)] for dtype in SCALARS}  # fmt: skip
N, BOUND, QUANTILE, BITS = 3, 4, 0.3, 6
ARGUMENTS = {"last_n": N, "count_distinct": BOUND, "approx_quantile": (QUANTILE, BITS)}
PARAMETERS = {StateKind.LAST_N: N, StateKind.DISTINCT: BOUND, StateKind.QUANTILES: BITS}
EXTREMES = {
    "bool": [True, False],
    "int32": [0, 1, -1, 2**31 - 1, -(2**31)],
    "int64": [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "timestamp": [0, 1, -1, 2**63 - 1, -(2**63)],
    "float64": [
        0.0,
        -0.0,
        0.1,
        -1e16,
        1e308,
        -1e308,
        1.7e308,
        5e-324,
        -5e-324,
        2.3e-308,
        math.inf,
        -math.inf,
        math.nan,
    ],
    "float32": [0.0, -0.0, 0.5, 3.4028234663852886e38, 1.401298464324817e-45, math.inf, -math.inf, math.nan],
    "string": ["", "a", "b", "é", "a\0", "z" * 40],
    "bytes": [b"", b"a", b"\xff", b"\0" * 33],
}


def result_type(function: str, dtype: str) -> str:
    """Of a function over values of a type."""
    if function in ("count", "events", "count_distinct"):
        return "int64"
    if function == "sum":
        return "int64" if dtype.startswith("int") else "float64"
    if function == "last_n":
        return f"list<{dtype}>"
    return dtype if function in ("min", "max", "first", "last") else "float64"


@dataclass(frozen=True)
class Asked:
    """An output as it is defined."""

    function: str
    column: int
    window: int
    hop: int


def program_of(dtypes: Sequence[str], asked: Sequence[Asked]) -> Program:
    """Levels by hop, states shared; as compile_program would."""
    columns = tuple(Column(f"c{i}", dtype) for i, dtype in enumerate(dtypes))
    hops = sorted({each.hop for each in asked})
    states: dict[int, list[State]] = {hop: [] for hop in hops}
    outputs = []
    for number, each in enumerate(asked):
        of = states[each.hop]
        used = []
        for kind in KINDS[each.function]:
            state = State(kind, each.column if kind is not StateKind.EVENTS else -1, PARAMETERS.get(kind, 0))
            if state not in of:
                of.append(state)
            used.append(of.index(state))
        name = "count" if each.function == "events" else each.function
        dtype = result_type(each.function, dtypes[each.column])
        argument = QUANTILE if each.function == "approx_quantile" else 0.0
        outputs.append(
            Output(f"f{number}", dtype, name, hops.index(each.hop), each.window, tuple(used), argument)
        )
    spans = {hop: max(each.window for each in asked if each.hop == hop) for hop in hops}
    return Program(columns, tuple(Level(h, spans[h], tuple(states[h])) for h in hops), tuple(outputs))


def layout_of(program: Program, layout_id: int = 3) -> Layout:
    names = tuple(output.name for output in program.outputs)
    return Layout(layout_id, names, tuple(parse_dtype(output.dtype) for output in program.outputs))


@dataclass(frozen=True)
class Case:
    """A program, m entities and their events (code, event_ts, a value for each column), and what is asked of them."""

    dtypes: tuple[str, ...]
    asked: tuple[Asked, ...]
    m: int
    events: tuple[tuple[int, int, tuple[Any, ...]], ...]

    @property
    def program(self) -> Program:
        return program_of(self.dtypes, self.asked)

    def arrays(self, events: Sequence[Any] | None = None) -> tuple[Any, Any, list[pa.Array]]:
        """Codes, times and columns as a builder wants them."""
        given = list(self.events if events is None else events)
        columns = [
            pa.array([values[i] for _, _, values in given], arrow_type(parse_dtype(dtype)))
            for i, dtype in enumerate(self.dtypes)
        ]
        codes, times = ([event[i] for event in given] for i in (0, 1))
        return np.array(codes, np.int64), np.array(times, np.int64), columns

    def expected(self, code: int, t: int) -> list[Any]:
        """What the oracle says of an entity at t, as bits."""
        types = [arrow_type(parse_dtype(output.dtype)) for output in self.program.outputs]
        values = self.values(code, t)
        return [bits(pa.array([value], kind))[0] for value, kind in zip(values, types, strict=True)]

    def values(self, code: int, t: int) -> list[Any]:
        """What the oracle says."""
        columns = [
            [(ts, canonical(values[i])) for c, ts, values in self.events if c == code]
            for i in range(len(self.dtypes))
        ]
        return [
            window_value(
                each.function,
                columns[each.column],
                t=t,
                window=each.window,
                hop=each.hop,
                dtype=self.dtypes[each.column],
                argument=ARGUMENTS.get(each.function),
                hashed=lambda v, dtype=self.dtypes[each.column]: xxh64(value_bytes(dtype, v)),
            )
            for each in self.asked
        ]


def canonical(value: Any) -> Any:
    """Text as its bytes, which are in another order than Python has it; one NaN."""
    if isinstance(value, str):
        return value.encode()
    return math.nan if value is not None and value != value else value


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    """Null, something at the edge, or anything."""
    anything = {
        "bool": st.booleans(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "timestamp": st.integers(-(2**63), 2**63 - 1),
        "float32": st.floats(width=32),
        "float64": st.floats(),
        "string": st.text(max_size=5),
        "bytes": st.binary(max_size=5),
    }[dtype]
    money = [st.integers(-500, 500).map(lambda cents: cents / 100)] if dtype == "float64" else []
    return st.one_of(st.sampled_from([None, *EXTREMES[dtype]]), anything, *money)


@st.composite
def cases(draw: st.DrawFn, max_events: int = 30) -> Case:
    """Few types, any functions of them over windows from a microsecond to all of time there is here."""
    dtypes = tuple(draw(st.lists(st.sampled_from(list(SCALARS)), min_size=1, max_size=3)))
    asked = []
    for _ in range(draw(st.integers(1, 6))):
        column = draw(st.integers(0, len(dtypes) - 1))
        function = draw(st.sampled_from([*FUNCTIONS[dtypes[column]], "events"]))
        hop = draw(st.sampled_from([1, 10, 60]))
        asked.append(Asked(function, column, draw(st.sampled_from([hop, 2 * hop, 25, 120, 1000])), hop))
    m = draw(st.integers(1, 3))
    event = st.tuples(st.integers(0, m - 1), st.integers(-150, 150), st.tuples(*map(values_of, dtypes)))
    return Case(dtypes, tuple(asked), m, tuple(draw(st.lists(event, max_size=max_events))))
