"""The native kernels against their Python twins, in one process: 100 entities x 50 float32; a cache of a million."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

from bench.measure import Figure, alternate, ns_per_call
from bench.record import Table, Target, save
from bench.scale import scaled
from fastserve._native.batch import ReadBatch
from fastserve._native.keys import KeyEncoder
from fastserve._native.l1 import RowCache
from fastserve._native.matrix import MatrixDecoder
from fastserve._native.row_encoder import RowEncoder
from fastserve._native.rows import RowDecoder
from fastserve.batch.batch_py import ReadBatch as ReadBatchPy
from fastserve.cache.l1_py import RowCache as RowCachePy
from fastserve.codec.keys_py import KeyEncoder as KeyEncoderPy
from fastserve.codec.layout import Layout
from fastserve.codec.matrix_py import MatrixDecoder as MatrixDecoderPy
from fastserve.codec.matrix_py import matrix_shape
from fastserve.codec.rows_py import RowDecoder as RowDecoderPy
from fastserve.codec.rows_py import RowEncoder as RowEncoderPy
from fastserve.types import parse_dtype

N = 100
NAMES = tuple(f"f{i:02}" for i in range(50))
LAYOUT = Layout(1, NAMES, (parse_dtype("float32"),) * 50)
ENTRIES = scaled(1_000_000, 10_000)
TWINS: dict[str, Any] = {
    "native": (KeyEncoder, RowEncoder, RowDecoder, MatrixDecoder, RowCache, ReadBatch),
    "Python": (KeyEncoderPy, RowEncoderPy, RowDecoderPy, MatrixDecoderPy, RowCachePy, ReadBatchPy),
}
KERNELS = ("keys", "encode", "decode", "matrix", "cache look-up")


def main() -> int:
    """Measure and write bench/results/kernels.json."""
    systems: dict[str, Any] = {}
    rows: dict[str, list[bytes]] = {}
    for twin in TWINS:
        calls, rows[twin] = kernels(twin)
        systems |= {f"{twin} {name}": timed(call) for name, call in calls.items()}
    assert rows["native"] == rows["Python"], "the twins write the same bytes"
    found = alternate(systems)
    figures = {name: Figure(tuple(values["us"])) for name, values in found.items()}
    table = Table(f"{N} x 50 float32", {"native": "us", "Python": "us", "ratio": "x"})
    for name in KERNELS:
        native, python = figures[f"native {name}"], figures[f"Python {name}"]
        table.add(name, native=native, Python=python, ratio=python.over(native))
    both = {}
    for twin in TWINS:
        pairs = zip(figures[f"{twin} encode"].rounds, figures[f"{twin} decode"].rounds, strict=True)
        both[twin] = Figure(tuple(map(sum, pairs)))
    ratio = both["Python"].over(both["native"])
    table.add("encode + decode", native=both["native"], Python=both["Python"], ratio=ratio)
    entry_bytes, cold_ns = cache_of_a_million(rows["native"][0])
    sizes = Table("sizes and the cache", {"figure": ""})
    overhead = len(rows["native"][0]) / 200 - 1
    sizes.add("bytes of a row of 50 float32", figure=float(len(rows["native"][0])))
    sizes.add("cache: bytes an entry, its row of 231 and its key too", figure=entry_bytes)
    sizes.add("cache: ns a key looked up, a million entries, random", figure=cold_ns)
    targets = [
        Target(
            "encode + decode over the Python twin",
            ratio.median,
            at_least=50,
            reach=100,
        ),
        Target("bytes of a row over its raw values, %", overhead * 100, at_most=20, reach=16),
        Target("cache: bytes an entry beside its row", entry_bytes - len(rows["native"][0]), at_most=300),
    ]
    save("kernels", "Kernels", [table, sizes], targets=targets)
    return 0


def timed(call: Any) -> Any:
    """Microseconds a call."""
    return lambda: {"us": ns_per_call(call) / 1e3}


def kernels(twin: str) -> tuple[dict[str, Any], list[bytes]]:
    """What is measured of a twin, and the rows it writes."""
    keys_of, encoder_of, decoder_of, matrix_of, cache_of, batch_of = TWINS[twin]
    ids = list(range(1_000, 1_000 + N))
    keys, encoder, decoder = keys_of(7, ["int64"]), encoder_of(LAYOUT), decoder_of({1: LAYOUT}, NAMES, {})
    block = np.random.default_rng(1).random((50, N), np.float32)
    columns, stamps = [pa.array(column) for column in block], np.full(N, 5, np.int64)
    encoded = keys.encode([ids], N)
    rows = encoder.encode(encoded, columns, stamps, stamps)
    batch = batch_of(encoded)
    batch.fill(rows, 0)
    assert np.array_equal(decoder.decode_batch(batch, 0, N, now_us=9, ttl_us=None).blocks["float32"], block)
    shape = matrix_shape([decoder], [(0, i) for i in range(50)], NAMES)
    matrix = matrix_of([decoder], shape)
    assert matrix.decode(batch, N, 9, (None,)).startswith(block.T.tobytes())
    cache = cache_of(1 << 20)
    cache.put_many(batch, 0, N)

    def look_up() -> None:
        asked = batch_of(encoded)
        assert not cache.get_many(asked, 0, N, 0)

    return {
        "keys": lambda: keys.encode_into(batch_of(), [ids], N),
        "encode": lambda: encoder.encode(encoded, columns, stamps, stamps),
        "decode": lambda: decoder.decode_batch(batch, 0, N, now_us=9, ttl_us=None),
        "matrix": lambda: matrix.decode(batch, N, 9, (None,)),
        "cache look-up": look_up,
    }, rows


def cache_of_a_million(row: bytes) -> tuple[float, float]:
    """Bytes of an entry, and nanoseconds of a look-up when none of it is in the CPU's cache."""
    keys, cache = KeyEncoder(7, ["int64"]), RowCache(1 << 30)
    for start in range(0, ENTRIES, 10_000):
        batch = ReadBatch()
        keys.encode_into(batch, [np.arange(start, start + 10_000)], 10_000)
        batch.fill([row] * 10_000, 0)
        cache.put_many(batch, 0, 10_000)
    assert len(cache) == ENTRIES
    asked = []
    draw = np.random.default_rng(1)
    for _ in range(5_000):
        asked.append(ReadBatch())
        keys.encode_into(asked[-1], [draw.integers(0, ENTRIES, N)], N)
    begun = time.perf_counter_ns()
    missing = sum(cache.get_many(batch, 0, N, 0) for batch in asked)
    took = time.perf_counter_ns() - begun
    assert not missing
    return cache.bytes_used / ENTRIES, took / len(asked) / N


if __name__ == "__main__":
    sys.exit(main())
