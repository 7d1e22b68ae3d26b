"""Tile rows: the tiles of all levels of one entity as bytes; docs/tile-format.md is the format of record.

24 bytes as of any row (docs/row-format.md), the version 2
for each level of the program: how many tiles, then by rising index: index, states
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastserve.aggregations.program import Level, Program
from fastserve.aggregations.states_py import Algebra, algebra
from fastserve.aggregations.wire_py import MISFIT, Reader, check, put_int, put_uint
from fastserve.codec.decoded import corrupt
from fastserve.codec.layout import HEADER_BYTES
from fastserve.codec.rows_py import TORN, crc32c
from fastserve.errors import CodecError

TILE_VERSION: Final = 2
EDGE_US: Final = 1 << 61
"""Events are within this of 1970, 73,000 years: ends of windows and of tiles beside them still are int64."""

_SIGN: Final = 1 << 63
_HEAD: Final = struct.Struct("<BBHIQQ")
_ORDER: Final = struct.Struct(">QQ")

Tiles = Mapping[int, Sequence[Any]]
"""Of one level: index -> the level's states."""


@dataclass(frozen=True, slots=True)
class TileRow:
    """One entity's tiles.

    Attributes:
        levels: for each level of the program, index -> states, as states_py has them.
        event_us: the newest event's time, microseconds UTC.
        created_us: when the row was written.
    """

    levels: tuple[Tiles, ...]
    event_us: int
    created_us: int


class TileCodec:
    """Tile rows of one program.

    Args:
        program: what the tiles are of.
        layout_id: of the view's schema, which goes with the program: rows of another are refused.
    """

    def __init__(self, program: Program, layout_id: int) -> None:
        self.program = program
        self.layout_id = layout_id
        self.algebras = tuple(
            tuple(algebra(program, state) for state in level.states) for level in program.levels
        )

    def encode(self, key: bytes, row: TileRow) -> bytes:
        """The row of a key."""
        body = bytearray(_ORDER.pack(row.event_us + _SIGN, row.created_us + _SIGN))
        for level, algebras, tiles in zip(self.program.levels, self.algebras, row.levels, strict=True):
            _put_tiles(body, level, algebras, tiles)
        head = struct.pack("<BBH", TILE_VERSION, 0, self.layout_id)
        return head + struct.pack("<I", crc32c(bytes(body), crc32c(key + head))) + bytes(body)

    def decode(self, key: bytes, row: bytes) -> TileRow:
        """Read a key's row.

        Raises:
            CodecError: it is cut, corrupt, of another key, layout or format.
        """
        wrong = self.refused(key, row)
        if wrong is not None:
            raise wrong
        event_us, created_us = _ORDER.unpack_from(row, 8)
        event_us, created_us = event_us - _SIGN, created_us - _SIGN
        data = Reader(row, HEADER_BYTES)
        try:
            check(abs(event_us) <= EDGE_US)
            levels = tuple(
                _take_tiles(data, level, algebras)
                for level, algebras in zip(self.program.levels, self.algebras, strict=True)
            )
            check(data.at == len(row))
        except CodecError:
            raise corrupt(key, MISFIT, self.layout_id, HEADER_BYTES) from None
        return TileRow(levels, event_us, created_us)

    def refused(self, key: bytes, row: bytes) -> CodecError | None:
        """What is wrong with the first 24 bytes of a key's row, if anything is."""
        if len(row) < HEADER_BYTES:
            return corrupt(key, f"the row is cut short: {len(row)} bytes", None, 0)
        if row[0] != TILE_VERSION or row[1]:
            return corrupt(key, f"no row of tiles: version {row[0]}, flags {row[1]}", None, 0)
        _, _, layout_id, crc, _, _ = _HEAD.unpack_from(row)
        if crc != crc32c(row[8:], crc32c(key + row[:4])):
            return corrupt(key, TORN, layout_id, 4)
        if layout_id != self.layout_id:
            return corrupt(key, "the layout is unknown", layout_id, 2)
        return None


def _put_tiles(out: bytearray, level: Level, algebras: Sequence[Algebra], tiles: Tiles) -> None:
    put_uint(out, len(tiles))
    before: int | None = None
    for index in sorted(tiles):
        if before is None:
            put_int(out, index)
        else:
            put_uint(out, index - before)
        before = index
        for each, state in zip(algebras, tiles[index], strict=True):
            each.encode(out, state, index * level.hop_us)


def _take_tiles(data: Reader, level: Level, algebras: Sequence[Algebra]) -> Tiles:
    tiles: dict[int, Sequence[Any]] = {}
    index = 0
    for i in range(data.unsigned()):
        step = data.unsigned() if i else data.signed()
        check(step > 0 or not i)
        index += step
        check(abs(index * level.hop_us) <= 2 * EDGE_US)
        start_us = index * level.hop_us
        tiles[index] = tuple(each.decode(data, start_us, level.hop_us) for each in algebras)
    return tiles
