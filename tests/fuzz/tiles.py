"""Tile rows, folded, built upon, spliced: [how] [event time, created time] [tiles]; header and checksum made right.

A checksum of one's own would keep nearly all inputs out; those of rows are fuzzed by rows.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.rows import crc32c
from fastserve._native.tile_build import TileBuilder
from fastserve._native.tile_fold import Folder
from fastserve._native.tile_splice import TileSplicer
from fastserve.aggregations.build_py import TileBuilder as PyTileBuilder
from fastserve.aggregations.fold_py import Folder as PyFolder
from fastserve.aggregations.splice_py import TileSplicer as PyTileSplicer
from fastserve.batch.batch_py import ReadBatch as PyReadBatch
from fastserve.errors import CodecError
from fastserve.types import arrow_type, parse_dtype
from tests.fuzz.sampling import sampled
from tests.unit.aggregations.programs import FUNCTIONS, Asked, layout_of, program_of

KEY, LAYOUT_ID, NOW = b"7:1", 3, 115
VALUES = {"string": "ab", "bool": True, "float64": 0.1, "float32": 0.5}
DTYPES = (("float64", "int64", "float32"), ("string", "bool", "timestamp", "int32"))


def parts(dtypes: tuple[str, ...]) -> Any:
    """Every function over these types, in windows exact and coarse."""
    asked = [Asked("events", 0, 40, 10)]
    for column, dtype in enumerate(dtypes):
        asked += [Asked(function, column, 40, 10) for function in FUNCTIONS[dtype]]
        asked += [Asked(function, column, 100, 1 if column else 10) for function in FUNCTIONS[dtype][::2]]
    program = program_of(dtypes, asked)
    layout = layout_of(program, LAYOUT_ID)
    return SimpleNamespace(
        program=program,
        columns=[pa.array([VALUES.get(dtype, 7)], arrow_type(parse_dtype(dtype))) for dtype in dtypes],
        native=side(
            ReadBatch,
            Folder(program, layout),
            TileBuilder(program, LAYOUT_ID),
            TileSplicer(program, LAYOUT_ID),
        ),
        twin=side(
            PyReadBatch,
            PyFolder(program, layout),
            PyTileBuilder(program, LAYOUT_ID),
            PyTileSplicer(program, LAYOUT_ID),
        ),
    )


def side(batch: Any, folder: Any, builder: Any, splicer: Any) -> Any:
    return SimpleNamespace(batch=batch, fold=folder, build=builder, splice=splicer)


PARTS = [parts(dtypes) for dtypes in DTYPES]


def row_of(data: bytes) -> bytes:
    """The row of an input."""
    head = bytes([2, 0, LAYOUT_ID, 0])
    rest = data[1:].ljust(16, b"\0")
    return head + crc32c(rest, crc32c(head, crc32c(KEY))).to_bytes(4, "little") + rest


def fold(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    of, row = PARTS[data[0] & 1], row_of(data)
    seen = answer(of, of.native, row)
    if sampled(data, 32):
        expected = answer(of, of.twin, row)
        assert seen == expected, f"{seen!r}, the twin {expected!r}"
        if seen[0][0] is None:
            codec = of.twin.build.codec
            assert codec.encode(KEY, codec.decode(KEY, row)) == row, "it could be written otherwise"


def answer(of: Any, side: Any, row: bytes) -> Any:
    """The values now, and the row with one more event: neither, or both; and, always, history in its place."""
    batch, values, built = side.batch([KEY]), side.batch([KEY]), side.batch([KEY])
    batch.fill([row], 0)
    event = np.zeros(1, np.int64), np.array([95]), of.columns
    history, spliced = side.batch([KEY]), side.batch([KEY])
    side.build.build_into(history, *event, end_us=NOW, created_us=0)
    side.splice.splice_into(spliced, history, batch, settled_us=np.array([row[16] - 20]), created_us=1)
    found: list[object] = []
    for step in (
        lambda: side.fold.fold_into(batch, 0, 1, values, 0, now_us=NOW),
        lambda: side.build.build_into(built, *event, end_us=NOW, created_us=0, base=batch),
    ):
        try:
            step()
            found.append(None)
        except CodecError as error:
            found.append(str(error))
    assert (found[0] is None) == (found[1] is None), found
    return found, values.rows(), built.rows(), spliced.rows()
