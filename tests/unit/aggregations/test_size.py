"""No row is larger than the definition says."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from fastserve.aggregations.describe import described_row
from fastserve.aggregations.size import row_size
from fastserve.definitions import AggregatedFeatureView, Aggregation, Entity, EventSource, Field
from fastserve.types import arrow_type, parse_dtype
from tests.unit.aggregations.programs import EXTREMES, FUNCTIONS, Asked, Case, cases, program_of

CARD = [Asked(f, 0, w, h) for w, h in ((300, 10), (3600, 60)) for f in ("events", "sum", "mean", "max")]


def rows_of(twin: Any, case: Case, end: int = 10**6) -> list[bytes | None]:
    out = twin.ReadBatch([b"7:%d" % i for i in range(case.m)])
    twin.TileBuilder(case.program, 3).build_into(out, *case.arrays(), end_us=end, created_us=0)
    rows: list[bytes | None] = out.rows()
    return rows


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_rows_of_any_values_are_within_the_bound(twin: SimpleNamespace, case: Case) -> None:
    size = row_size(case.program)
    assert (size is None) == any(each.hop == 1 for each in case.asked)
    for row in rows_of(twin, case):
        assert row is None or size is None or size.most is None or len(row) <= size.most


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "timestamp", "bool"])
def test_full_rows_of_the_worst_values_are_within_the_bound(twin: SimpleNamespace, dtype: str) -> None:
    rng = random.Random(1)
    program = program_of([dtype], [Asked(f, 0, 90, 10) for f in FUNCTIONS[dtype]])
    events = tuple((0, t, (rng.choice(EXTREMES[dtype]),)) for t in range(200) for _ in range(3))
    case = Case((dtype,), tuple(Asked(f, 0, 90, 10) for f in FUNCTIONS[dtype]), 1, events)
    size, row = row_size(program), rows_of(twin, case)[0]
    assert size is not None and size.tiles == 10 and size.most is not None and row is not None
    assert len(row) <= size.most


def test_a_usual_row_is_about_as_large_as_is_said(twin: SimpleNamespace) -> None:
    """Every tile there, amounts in cents."""
    program = program_of(["float64"], CARD)
    times = np.arange(0, 4000, 2)
    amounts = np.round(np.random.default_rng(1).lognormal(3, 1, len(times)), 2)
    out = twin.ReadBatch([b"7:1"])
    column = pa.array(amounts, arrow_type(parse_dtype("float64")))
    twin.TileBuilder(program, 3).build_into(
        out, np.zeros(len(times), np.int64), times, [column], end_us=4000, created_us=0
    )
    size = row_size(program)
    assert size is not None and size.tiles == 31 + 61
    assert abs(len(out.rows()[0]) / size.usual - 1) < 0.1


def test_of_texts_there_is_no_bound_but_tiles() -> None:
    size = row_size(program_of(["string"], [Asked("last", 0, 60, 10), Asked("count", 0, 60, 10)]))
    assert size is not None and size.most is None and size.tiles == 7


def test_describe_says_so() -> None:
    def row(*aggregations: Aggregation) -> dict[str, Any]:
        events = EventSource("payments", schema=[Field("amount", "float64"), Field("status", "string")])
        return described_row(
            AggregatedFeatureView("v", entities=[Entity("card")], source=events, aggregations=aggregations)
        )

    windows = ["5m", "1h", "24h"]
    spend = [Aggregation("*", "count", windows=windows)]
    spend += [Aggregation("amount", f, windows=windows) for f in ("sum", "mean", "max")]
    assert row(*spend) == {"tiles": 117, "bytes": 2601, "bytes_at_most": 39483}
    assert row(Aggregation("status", "last", windows=["1h"]))["bytes_at_most"] == "as many as its texts take"
    exact = row(Aggregation("amount", "sum", windows=["5m"], hop=0))
    assert exact == {"bytes": "as many as events in the longest exact window take"}
