"""Keys of every kind, from lists, numpy and Arrow; values that are refused half way."""

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.keys import KeyEncoder
from fastserve.errors import FastserveError
from tests.isolated.meter import run

NATIVES = ("keys",)
ONE = KeyEncoder(7, ["string"])
ALL = KeyEncoder(8, ["int64", "bytes", "string", "bool"])
IDS = [f"user|{i}" for i in range(5)]
NUMBERS, TEXTS = np.arange(5), pa.array(IDS)
ROW = [[1, 2], [b"a\0", b"b"], ["x", "y"], [True, False]]
BAD = [([[*IDS[:4], None]], 5), ([IDS], 4), ([IDS, IDS], 5)]


def once(i: int) -> None:
    batch = ReadBatch()
    ONE.encode_into(batch, [TEXTS if i % 4 == 0 else IDS], 5)
    ALL.encode_into(batch, ROW, 2)
    if i % 4 == 1:
        KeyEncoder(9, ["int64"]).encode([NUMBERS], 5)
    columns, n = BAD[i % 3]
    try:
        ONE.encode_into(batch, columns, n)
    except FastserveError:
        return
    raise SystemExit("nothing was raised")


if __name__ == "__main__":
    run(once)
