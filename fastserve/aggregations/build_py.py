"""Events -> tile rows, and into tile rows that are there; `_ext/tile_build.pyx` is the twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.aggregations.hops import tile_of, window_start
from fastserve.aggregations.program import Program
from fastserve.aggregations.states_py import empty_states
from fastserve.aggregations.tile_rows_py import EDGE_US, TileCodec, TileRow
from fastserve.aggregations.values_py import Value, canonical_values
from fastserve.batch.batch_py import FOUND, ReadBatch
from fastserve.codec.fields import check_arrays
from fastserve.errors import InvalidDataError
from fastserve.types import parse_dtype

Event = tuple[int, tuple[Value | None, ...]]


class TileBuilder:
    """Builds the tile rows of one program.

    Args:
        program: the view's.
        layout_id: of the view's schema, 0..65,535.
    """

    def __init__(self, program: Program, layout_id: int) -> None:
        self.program = program
        self.codec = TileCodec(program, layout_id)

    def build_into(
        self,
        out: ReadBatch,
        codes: npt.NDArray[np.int64],
        event_us: npt.NDArray[np.int64],
        columns: Sequence[pa.Array],
        *,
        end_us: int,
        created_us: int,
        base: ReadBatch | None = None,
    ) -> None:
        """The tile row of each key of a batch, set there; none for a key without events or base row.

        A row has the tiles that a window at its newest event or later can need: so it follows from the events alone,
        whichever came earlier, as a base, and whichever now. Duplicates are the caller's: what is given here counts.

        Args:
            out: m keys; their rows are replaced.
            codes: int64[n], of each event the number of its key, 0 … m - 1, in any order.
            event_us: int64[n], microseconds UTC.
            columns: n long, in the order of program.columns and of exactly their Arrow types.
            end_us: events later than this are left out.
            created_us: the stamp of the new rows: a store lets them replace older ones of an equal newest event.
            base: the same keys, with the rows (or none) that the events come on top of.

        Raises:
            InvalidDataError: arguments do not fit; an event or end_us more than 2^61 us from 1970.
            CodecError: a base row is cut, corrupt, of another key, layout or format.
        """
        check_events(self.program, codes, event_us, columns, end_us)
        check_ranges(len(out), codes, event_us)
        values = [canonical_values(column) for column in columns]
        events: dict[int, list[Event]] = {}
        for i, (code, at) in enumerate(zip(codes.tolist(), event_us.tolist(), strict=True)):
            if at <= end_us:
                events.setdefault(code, []).append((at, tuple(column[i] for column in values)))
        bases = [None] * len(out) if base is None else _found(base, out.keys())
        for i, (key, row) in enumerate(zip(out.keys(), bases, strict=True)):
            made = None
            if row is not None or i in events:
                before = None if row is None else self.codec.decode(key, row)
                made = self.codec.encode(key, self.row(before, events.get(i, []), created_us))
            out.set(i, made, 0, 0)

    def row(self, base: TileRow | None, events: Sequence[Event], created_us: int) -> TileRow:
        """One entity's: a base and more events."""
        newest = max([at for at, _ in events] + ([base.event_us] if base else []))
        levels = []
        for number, level in enumerate(self.program.levels):
            first = window_start(newest, level.span_us, level.hop_us) // level.hop_us
            kept = base.levels[number].items() if base else ()
            tiles: dict[int, Sequence[Any]] = {index: states for index, states in kept if index >= first}
            for at, values in events:
                index = tile_of(at, level.hop_us)
                if index >= first:
                    tiles[index] = self._updated(number, tiles.get(index), at, values)
            levels.append(tiles)
        return TileRow(tuple(levels), newest, created_us)

    def _updated(
        self, number: int, states: Sequence[Any] | None, at: int, values: tuple[Value | None, ...]
    ) -> Sequence[Any]:
        algebras = self.codec.algebras[number]
        return [
            each.update(before, at, values[state.column] if state.column >= 0 else None)
            for each, state, before in zip(
                algebras, self.program.levels[number].states, states or empty_states(algebras), strict=True
            )
        ]


def check_events(
    program: Program,
    codes: npt.NDArray[np.int64],
    event_us: npt.NDArray[np.int64],
    columns: Sequence[pa.Array],
    end_us: int,
) -> None:
    """Raise InvalidDataError unless the arguments of build_into fit each other; what events hold is not looked at."""
    for name, array in (("codes", codes), ("event_us", event_us)):
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != (len(codes),):
            raise InvalidDataError(f"{name} must be an int64 numpy array, one for each event")
    if len(columns) != len(program.columns):
        raise InvalidDataError(f"{len(columns)} columns were given, the program is of {len(program.columns)}")
    names, dtypes = [c.name for c in program.columns], [parse_dtype(c.dtype) for c in program.columns]
    check_arrays(names, dtypes, columns, len(codes))
    if not -EDGE_US <= end_us <= EDGE_US:
        raise InvalidDataError(f"end_us {end_us} is more than 2^61 us from 1970")


def check_ranges(m: int, codes: npt.NDArray[np.int64], event_us: npt.NDArray[np.int64]) -> None:
    """Raise InvalidDataError unless codes are of m keys and times near enough to 1970."""
    if len(codes) and not (0 <= int(codes.min()) and int(codes.max()) < m):
        raise InvalidDataError(f"a code is not one of the {m:,} keys'", hint="codes count from 0")
    if len(codes) and not (-EDGE_US <= int(event_us.min()) and int(event_us.max()) <= EDGE_US):
        raise InvalidDataError("an event is more than 2^61 us from 1970")


def check_base(same_keys: bool) -> None:
    """Raise InvalidDataError unless a base has the keys of the batch that is built into."""
    if not same_keys:
        raise InvalidDataError("the base has other keys than the batch that is built into")


def _found(base: ReadBatch, keys: list[bytes]) -> list[bytes | None]:
    check_base(base.keys() == keys)
    return [row if state == FOUND else None for row, state in zip(base.rows(), base.states(), strict=True)]
