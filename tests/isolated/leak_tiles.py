"""Events into tile rows, on top of others and in their place, and into values: every function, also what is refused."""

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.tile_build import TileBuilder
from fastserve._native.tile_fold import Folder
from fastserve._native.tile_splice import TileSplicer
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.codec.rows_py import crc32c
from fastserve.errors import CodecError, InvalidDataError
from tests.isolated.meter import run
from tests.unit.aggregations.programs import FUNCTIONS, Asked, layout_of, program_of

NATIVES = ("tile_build", "tile_fold", "tile_splice")
ASKED = [
    Asked(f, c, w, 10) for c, d in enumerate(("float64", "string")) for f in FUNCTIONS[d] for w in (20, 90)
]
PROGRAM = program_of(["float64", "string"], ASKED)
LAYOUT = layout_of(PROGRAM)
BUILDER, FOLDER, SPLICER = TileBuilder(PROGRAM, 3), Folder(PROGRAM, LAYOUT), TileSplicer(PROGRAM, 3)
PLAIN = TileBuilder(
    program_of(["float64"], [Asked(f, 0, 20, 10) for f in ("events", "sum", "min", "max")]), 3
)
KEYS = [b"7:a", b"7:b"]
CODES, TIMES = np.array([0, 1, 0, 0, 1] * 3), np.arange(15) * 7
COLUMNS = [
    pa.array([1.5, 1e300, -0.0, None, float("inf")] * 3),
    pa.array(["x" * 99, None, "", "é", "a"] * 3),
]


def built(base: ReadBatch | None = None) -> ReadBatch:
    out = ReadBatch(KEYS)
    BUILDER.build_into(out, CODES, TIMES, COLUMNS, end_us=200, created_us=0, base=base)
    return out


ONE = built()
ROWS = ONE.rows()
TWO = built(ONE).rows()
assert all(TileCodec(PROGRAM, 3).decode(key, row) for key, row in zip(KEYS, TWO, strict=True))


def cut(key: bytes, row: bytes) -> bytes:
    """Its last tile is cut, and the checksum right."""
    row = row[:-9]
    return row[:4] + crc32c(row[8:], crc32c(key + row[:4])).to_bytes(4, "little") + row[8:]


CUT = [ROWS[0], cut(KEYS[1], ROWS[1])]


def once(i: int) -> None:
    kind = i % 4
    batch = ReadBatch(KEYS)
    batch.fill(CUT if kind == 3 else ROWS, 0)
    try:
        if kind == 0:
            assert built().rows() == ROWS
            PLAIN.build_into(batch, CODES, TIMES, COLUMNS[:1], end_us=200, created_us=0)
        elif kind == 1:
            assert built(batch).rows() == TWO
        elif kind == 2:
            spliced = ReadBatch(KEYS)
            SPLICER.splice_into(spliced, ONE, batch, settled_us=np.full(2, i % 120), created_us=i)
            assert i % 120 or spliced.rows() == [None, None]
        elif i % 8 < 4:
            FOLDER.fold_into(batch, 0, 2, ReadBatch(KEYS), 0, now_us=110)
        else:
            Folder(PROGRAM, LAYOUT).fold_into(batch, 0, 2, ReadBatch(KEYS), 0, now_us=110)
    except CodecError:
        assert kind == 3
    if i % 16 == 0:
        TileBuilder(PROGRAM, 3)
        TileSplicer(PROGRAM, 3)
        try:
            BUILDER.build_into(batch, CODES + 1, TIMES, COLUMNS, end_us=200, created_us=0)
        except InvalidDataError:
            return
        raise SystemExit("nothing was raised")


if __name__ == "__main__":
    run(once)
