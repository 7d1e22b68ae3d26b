"""Events into tile rows and tile rows into values: against the oracle, to the bit, whatever the order.

FASTSERVE_WINDOW_EXAMPLES=10000 for a long look.
"""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.build_py import TileBuilder
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.batch.batch_py import ReadBatch
from fastserve.codec.status import NOT_FOUND, PRESENT
from tests.oracles.bits import bits
from tests.unit.aggregations.programs import EXTREMES, FUNCTIONS, Asked, Case, cases, layout_of

CREATED = 77
EXAMPLES = int(os.environ.get("FASTSERVE_WINDOW_EXAMPLES", "100"))


def keys_of(case: Case) -> list[bytes]:
    return [b"7:%d" % i for i in range(case.m)]


def build(twin: Any, case: Case, end: int, parts: list[list[Any]] | None = None) -> list[bytes | None]:
    """The rows of all events, given at once or in parts, each on top of the rows before."""
    builder = twin.TileBuilder(case.program, 3)
    base = None
    for part in [list(case.events)] if parts is None else parts:
        out = twin.ReadBatch(keys_of(case))
        builder.build_into(out, *case.arrays(part), end_us=end, created_us=CREATED, base=base)
        base = out
    assert base is not None
    rows: list[bytes | None] = base.rows()
    return rows


def batch_of(twin: Any, case: Case, rows: list[bytes | None]) -> Any:
    batch = twin.ReadBatch(keys_of(case))
    batch.fill(rows, 5)
    return batch


def folded(twin: Any, case: Case, rows: list[bytes | None], now: int) -> Any:
    """The values of all entities, decoded."""
    layout = layout_of(case.program)
    out = twin.ReadBatch(keys_of(case))
    twin.Folder(case.program, layout).fold_into(batch_of(twin, case, rows), 0, case.m, out, 0, now_us=now)
    decoder = twin.RowDecoder({3: layout}, layout.names, {})
    return decoder.decode_batch(out, 0, case.m, now_us=now, ttl_us=None)


@given(case=cases(), end=st.integers(-150, 160), later=st.sampled_from([0, 1, 9, 10, 59, 60, 130, 2000]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_values_are_the_oracles(twin: SimpleNamespace, case: Case, end: int, later: int) -> None:
    case = Case(case.dtypes, case.asked, case.m, tuple(e for e in case.events if e[1] <= end))
    answer = folded(twin, case, build(twin, case, end), end + later)
    columns = [bits(column.to_arrow()) for column in answer.columns]
    for code in range(case.m):
        times = [ts for c, ts, _ in case.events if c == code]
        assert answer.row_status[code] == (PRESENT if times else NOT_FOUND)
        if times:
            assert answer.event_ts[code] == max(times)
            assert [column[code] for column in columns] == case.expected(code, end + later)


@given(case=cases(), end=st.integers(-150, 160), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_order_and_parts_do_not_show(
    twin: SimpleNamespace, case: Case, end: int, seed: int, data: st.DataObject
) -> None:
    rows = build(twin, case, end)
    events = list(case.events)
    random.Random(seed).shuffle(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    parts = [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    assert build(twin, case, end, parts) == rows


@given(case=cases(), end=st.integers(-150, 160))
@settings(max_examples=EXAMPLES, deadline=None)
def test_rows_are_the_twins(twin: SimpleNamespace, case: Case, end: int) -> None:
    """And what is read is written alike."""
    rows = build(twin, case, end)
    assert rows == build(SimpleNamespace(TileBuilder=TileBuilder, ReadBatch=ReadBatch), case, end)
    codec = TileCodec(case.program, 3)
    for key, row in zip(keys_of(case), rows, strict=True):
        if row is not None:
            assert codec.encode(key, codec.decode(key, row)) == row


@pytest.mark.parametrize("dtype", sorted(FUNCTIONS))
def test_many_events(twin: SimpleNamespace, dtype: str) -> None:
    """Enough of them that what states hold is moved, sorted and made smaller many times."""
    rng = random.Random(dtype)
    some = {"int32": rng.randrange(-99, 99), "int64": 7, "timestamp": 9, "float64": 0.1, "float32": 0.5}
    pool = [*EXTREMES[dtype], None, some.get(dtype, None)] + [made(dtype, rng) for _ in range(60)]
    asked = [Asked(f, 0, window, 60) for f in FUNCTIONS[dtype] for window in (120, 1000)]
    n = 600 if twin.ReadBatch is ReadBatch else 3000
    events = [(0, rng.randrange(-1000, 1000), (rng.choice(pool),)) for _ in range(n)]
    case = Case((dtype,), tuple(asked), 1, tuple(events))
    rows = build(twin, case, 1000)
    assert build(twin, case, 1000, [events[:99], events[99:300], events[300:]]) == rows
    for now in (1000, 1030, 1500):
        answer = folded(twin, case, rows, now)
        assert [bits(column.to_arrow())[0] for column in answer.columns] == case.expected(0, now)


def made(dtype: str, rng: random.Random) -> Any:
    """A value."""
    if dtype in ("float32", "float64"):
        value = rng.lognormvariate(0, 9)
        return float(np.float32(value)) if dtype == "float32" else value
    if dtype in ("string", "bytes"):
        return str(rng.random()) if dtype == "string" else rng.randbytes(9)
    return rng.random() < 0.5 if dtype == "bool" else rng.randrange(-(2**31), 2**31)
