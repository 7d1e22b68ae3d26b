"""Rows encoded and decoded, with defaults and every kind of field; nulls in lists, torn rows, unknown layouts."""

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.row_encoder import RowEncoder
from fastserve._native.rows import RowDecoder
from fastserve.codec.layout import Layout
from fastserve.errors import FastserveError
from fastserve.types import Array, Float32, Int64, String
from tests.isolated.meter import run

NATIVES = ("row_encoder", "rows")
LAYOUT = Layout(1, ("a", "b", "c", "d"), (Int64, String, Array(Float32), Array(String)))
COLUMNS = [
    pa.array([1, None]),
    pa.array(["x" * 99, None]),
    pa.array([[1.5], None], pa.list_(pa.float32())),
    pa.array([["a", "b" * 50], None]),
]
BROKEN = [*COLUMNS[:3], pa.array([["a", None]] * 2)]
KEYS, STAMPS = [b"7:a", b"7:b"], np.arange(2)
WRITER, READER = RowEncoder(LAYOUT), RowDecoder({1: LAYOUT}, LAYOUT.names, {"b": "y"})
ROWS = WRITER.encode(KEYS, COLUMNS, STAMPS, STAMPS)
TORN = [ROWS[0], ROWS[1][:-1] + b"!"]
OTHER = RowEncoder(Layout(2, ("a",), (Int64,))).encode(KEYS, COLUMNS[:1], STAMPS, STAMPS)


def once(i: int) -> None:
    kind = i % 5
    if kind == 0:
        rows = WRITER.encode(KEYS, COLUMNS, STAMPS, STAMPS)
        assert rows == ROWS
        batch = ReadBatch(KEYS)
        WRITER.encode_into(batch, COLUMNS, STAMPS, STAMPS)
        assert batch.rows() == ROWS
        taken = ReadBatch()
        taken.take(batch, 0, 2)
        taken.forget([1])
        assert taken.rows() == [ROWS[0], None]
    elif kind == 1:
        assert READER.decode(KEYS, [ROWS[0], None], now_us=50, ttl_us=None).columns[0].valid.tolist() == [
            1,
            0,
        ]
    else:
        try:
            if kind == 2:
                WRITER.encode(KEYS, BROKEN, STAMPS, STAMPS)
            else:
                READER.decode(KEYS, TORN if kind == 3 else OTHER, now_us=50, ttl_us=None)
        except FastserveError:
            return
        raise SystemExit("nothing was raised")


if __name__ == "__main__":
    run(once)
