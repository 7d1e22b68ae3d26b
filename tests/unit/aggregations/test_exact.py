"""Sums of many floats of any size: to the bit what fractions say, in any order."""

from __future__ import annotations

import math
import random
import struct
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.aggregations.program import Program
from fastserve.types import parse_dtype
from tests.oracles.windows import window_value
from tests.unit.aggregations.programs import Asked, layout_of, program_of

MOMENTS = ("sum", "mean", "var", "std")


def any_double(rng: random.Random) -> float:
    while True:
        value: float = struct.unpack("<d", rng.randbytes(8))[0]
        if math.isfinite(value):
            return value


KINDS = {
    "money": lambda rng: round(rng.lognormvariate(3, 2), 2),
    "any bits": any_double,
    "cancelling": lambda rng: rng.choice([1e308, -1e308, 1.0, 1e-300, -1e16, 5e-324]),
    "subnormal": lambda rng: rng.randrange(-(2**52), 2**52) * 5e-324,
    "near": lambda rng: 1e9 + rng.random(),
    "largest": lambda rng: rng.choice([1.7976931348623157e308, -1.7976931348623157e308]),
    "same": lambda rng: 0.1,
}


def folded(twin: Any, program: Program, dtype: str, parts: list[list[Any]]) -> list[Any]:
    """Each feature's value of one entity whose events come in parts, all at the instant 1."""
    from fastserve.types import arrow_type

    layout, base = layout_of(program), None
    builder = twin.TileBuilder(program, 3)
    for part in parts:
        out = twin.ReadBatch([b"7:1"])
        zeros = np.zeros(len(part), np.int64)
        column = pa.array(part, arrow_type(parse_dtype(dtype)))
        builder.build_into(out, zeros, zeros + 1, [column], end_us=5, created_us=0, base=base)
        base = out
    answer = twin.ReadBatch([b"7:1"])
    twin.Folder(program, layout).fold_into(base, 0, 1, answer, 0, now_us=5)
    decoded = twin.RowDecoder({3: layout}, layout.names, {}).decode_batch(answer, 0, 1, now_us=5, ttl_us=None)
    return [column.to_pylist()[0] for column in decoded.columns]


@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_floats(twin: SimpleNamespace, kind: str) -> None:
    rng = random.Random(kind)
    program = program_of(["float64"], [Asked(function, 0, 100, 10) for function in MOMENTS])
    for n in (1, 2, 3, 100, 400):
        values = [KINDS[kind](rng) for _ in range(n)]
        events = [(1, value) for value in values]
        wanted = [
            window_value(function, events, t=5, window=100, hop=10, dtype="float64") for function in MOMENTS
        ]
        cut = rng.randrange(n + 1)
        shuffled = rng.sample(values, n)
        for parts in ([values], [shuffled[:cut], shuffled[cut:]], [[v] for v in values[:7]] + [values[7:]]):
            assert folded(twin, program, "float64", parts) == wanted
        if kind in ("money", "near", "subnormal", "same"):
            assert wanted[0] == math.fsum(values)


def test_moments_of_large_integers(twin: SimpleNamespace) -> None:
    program = program_of(["int64"], [Asked(function, 0, 100, 10) for function in MOMENTS])
    rng = random.Random(1)
    for n in (1, 2, 50, 500):
        values = [rng.randrange(-(2**63), 2**63) for _ in range(n)] + [2**63 - 1]
        added, squares = sum(values), sum(v * v for v in values)
        variance = float(Fraction((n + 1) * squares - added**2)) / float((n + 1) ** 2)
        total = added if -(2**63) <= added < 2**63 else None
        assert folded(twin, program, "int64", [values]) == [
            total, float(added) / (n + 1), variance, math.sqrt(variance)]  # fmt: skip
