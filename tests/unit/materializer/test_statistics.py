"""The collector beside naive counting, for every type."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from fastserve.definitions import Entity, FeatureView, Field
from fastserve.offline.schema import canonical_schema
from fastserve.registry import RegisteredView
from fastserve.statistics import Moments, ViewStatistics
from fastserve.timeutil import MICROS
from materializer.statistics import Collector
from tests.unit.registry.snapshots import snapshot_of

FIELDS = {
    "b": "bool",
    "i": "int32",
    "n": "int64",
    "f": "float32",
    "d": "float64",
    "t": "timestamp",
    "s": "string",
    "y": "bytes",
    "l": "list<int64>",
    "e": "list<float32>[3]",
}


def registered(**tags: dict[str, str]) -> RegisteredView:
    schema = [Field(name, dtype, tags=tags.get(name)) for name, dtype in FIELDS.items()]
    view = FeatureView("v", entities=["u"], schema=schema)
    return snapshot_of([Entity("u"), view]).view("v")


def rows(n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i in range(n):
        row: dict[str, Any] = {
            "u": f"u{i % 50}",
            "event_timestamp": i * MICROS,
            "created_timestamp": i * MICROS,
            "_layout": 1,
            "b": i % 4 == 0,
            "i": i % 7,
            "n": i,
            "f": i / 2,
            "d": {1: math.nan, 2: math.inf}.get(i % 9, i * 1.5),
            "t": i * 3,
            "s": ["Köln", "Rome", "x" * 300][i % 3],
            "y": bytes(i % 5),
            "l": list(range(i % 4)),
            "e": [1.0, 2.0, 3.0],
        }
        if i % 10 == 0:
            row |= dict.fromkeys(FIELDS)
        found.append(row)
    return found


def batch(view: RegisteredView, given: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(given, canonical_schema(view))


@pytest.fixture(autouse=True, params=[1, 1_000, 32_768])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches each by itself, some together, and all."""
    monkeypatch.setattr("materializer.statistics.TOGETHER_ROWS", request.param)


def collect(view: RegisteredView, given: list[dict[str, Any]], size: int = 700) -> ViewStatistics:
    collector = Collector(view)
    for start in range(0, len(given), size):
        collector.add(batch(view, given[start : start + size]))
    assert collector.error == ""
    found = collector.result()
    assert found is not None
    return found


def test_every_type_beside_naive_counting() -> None:
    given = rows(3_000)
    found = collect(registered(), given)
    assert (found.start_us, found.end_us, found.rows) == (0, 2_999 * MICROS + 1, 3_000)
    shown = found.to_dict()["features"]
    assert list(shown) == list(FIELDS)
    for name in FIELDS:
        assert (shown[name]["rows"], shown[name]["nulls"], shown[name]["null_share"]) == (3_000, 300, 0.1)
    whole = [row["n"] for row in given if row["n"] is not None]
    assert (shown["n"]["min"], shown["n"]["max"], shown["n"]["distinct"]) == (1, 2_999, len(whole))
    assert shown["n"]["mean"] == pytest.approx(sum(whole) / len(whole))
    assert shown["n"]["quantiles"]["p50"] == sorted(whole)[math.ceil(len(whole) / 2) - 1]
    doubles = [row["d"] for row in given if row["d"] is not None]
    assert shown["d"]["nans"] == sum(map(math.isnan, doubles)) > 0
    assert shown["d"]["infinities"] == sum(map(math.isinf, doubles)) > 0
    assert shown["b"]["mean"] == pytest.approx(sum(1 for r in given if r["b"]) / 2_700)
    assert shown["t"]["min"] == "1970-01-01T00:00:00.000003Z" and "mean" not in shown["t"]
    assert shown["t"]["quantiles"]["p99"].startswith("1970-01-01T00:00:00.0")
    cities = Counter(row["s"][:128] for row in given if row["s"] is not None)
    assert {one["value"]: one["share"] for one in shown["s"]["top"]} == {
        city: n / 2_700 for city, n in cities.items()
    }
    assert (shown["s"]["length"]["min"], shown["s"]["length"]["max"], shown["s"]["distinct"]) == (4, 300, 3)
    assert shown["y"]["length"]["max"] == 4 and "top" not in shown["y"]
    assert shown["l"]["length"]["max"] == 3 and shown["l"]["length"]["quantiles"]["p99"] == 3
    assert shown["e"]["length"]["min"] == shown["e"]["length"]["max"] == 3


def test_parts_merge_to_the_whole_through_their_bytes() -> None:
    view, given = registered(), rows(12_000)
    whole = collect(view, given).to_dict()
    parts = [ViewStatistics.from_bytes(collect(view, given[i::3]).to_bytes()) for i in range(3)]
    merged = ViewStatistics.from_bytes(parts[2].merged(parts[0]).merged(parts[1]).to_bytes()).to_dict()
    assert merged.pop("runs") == 3 and whole.pop("runs") == 1
    for found in (whole, merged):
        for feature in found["features"].values():
            for numbers in (feature, feature.get("length", {})):
                for name in ("mean", "std"):
                    if numbers.get(name) is not None:
                        numbers[name] = pytest.approx(numbers[name])
    assert merged == whole


def test_of_a_feature_with_pii_nothing_but_counts_and_lengths_is_kept() -> None:
    secret = {"pii": "yes"}
    found = collect(registered(s=secret, n=secret, d={"pii": "no"}), rows(900))
    kept = ViewStatistics.from_bytes(found.to_bytes()).features
    assert kept["s"].sample is kept["n"].sample is None
    assert kept["n"].moments == Moments(900, 90)
    shown = found.to_dict()["features"]
    assert set(shown["n"]) == {"dtype", "rows", "nulls", "null_share", "hidden"}
    assert set(shown["s"]) == {"dtype", "rows", "nulls", "null_share", "hidden", "length"}
    assert "quantiles" in shown["d"]


def test_what_an_earlier_run_counted_is_left_out() -> None:
    view = registered()
    given = rows(30)
    given[3]["created_timestamp"] = 25 * MICROS  # a late row: created after the last run
    collector = Collector(view, counted=(19 * MICROS, 20 * MICROS))
    collector.add(batch(view, given))
    found = collector.result()
    assert found is not None and (found.start_us, found.rows) == (3 * MICROS, 11)


def test_no_rows_no_statistics() -> None:
    collector = Collector(registered())
    collector.add(batch(registered(), []))
    assert collector.result() is None and collector.error == ""


def test_a_fault_ends_the_statistics_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(registered())
    collector.add(pa.record_batch({"other": [1]}))
    collector.finish()
    collector.add(batch(registered(), rows(3)))
    assert "event_timestamp" in collector.error and collector.result() is None
    assert "no statistics of this run" in caplog.text


def test_a_feature_that_only_one_part_has() -> None:
    old = collect(registered(), rows(100))
    new = ViewStatistics(old.start_us, old.end_us, old.rows, {"x": old.features["n"]})
    merged = ViewStatistics.from_bytes(old.merged(new).to_bytes())
    assert merged.features["x"].moments.rows == 100 and merged.rows == 200
    assert set(merged.features) == {*FIELDS, "x"}


def approx(told: dict[str, Any]) -> dict[str, Any]:
    """Equal, but for the rounding of what is a mean."""
    return told | {n: pytest.approx(told[n], rel=1e-12) for n in ("mean", "std") if told.get(n) is not None}


def test_what_others_collected_is_taken_as_if_it_were_the_rows() -> None:
    view = registered()
    given = rows(9_000)
    batches = [batch(view, given[start : start + 700]) for start in range(0, len(given), 700)]
    counted = (100 * MICROS, 50 * MICROS)
    whole, together = Collector(view, counted), Collector(view, counted)
    for one_batch in batches:
        whole.add(one_batch)
    for first, last in ((0, 1), (1, 1), (1, 6), (6, len(batches))):
        part = Collector(view, counted)
        for one_batch in batches[first:last]:
            part.add(one_batch)
        together.take(pickle.loads(pickle.dumps(part.part())))
    one, other = whole.result(), together.result()
    assert one is not None and other is not None
    assert one.rows == other.rows == 8_949
    for name, expected in one.to_dict()["features"].items():
        assert other.to_dict()["features"][name] == approx(expected)
