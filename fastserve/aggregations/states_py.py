"""Partial aggregates, in plain Python: what each function keeps of events, and how it is merged; the readable spec.

    algebra   for a State    what it is                                           empty
    Counted   EVENTS, COUNT  int                                                  0
    Summed    SUM, SQUARES   Exact                                                Exact()
    Extreme   MIN, MAX       the value                                            None
    Ranked    FIRST, LAST, LAST_N  ((event_ts, value), …) rising                  ()
    Distinct  DISTINCT       (hash, …) rising                                     ()
    Buckets   QUANTILES      ((bucket, how many), …) buckets rising               ()

``merge`` is associative and commutative, ``update`` is a merge with one event: so neither order nor partition of the
events shows. Bytes are those of docs/tile-format.md, canonical: equal states are equal bytes. `_ext/tile_states.pxd`
and `_ext/tile_bytes.pxd` are the twin.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, Protocol

from fastserve.aggregations.exact_py import Exact, decode_exact, encode_exact, exact
from fastserve.aggregations.program import Program, State, StateKind
from fastserve.aggregations.sketches_py import bucket_of, xxh64
from fastserve.aggregations.values_py import Value, order, value_bytes, value_of
from fastserve.aggregations.wire_py import Reader, check, put_int, put_uint
from fastserve.types import SCALARS

COUNT_LIMIT = 1 << 48
"""Counts in tiles are below this."""


class Algebra(Protocol):
    """One state of a program; the states themselves are immutable."""

    empty: Any

    def update(self, state: Any, event_us: int, value: Value | None) -> Any:
        """The state with one more event; a null changes none but EVENTS."""

    def merge(self, one: Any, other: Any) -> Any:
        """The state of the events of both."""

    def encode(self, out: bytearray, state: Any, start_us: int) -> None:
        """Append the state of a tile of events after start_us."""

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Any:
        """Read it again.

        Raises:
            CodecError: the bytes are not those of such a state.
        """


def algebra(program: Program, state: State) -> Algebra:
    """What a state of the program does."""
    dtype = program.columns[state.column].dtype if state.column >= 0 else ""
    match state.kind:
        case StateKind.EVENTS | StateKind.COUNT:
            return Counted(state.kind is StateKind.EVENTS)
        case StateKind.SUM | StateKind.SQUARES:
            return Summed(dtype, state.kind is StateKind.SQUARES)
        case StateKind.MIN | StateKind.MAX:
            return Extreme(dtype, state.kind is StateKind.MAX)
        case StateKind.FIRST:
            return Ranked(dtype, 1, first=True)
        case StateKind.LAST | StateKind.LAST_N:
            return Ranked(dtype, max(state.parameter, 1), first=False)
        case StateKind.DISTINCT:
            return Distinct(dtype, state.parameter)
    return Buckets(state.parameter)


class Counted:
    """How many."""

    empty = 0

    def __init__(self, nulls: bool) -> None:
        self.nulls = nulls

    def update(self, state: int, event_us: int, value: Value | None) -> int:
        return state + (self.nulls or value is not None)

    def merge(self, one: int, other: int) -> int:
        return one + other

    def encode(self, out: bytearray, state: int, start_us: int) -> None:
        put_uint(out, state)

    def decode(self, data: Reader, start_us: int, hop_us: int) -> int:
        return data.unsigned(COUNT_LIMIT)


class Summed:
    """The exact sum of values, or of their squares."""

    empty = Exact()

    def __init__(self, dtype: str, squared: bool) -> None:
        self.squared = squared
        self.lowest = 0 if dtype.startswith("int") else -1074 << squared
        self.top = 1152 << squared  # 2^48 of the largest doubles, or of their squares, are less than 2^top

    def update(self, state: Exact, event_us: int, value: Any) -> Exact:
        return state if value is None else state + exact(value, self.squared)

    def merge(self, one: Exact, other: Exact) -> Exact:
        return one + other

    def encode(self, out: bytearray, state: Exact, start_us: int) -> None:
        encode_exact(out, state)

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Exact:
        return decode_exact(data, self.lowest, self.top)


class Extreme:
    """The least or the greatest value; NaN where there is any."""

    empty = None

    def __init__(self, dtype: str, greatest: bool) -> None:
        self.dtype = dtype
        self.greatest = greatest

    def update(self, state: Any, event_us: int, value: Value | None) -> Any:
        return self.merge(state, value)

    def merge(self, one: Any, other: Any) -> Any:
        given = [value for value in (one, other) if value is not None]
        if any(value != value for value in given):
            return math.nan
        return (max if self.greatest else min)(given, key=order, default=None)

    def encode(self, out: bytearray, state: Any, start_us: int) -> None:
        out.append(state is not None)
        out += b"" if state is None else value_bytes(self.dtype, state)

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Any:
        return decode_value(data, self.dtype) if data.unsigned(2) else None


class Ranked:
    """The n first or last events, by (event_ts, value): a multiset."""

    empty: tuple[tuple[int, Value], ...] = ()

    def __init__(self, dtype: str, n: int, *, first: bool) -> None:
        self.dtype = dtype
        self.n = n
        self.first = first

    def update(self, state: Any, event_us: int, value: Value | None) -> Any:
        return state if value is None else self.merge(state, ((event_us, value),))

    def merge(self, one: Any, other: Any) -> Any:
        both = tuple(heapq.merge(one, other, key=self.rank))
        return both[: self.n] if self.first else both[-self.n :]

    def rank(self, event: tuple[int, Value]) -> tuple[int, Any]:
        return event[0], order(event[1])

    def encode(self, out: bytearray, state: Any, start_us: int) -> None:
        put_uint(out, len(state))
        before = start_us + 1
        for event_us, value in state:
            put_uint(out, event_us - before)
            before = event_us
            if not SCALARS[self.dtype].width:
                put_uint(out, len(value))
            out += value_bytes(self.dtype, value)

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Any:
        state: list[tuple[int, Value]] = []
        event_us = start_us + 1
        for _ in range(data.unsigned(self.n + 1)):
            event_us += data.unsigned(hop_us)
            check(event_us <= start_us + hop_us)
            state.append((event_us, decode_value(data, self.dtype)))
            check(self.rank(state[-2]) <= self.rank(state[-1]) if len(state) > 1 else True)
        return tuple(state)


class Distinct:
    """The `bound` least hashes of the values."""

    empty: tuple[int, ...] = ()

    def __init__(self, dtype: str, bound: int) -> None:
        self.dtype = dtype
        self.bound = bound

    def update(self, state: Any, event_us: int, value: Value | None) -> Any:
        return state if value is None else self.merge(state, (xxh64(value_bytes(self.dtype, value)),))

    def merge(self, one: Any, other: Any) -> Any:
        return tuple(sorted({*one, *other})[: self.bound])

    def encode(self, out: bytearray, state: Any, start_us: int) -> None:
        put_uint(out, len(state))
        for word in state:
            out += word.to_bytes(8, "little")

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Any:
        count = data.unsigned(self.bound + 1)
        state = tuple(int.from_bytes(data.take(8), "little") for _ in range(count))
        check(list(state) == sorted(set(state)))
        return state


class Buckets:
    """How many values are in each bucket of bucket_of; NaN is in none."""

    empty: tuple[tuple[int, int], ...] = ()

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def update(self, state: Any, event_us: int, value: Any) -> Any:
        if value is None or value != value:
            return state
        return self.merge(state, ((bucket_of(value, self.bits), 1),))

    def merge(self, one: Any, other: Any) -> Any:
        counts = dict(one)
        for bucket, count in other:
            counts[bucket] = counts.get(bucket, 0) + count
        return tuple(sorted(counts.items()))

    def encode(self, out: bytearray, state: Any, start_us: int) -> None:
        put_uint(out, len(state))
        before: int | None = None
        for bucket, count in state:
            if before is None:
                put_int(out, bucket)
            else:
                put_uint(out, bucket - before)
            before = bucket
            put_uint(out, count)

    def decode(self, data: Reader, start_us: int, hop_us: int) -> Any:
        state: list[tuple[int, int]] = []
        top = 0x7FF << self.bits
        for i in range(data.unsigned(2 * top + 3)):
            bucket = state[-1][0] + data.unsigned(2 * top + 2) if i else data.signed()
            count = data.unsigned(COUNT_LIMIT)
            check(count > 0 and -top - 1 <= bucket <= top and (not i or bucket > state[-1][0]))
            state.append((bucket, count))
        return tuple(state)


def decode_value(data: Reader, dtype: str) -> Value:
    """One value: of fixed width, or its length and its bytes."""
    width = SCALARS[dtype].width
    written = data.take(width or data.unsigned(1 << 32))
    value = value_of(dtype, written)
    check(value_bytes(dtype, value) == written)  # a bool is 0 or 1, a NaN the one
    return value


def empty_states(algebras: Sequence[Algebra]) -> list[Any]:
    """The states of no events."""
    return [each.empty for each in algebras]


def merge_states(algebras: Sequence[Algebra], one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """State by state."""
    return [each.merge(a, b) for each, a, b in zip(algebras, one, other, strict=True)]
