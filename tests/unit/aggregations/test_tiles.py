"""Events into tile rows and tile rows into values: against the oracle, to the bit, whatever the order."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.build_py import TileBuilder
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.batch.batch_py import ReadBatch
from fastserve.codec.status import NOT_FOUND, PRESENT
from tests.oracles.bits import bits
from tests.unit.aggregations.programs import Case, cases, layout_of

CREATED = 77


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
@settings(max_examples=150, deadline=None)
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
@settings(max_examples=100, deadline=None)
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
@settings(max_examples=100, deadline=None)
def test_rows_are_the_twins(twin: SimpleNamespace, case: Case, end: int) -> None:
    """And what is read is written alike."""
    rows = build(twin, case, end)
    assert rows == build(SimpleNamespace(TileBuilder=TileBuilder, ReadBatch=ReadBatch), case, end)
    codec = TileCodec(case.program, 3)
    for key, row in zip(keys_of(case), rows, strict=True):
        if row is not None:
            assert codec.encode(key, codec.decode(key, row)) == row
