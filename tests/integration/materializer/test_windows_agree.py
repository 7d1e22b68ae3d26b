"""Online, training and the oracle say the same of every function, to the bit: at instants on and off the edges of hops,
of events that came in any order and in parts, each on top of the rows before.

FASTSERVE_WINDOW_ENTITIES=5000 for ten million values.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.aggregations.build import ReadBatch, TileBuilder
from fastserve.aggregations.fold import Folder
from fastserve.codec.rows import RowDecoder
from fastserve.codec.status import PRESENT
from fastserve.types import arrow_type, parse_dtype
from materializer.windows.ranges import fold_windows, order_by
from tests.oracles.bits import bits
from tests.unit.aggregations.programs import EXTREMES, FUNCTIONS, Asked, Case, layout_of

ENTITIES = int(os.environ.get("FASTSERVE_WINDOW_ENTITIES", "10"))
EACH = 20  # events
REACH = 600
MOMENTS = (-60, 0, 1, 119, 300, 301, 599, 600)
NATIVE = TileBuilder.__module__.startswith("fastserve._native")
pytestmark = pytest.mark.skipif(not NATIVE, reason="twins are compared one by one, in tests/unit")


def case_of(dtype: str) -> Case:
    """All functions of a type over windows exact and coarse; half of the events' values are at the edge."""
    rng = random.Random(f"{dtype} {ENTITIES}")
    asked = [
        Asked(f, 0, w, h) for f in FUNCTIONS[dtype] for w, h in ((50, 1), (120, 10), (300, 60), (900, 60))
    ]
    usual = {
        "bool": lambda: rng.random() < 0.5,
        "int32": lambda: rng.randrange(-500, 500),
        "int64": lambda: rng.randrange(-(10**12), 10**12),
        "timestamp": lambda: rng.randrange(10**15, 2 * 10**15),
        "float32": lambda: float(np.float32(rng.lognormvariate(3, 2))),
        "float64": lambda: round(rng.lognormvariate(3, 2), 2),
        "string": lambda: f"shop {rng.randrange(30)}",
        "bytes": lambda: rng.randbytes(2),
    }[dtype]

    def value() -> Any:
        kind = rng.random()
        return None if kind < 0.1 else rng.choice(EXTREMES[dtype]) if kind < 0.25 else usual()

    events = [
        (code, rng.choice([rng.randrange(-REACH, REACH), 60 * rng.randrange(-10, 10)]), (value(),))
        for code in range(ENTITIES)
        for _ in range(EACH)
    ]
    rng.shuffle(events)
    return Case((dtype,), tuple(asked), ENTITIES, tuple(events))


def online(case: Case, at: int, parts: int) -> tuple[Any, list[list[Any]]]:
    """Which entities have a row at an instant, and what is folded out of it."""
    keys = [b"7:%d" % i for i in range(case.m)]
    builder, base = TileBuilder(case.program, 3), None
    step = -(-len(case.events) // parts)
    for part in range(0, len(case.events), step):
        out = ReadBatch(keys)
        arrays = case.arrays(case.events[part : part + step])
        builder.build_into(out, *arrays, end_us=at, created_us=part, base=base)
        base = out
    values, layout = ReadBatch(keys), layout_of(case.program)
    Folder(case.program, layout).fold_into(base, 0, case.m, values, 0, now_us=at)
    decoder = RowDecoder({3: layout}, layout.names, {})
    decoded = decoder.decode_batch(values, 0, case.m, now_us=at, ttl_us=None)
    return decoded.row_status == PRESENT, [bits(column.to_arrow()) for column in decoded.columns]


def training(case: Case, at: int) -> list[list[Any]]:
    """The values of a label of each entity."""
    codes, times, columns = case.arrays()
    ordered = order_by([codes], [times], case.m)
    labels = np.arange(case.m + 1), np.full(case.m, at)
    outputs = range(len(case.program.outputs))
    return [bits(column) for column in fold_windows(case.program, outputs, (*ordered, columns), labels)]


def oracle(case: Case, at: int) -> list[list[Any]]:
    own: list[list[Any]] = [[] for _ in range(case.m)]
    for event in case.events:
        own[event[0]].append(event)
    values = [Case(case.dtypes, case.asked, 1, tuple(own[i])).values(i, at) for i in range(case.m)]
    types = [arrow_type(parse_dtype(output.dtype)) for output in case.program.outputs]
    return [
        bits(pa.array(column, kind)) for column, kind in zip(zip(*values, strict=True), types, strict=True)
    ]


@pytest.mark.parametrize("dtype", sorted(FUNCTIONS))
def test_online_training_and_oracle_agree(dtype: str) -> None:
    case = case_of(dtype)
    compared = 0
    for number, at in enumerate(MOMENTS):
        there, folded = online(case, at, 1 + number % 4)
        assert any(there)
        for name, mine, theirs, truth in zip(
            case.asked, folded, training(case, at), oracle(case, at), strict=True
        ):
            assert theirs == truth, (name, at)
            assert [v for v, row in zip(mine, there, strict=True) if row] == [
                v for v, row in zip(truth, there, strict=True) if row
            ], (name, at)
            compared += len(truth)
    print(f"{dtype}: {compared:,} values, 0 differ")
