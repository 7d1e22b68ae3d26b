"""Tile rows -> a view's values at an instant, as ordinary rows of its schema; `_ext/tile_fold.pyx` is the twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastserve.aggregations.finals_py import finalize
from fastserve.aggregations.hops import window_start
from fastserve.aggregations.program import Output, Program
from fastserve.aggregations.states_py import empty_states, merge_states
from fastserve.aggregations.tile_rows_py import TileCodec, TileRow
from fastserve.aggregations.values_py import value_bytes
from fastserve.batch.batch_py import FOUND, UNKNOWN, ReadBatch
from fastserve.codec.fields import blob_list
from fastserve.codec.layout import Layout
from fastserve.codec.rows_py import pack_row
from fastserve.errors import CodecError
from fastserve.types import DType


class Folder:
    """Folds the tile rows of one program.

    Args:
        program: the view's.
        layout: of the view's schema, whose fields are the program's outputs; tile rows of another id are refused.

    Raises:
        CodecError: fields and outputs differ.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        check_outputs(program, layout)
        self.program = program
        self.layout = layout
        self.codec = TileCodec(program, layout.layout_id)

    def fold_into(
        self, batch: ReadBatch, start: int, stop: int, out: ReadBatch, at: int, *, now_us: int
    ) -> None:
        """The rows start … stop of a batch, folded, become rows at … of another, which has the same keys there.

        A row's values hold for max(now_us, its newest event): clocks differ by milliseconds. The time of the row that
        is made is that of the newest event, but never after now_us, so that nobody takes it for one from the future.
        Where there is no row, or none is known yet, there is none; flags and times of fetching go along.

        Raises:
            CodecError: a row is cut, corrupt, of another key, layout or format; what came before it is set.
        """
        rows, states = batch.rows(start, stop), batch.states(start, stop)
        flags, fetched, keys = (
            batch.flags(start, stop),
            batch.fetched_us(start, stop),
            batch.keys(start, stop),
        )
        for i, (key, row, state) in enumerate(zip(keys, rows, states, strict=True)):
            if state == UNKNOWN:
                continue
            made = self.fold(key, row, now_us) if state == FOUND and row is not None else None
            out.set(at + i, made, flags[i], fetched[i])

    def fold(self, key: bytes, row: bytes, now_us: int) -> bytes:
        """One row."""
        tiles = self.codec.decode(key, row)
        at_us = max(now_us, tiles.event_us)
        values = [
            field_bytes(dtype, self.value(output, tiles, at_us))
            for output, dtype in zip(self.program.outputs, self.layout.dtypes, strict=True)
        ]
        return pack_row(self.layout, key, values, min(tiles.event_us, now_us), tiles.created_us)

    def value(self, output: Output, row: TileRow, at_us: int) -> Any:
        """One feature's value at an instant that is not before the newest event; see finals_py.finalize."""
        level = self.program.levels[output.level]
        first = window_start(at_us, output.window_us, level.hop_us) // level.hop_us
        algebras = self.codec.algebras[output.level]
        folded: Sequence[Any] = empty_states(algebras)
        for index, states in row.levels[output.level].items():
            if index >= first:
                folded = merge_states(algebras, folded, states)
        return finalize(output, [folded[s] for s in output.states], level.states[output.states[0]].parameter)


def field_bytes(dtype: DType, value: Any) -> bytes | None:
    """A value as a row has it, None for null."""
    if value is None or not dtype.is_list:
        return None if value is None else value_bytes(dtype.item, value)
    parts = [value_bytes(dtype.item, item) for item in value]
    return b"".join(parts) if dtype.scalar.width else blob_list(parts)


def check_outputs(program: Program, layout: Layout) -> None:
    """Raise CodecError unless a layout has the program's outputs as its fields."""
    fields = list(zip(layout.names, map(str, layout.dtypes), strict=True))
    outputs = [(output.name, output.dtype) for output in program.outputs]
    if fields != outputs:
        raise CodecError(
            f"its fields are not the program's outputs: {fields}, {outputs}",
            where=f"layout {layout.layout_id}",
        )
