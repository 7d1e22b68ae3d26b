"""A row of history and the row that a stream goes on with, into one; `_ext/tile_splice.pyx` is the twin.

What happened up to some instant is *settled*: no stream adds to it any more. Of each level, whose hop is h,

    tiles that end by then             history's, and no others
    the tile that it lies in           the stream's, for that may have later events; where it has none, history's
    tiles that begin then or later     the stream's

A stream's row whose newest event is settled gives way as a whole. So history heals what a stream left out, counted
twice or lost, and no event counts twice, however far either of them is behind the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastserve.aggregations.build_py import check_base
from fastserve.aggregations.hops import window_start
from fastserve.aggregations.program import Program
from fastserve.aggregations.tile_rows_py import TileCodec, TileRow, Tiles
from fastserve.batch.batch_py import FOUND, ReadBatch
from fastserve.codec.layout import HEADER_BYTES
from fastserve.errors import CodecError, InvalidDataError


class TileSplicer:
    """Splices the tile rows of one program.

    Args:
        program: the view's.
        layout_id: of the view's schema, 0..65,535.
    """

    def __init__(self, program: Program, layout_id: int) -> None:
        self.program = program
        self.codec = TileCodec(program, layout_id)

    def splice_into(
        self,
        out: ReadBatch,
        history: ReadBatch,
        held: ReadBatch,
        *,
        settled_us: npt.NDArray[np.int64],
        created_us: int,
    ) -> None:
        """The row that each key is to hold, set there; none where it is to hold what it does.

        A row that cannot be read counts as none, and so does one of another layout.

        Args:
            out: m keys; their rows are replaced.
            history: the same keys, and rows of events up to `settled_us`.
            held: the same keys, and the rows that they hold.
            settled_us: int64[m], of each key, microseconds UTC; see the module's docstring.
            created_us: the stamp of the new rows.

        Raises:
            InvalidDataError: the batches have other keys, or settled_us is not of them.
            CodecError: a row of history cannot be read.
        """
        check_base(out.keys() == history.keys() == held.keys())
        check_settled(settled_us, len(out))
        known = zip(history.rows(), history.states(), held.rows(), held.states(), strict=True)
        for i, (key, (new, new_state, old, old_state)) in enumerate(zip(out.keys(), known, strict=True)):
            one = self.codec.decode(key, new) if new is not None and new_state == FOUND else None
            other = self._read(key, old) if old_state == FOUND else None
            made = self._spliced(one, other, int(settled_us[i]), created_us)
            row = None if made is None else self.codec.encode(key, made)
            out.set(i, None if row is not None and _same(row, old) else row, 0, 0)

    def _read(self, key: bytes, row: bytes | None) -> TileRow | None:
        try:
            return None if row is None else self.codec.decode(key, row)
        except CodecError:
            return None

    def _spliced(
        self, history: TileRow | None, held: TileRow | None, settled_us: int, created_us: int
    ) -> TileRow | None:
        if held is None or (history is not None and held.event_us <= settled_us):
            return None if history is None else TileRow(history.levels, history.event_us, created_us)
        levels: list[Tiles] = []
        for number, level in enumerate(self.program.levels):
            first = window_start(held.event_us, level.span_us, level.hop_us) // level.hop_us
            cut = settled_us // level.hop_us
            goes_on = held.event_us > settled_us
            theirs = {k: v for k, v in held.levels[number].items() if goes_on and k >= max(first, cut)}
            ours = {} if history is None else history.levels[number]
            levels.append({k: v for k, v in ours.items() if first <= k <= cut} | theirs)
        return TileRow(tuple(levels), held.event_us, created_us)


def check_settled(settled_us: npt.NDArray[np.int64], m: int) -> None:
    """Raise InvalidDataError unless it says an instant of each of m keys."""
    if not isinstance(settled_us, np.ndarray) or settled_us.dtype != np.int64 or settled_us.shape != (m,):
        raise InvalidDataError("settled_us must be an int64 numpy array, one for each key")


def _same(row: bytes, held: bytes | None) -> bool:
    """But for when they were written."""
    return held is not None and row[8:16] == held[8:16] and row[HEADER_BYTES:] == held[HEADER_BYTES:]
