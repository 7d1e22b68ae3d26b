"""The native codec gives back what it takes, also when it fails half way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np, pyarrow as pa
from fastserve._native.keys import KeyEncoder
from fastserve._native.row_encoder import RowEncoder
from fastserve._native.rows import RowDecoder
from fastserve.codec.layout import Layout
from fastserve.errors import FastserveError
from fastserve.types import Array, Float32, Int64, String

layout = Layout(1, ("a", "b", "c", "d"), (Int64, String, Array(Float32), Array(String)))
columns = [pa.array([1, None] * 10), pa.array(["x" * 99, None] * 10),
           pa.array([[1.5], None] * 10, pa.list_(pa.float32())), pa.array([["a", "b" * 50], None] * 10)]
stamps = np.arange(20)
encoder, writer = KeyEncoder(7, ["string"]), RowEncoder(layout)
reader = RowDecoder({1: layout}, layout.names, {"b": "y"})
ids = ["user%d" % i for i in range(20)]
broken = columns[:3] + [pa.array([["a", None]] * 20)]

def once():
    keys = encoder.encode([ids], 20)
    rows = writer.encode(keys, columns, stamps, stamps)
    reader.decode(keys, rows, now_us=50, ttl_us=35).columns
    for bad in (lambda: encoder.encode([ids[:19] + [None]], 20),
                lambda: writer.encode(keys, broken, stamps, stamps),
                lambda: reader.decode(keys, rows[:19] + [rows[0]], now_us=50, ttl_us=None)):
        try:
            bad()
        except FastserveError:
            continue
        raise SystemExit("nothing was raised")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for _ in range(1_000):
    once()
before = peak()
for _ in range(8_000):
    once()
print(peak() - before)
"""


@pytest.mark.skipif(os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1", reason="a pure-Python install")
def test_memory_does_not_grow() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(answer.stdout) <= 4_096, "KiB"
