"""The point-in-time cases one by one: what goes in, and exactly what must come out, from every kind of source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from fastserve import Field
from fastserve.errors import DefinitionError, InvalidDataError
from fastserve.types import arrow_type, parse_dtype
from tests.integration.training.kit import BACKENDS, T0, Repo, ts, values
from tests.oracles.bits import bits
from tests.oracles.naive_pit import naive_pit


@dataclass(frozen=True)
class Case:
    """Rows (u, event, created, v), labels (u, t), both in microseconds after T0, and v per label."""

    name: str
    rows: list[tuple[Any, int, int | None, Any]]
    labels: list[tuple[Any, int]]
    expected: list[Any]
    ttl: int | None = None
    cutoff: Any = None
    created: bool = True


H = 3_600_000_000
CASES = [
    Case("01 equality", [(1, 5, 5, 50)], [(1, 5)], [50]),
    Case("02 one microsecond before and after", [(1, 5, 5, 50)], [(1, 4), (1, 6)], [None, 50]),
    Case("03 ttl edge", [(1, 5, 5, 50)], [(1, 5 + 9), (1, 5 + 10), (1, 5 + 11)], [50, None, None], ttl=10),
    Case("04 only an expired row", [(1, 5, 5, 50)], [(1, 9 * H)], [None], ttl=2 * H),
    Case("04 newest expired, so all", [(1, 1, 90, 10), (1, 5, 5, 50)], [(1, 15)], [None], ttl=10),
    Case("05 unknown entity", [(1, 5, 5, 50), (3, 5, 5, 51)], [(2, 9), (1, 9)], [None, 50]),
    Case("06 labels twice", [(1, 5, 5, 50)], [(1, 9), (1, 9), (1, 9)], [50, 50, 50]),
    Case("07 two created", [(1, 5, 7, 50), (1, 5, 6, 51)], [(1, 9)], [50]),
    Case("07 three created", [(1, 5, 6, 50), (1, 5, 8, 51), (1, 5, 7, 52)], [(1, 9)], [51]),
    Case(
        "07 five created",
        [(1, 5, c, v) for c, v in [(7, 50), (9, 51), (6, 52), (9, 53), (8, 54)]],
        [(1, 9)],
        [53],
    ),
    Case("08 tie on both: the last", [(1, 5, 7, 50), (1, 5, 7, 51), (1, 4, 9, 52)], [(1, 9)], [51]),
    Case("08 tie without created", [(1, 5, None, 50), (1, 5, None, 51)], [(1, 9)], [51], created=False),
    Case("09 all too new", [(1, 5, 20, 50), (1, 6, 21, 51)], [(1, 30)], [None], cutoff=19),
    Case("09 the known one", [(1, 5, 19, 50), (1, 6, 20, 51)], [(1, 30)], [50], cutoff=19),
    Case("09 created null counts as event time", [(1, 5, None, 50), (1, 6, 20, 51)], [(1, 30)], [50], cutoff=19),
    Case(
        "09 as known at label time",
        [(1, 5, 5, 50), (1, 5, 8, 51), (1, 7, 12, 52)],
        [(1, 6), (1, 8), (1, 11), (1, 12)],
        [50, 51, 51, 52],
        cutoff="label_time",
    ),
    Case(
        "09 label time and ttl",
        [(1, 5, 5, 50), (1, 8, 30, 51)],
        [(1, 14), (1, 15), (1, 17), (1, 30)],
        [50, None, None, None],
        ttl=10,
        cutoff="label_time",
    ),
    Case("10 a backfilled older event", [(1, 8, 8, 50), (1, 5, 20, 51)], [(1, 9), (1, 7)], [50, 51]),
    Case(
        "11 nothing sorted",
        [(2, 9, 9, 5), (1, 3, 3, 1), (2, 1, 1, 3), (1, 7, 7, 2), (2, 5, 5, 4)],
        [(2, 6), (1, 9), (2, 0), (1, 3), (2, 9), (2, 1)],
        [4, 2, None, 1, 5, 3],
    ),
    Case("12 no ttl: for ever", [(1, -400 * 24 * H, 0, 50)], [(1, 0)], [50]),
    Case("17 beyond 2^53 beside null", [(1, 1, 1, 2**53 + 1), (2, 1, 1, None), (3, 1, 1, -(2**63))],
         [(1, 2), (2, 2), (3, 2), (4, 2)], [2**53 + 1, None, -(2**63), None]),
    Case("20 a null wins over an older value", [(1, 1, 1, 50), (1, 2, 2, None)], [(1, 3)], [None]),
    Case("20 a column of nulls", [(1, 1, 1, None), (2, 2, 2, None)], [(1, 3), (2, 3)], [None, None]),
    Case("20 a null key", [(1, 1, 1, 50)], [(None, 3), (1, 3)], [None, 50]),
    Case("20 no labels", [(1, 1, 1, 50)], [], []),
    Case("20 a view without rows", [], [(1, 3), (2, 4)], [None, None]),
]  # fmt: skip


def rows_table(case: Case) -> pa.Table:
    u, event, created, v = zip(*case.rows, strict=True) if case.rows else ((), (), (), ())
    columns = {"u": pa.array(u, pa.int64()), "ts": ts(event), "v": pa.array(v, pa.int64())}
    if case.created:
        columns["created"] = ts(created)
    return pa.table(columns)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, backend: str, tmp_path):
    repo = Repo(tmp_path)
    ttl = None if case.ttl is None else timedelta(microseconds=case.ttl)
    repo.view("w", rows_table(case), [Field("v", "int64")], backend=backend, ttl=ttl)
    u, t = zip(*case.labels, strict=True) if case.labels else ((), ())
    spine = pa.table({
        "u": pa.array(u, pa.int64()),
        "event_timestamp": ts(t),
        "label": pa.array([i / 3 for i in range(len(u))]),
    })  # fmt: skip
    cutoff = T0 + case.cutoff if isinstance(case.cutoff, int) else case.cutoff
    made = repo.train(spine, ["w:v"], cutoff=cutoff)
    assert made.schema.field("v").type == pa.int64()
    assert values(made) == case.expected
    assert case.expected == by_the_rule(case)


def by_the_rule(case: Case) -> list[Any]:
    cutoffs = None
    if case.cutoff is not None:
        cutoffs = [t if case.cutoff == "label_time" else case.cutoff for _, t in case.labels]
    found = naive_pit(
        [((u,), t) for u, t in case.labels],
        [((u,), event, event if created is None else created) for u, event, created, _ in case.rows],
        ttl=case.ttl,
        cutoffs=cutoffs,
    )
    return [None if i < 0 else case.rows[i][3] for i in found]


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
def test_12_a_ttl_that_is_not_positive_is_refused(ttl, tmp_path):
    repo = Repo(tmp_path)
    with pytest.raises(DefinitionError, match="ttl is not positive"):
        repo.view("w", rows_table(CASES[0]), [Field("v", "int64")], ttl=ttl)


NAN = -(2**51)  # a NaN with the sign bit and no payload: 0xFFF8000000000000 as int64
TYPES = {
    "bool": [True, None, False],
    "int32": [2**31 - 1, None, -(2**31)],
    "int64": [2**63 - 1, None, -(2**63)],
    "float32": [-0.0, None, float("inf")],
    "float64": [-0.0, None, float("-inf")],
    "string": ["", None, "é|%"],
    "bytes": [b"", None, b"\x00\xff"],
    "timestamp": [0, None, -1],
    "list<int64>": [[], None, [2**53 + 1]],
    "list<string>": [["", "a"], None, []],
    "list<float32>[2]": [[-0.0, 1.5], None, [0.1, 2.0]],
}


@pytest.mark.parametrize("backend", ["parquet", "arrow", "offline"])
def test_17_every_type_bit_for_bit_and_null_is_never_a_value(backend, tmp_path):
    columns = {f"f{i}": pa.array(v, arrow_type(parse_dtype(t))) for i, (t, v) in enumerate(TYPES.items())}
    payload = pa.array([0x7FF8DEADBEEF0001, 2**63 - 1, NAN], pa.int64()).view(pa.float64())
    rows = pa.table({"u": [1, 2, 3], "ts": ts([1, 1, 1]), "nan": payload, **columns})
    schema = [Field(f"f{i}", t) for i, t in enumerate(TYPES)] + [Field("nan", "float64")]
    repo = Repo(tmp_path)
    repo.view("w", rows, schema, backend=backend)
    order = [3, 1, 4, 2]  # 4: nobody
    spine = pa.table({"u": order, "event_timestamp": ts([9] * 4)})
    made = repo.train(spine, [f"w:{f.name}" for f in schema])
    for field in schema:
        before = [*bits(rows[field.name]), None]
        assert values(made, field.name) == [before[u - 1] for u in order], field
        assert made.schema.field(field.name).type == arrow_type(parse_dtype(field.dtype))


ZONES = [
    pytest.param(pa.array(["2024-03-10T02:00:00"]).cast(pa.timestamp("us")), id="naive is UTC"),
    pytest.param(pa.array(["2024-03-10T02:00:00"]).cast(pa.timestamp("s")), id="s"),
    pytest.param(pa.array(["2024-03-10T02:00:00"]).cast(pa.timestamp("ms")), id="ms"),
    pytest.param(pa.array(["2024-03-10T02:00:00"]).cast(pa.timestamp("ns")), id="ns"),
    pytest.param(pa.array(["2024-03-10T03:00:00+01:00"]).cast(pa.timestamp("us", "Europe/Berlin")), id="+1"),
    pytest.param(pa.array(["2024-03-09T18:00:00-0800"]).cast(pa.timestamp("ns", "US/Pacific")), id="-8"),
    pytest.param(pa.array(["2024-03-09T18:00:00-08:00"]), id="text with a zone"),
    pytest.param(pa.array(["2024-03-10 02:00:00"]), id="text without"),
]


@pytest.mark.parametrize("label", ZONES)
@pytest.mark.parametrize("event", ZONES)
def test_19_every_unit_and_zone_names_the_same_instant(event, label, tmp_path):
    rows = pa.table({"u": [1], "ts": event, "v": [50]})
    repo = Repo(tmp_path)
    repo.view("w", rows, [Field("v", "int64")], ttl=timedelta(microseconds=1))
    spine = pa.table({"u": [1], "event_timestamp": label})
    assert values(repo.train(spine, ["w:v"])) == [50]


def test_19_the_hour_that_comes_twice_when_clocks_go_back_is_two_hours(tmp_path):
    import pandas as pd

    berlin = pd.DatetimeIndex(["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"]).tz_convert("Europe/Berlin")
    assert [str(t)[11:16] for t in berlin] == ["02:30", "02:30"]
    frame = pd.DataFrame({"u": [1, 1], "ts": berlin, "v": [50, 51]})
    repo = Repo(tmp_path)
    repo.view("w", pa.Table.from_pandas(frame), [Field("v", "int64")])
    spine = pd.DataFrame({"u": [1, 1], "event_timestamp": berlin})
    assert values(repo.train(spine, ["w:v"])) == [50, 51]


def test_19_a_time_between_two_microseconds_is_an_error_not_a_guess(tmp_path):
    repo = Repo(tmp_path)
    repo.view("w", rows_table(CASES[0]), [Field("v", "int64")])
    times = pa.array([T0 * 1000, T0 * 1000 + 1], pa.int64()).cast(pa.timestamp("ns"))
    with pytest.raises(InvalidDataError, match=r"column 'event_timestamp', row 1: .* exactly"):
        repo.train(pa.table({"u": [1, 1], "event_timestamp": times}), ["w:v"])


def test_21_a_range_of_the_history_is_half_open(tmp_path):
    from fastserve.offline.delta import OfflineTable

    rows = pa.table({"u": [1] * 5, "ts": ts([0, 5, 10, 24 * H, 24 * H + 5]), "v": [0, 1, 2, 3, 4]})
    repo = Repo(tmp_path)
    repo.view("w", rows, [Field("v", "int64")], backend="offline")
    config = repo.store.config
    table = OfflineTable(config.offline_store, config.project, repo.store.snapshot.view("w"))

    def read(start, end):
        batches = table.read(["v"], None if start is None else T0 + start, None if end is None else T0 + end)
        return sorted(v for b in batches for v in b.column("v").to_pylist())

    assert read(5, 24 * H) == [1, 2]
    assert read(None, 10) == [0, 1]
    assert read(10, None) == [2, 3, 4]
    assert read(24 * H, 24 * H + 6) == [3, 4]
    assert read(7, 7) == []
