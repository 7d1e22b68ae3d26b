"""Matrices of rows: found, missing, unknown, corrupt."""

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.matrix import MatrixDecoder
from fastserve._native.row_encoder import RowEncoder
from fastserve._native.rows import RowDecoder
from fastserve.codec.layout import Layout
from fastserve.codec.matrix_py import matrix_shape
from fastserve.errors import FastserveError
from fastserve.types import Float32, Int32
from tests.isolated.meter import run

NATIVES = ("matrix",)
LAYOUT = Layout(1, ("a", "b", "c"), (Float32, Int32, Float32))
COLUMNS = [
    pa.array([1.5, None], pa.float32()),
    pa.array([1, 2], pa.int32()),
    pa.array([2.5, 3], pa.float32()),
]
KEYS, STAMPS = [b"7:a", b"7:b"], np.arange(2)
ROWS = RowEncoder(LAYOUT).encode(KEYS, COLUMNS, STAMPS, STAMPS)
DECODER = RowDecoder({1: LAYOUT}, LAYOUT.names, {"b": 5})
SHAPE = matrix_shape([DECODER], [(0, 2), (0, 0), (0, 1)], ["c", "a", "b"])
KINDS = [ROWS, [None, ROWS[1]], [ROWS[0], ROWS[1][:-1] + b"!"], [ROWS[0][:9], None]]
KEPT = MatrixDecoder([DECODER], SHAPE)


def once(i: int) -> None:
    batch = ReadBatch(KEYS)
    batch.fill(KINDS[i % 4], 1)
    decoder = MatrixDecoder([DECODER], SHAPE) if i % 16 < 4 else KEPT
    try:
        body = decoder.decode(batch, 2, 50, [None])
    except FastserveError:
        assert i % 4 > 1
    else:
        assert i % 4 < 2 and len(body) == 2 * (3 * 8 + 1 + 1)


if __name__ == "__main__":
    run(once)
