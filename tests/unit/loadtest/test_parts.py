"""The parts of a load test that need no server: data, keys, histogram, checks, verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.client.wire import Answer
from loadtest.check import Checker, WrongAnswerError
from loadtest.data import DataSet
from loadtest.histogram import MAX_US, Histogram
from loadtest.keys import ZipfKeys
from loadtest.page import page_of
from loadtest.record import MET, MISSED, SATURATED, Recorder
from loadtest.settings import Settings

# ---- data and keys ----


def splitmix(data: DataSet, entity: int, feature: int) -> float:
    """The same value in Python's own integers."""
    mask = (1 << 64) - 1
    z = (entity * data.features + feature + (data.seed << 40)) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return (z >> 40) / (1 << 24)


def test_values_are_a_function_of_seed_entity_and_feature() -> None:
    data = DataSet(1_000, 7, seed=3)
    ids = [0, 999, 5, 5]
    found = data.values(ids)
    assert found.dtype == np.float32
    assert found.tolist() == [[splitmix(data, e, f) for f in range(7)] for e in ids]
    assert not (found == DataSet(1_000, 7, seed=4).values(ids)).any()


def test_zipf_draws_ranks_by_their_weight() -> None:
    n, s, draws = 50, 0.99, 200_000
    keys = ZipfKeys(n, s, seed=1)
    counts = np.bincount(keys.draw(draws), minlength=n)[keys.by_rank]
    weights = np.array([k**-s for k in range(1, n + 1)])
    expected = draws * weights / weights.sum()
    assert (abs(counts - expected) < 6 * np.sqrt(expected)).all()
    assert sorted(keys.by_rank.tolist()) == list(range(n))


# ---- histogram ----


@given(
    st.lists(st.integers(0, 10_000_000), min_size=1, max_size=300),
    st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9, 100.0]),
)
def test_percentiles_are_those_of_the_sorted_values_to_a_thousandth(values: list[int], q: float) -> None:
    half = len(values) // 2
    histogram, other = Histogram(), Histogram()
    histogram.add(values[:half])
    other.add(values[half:])
    histogram.merge(other)
    exact = sorted(values)[max(1, math.ceil(q / 100 * len(values) - 1e-9)) - 1]
    assert exact <= histogram.percentile_ms(q) * 1_000 + 1e-6 <= exact * (1 + 1 / 1_024) + 2e-6
    assert histogram.n == len(values) == sum(count for _, count in histogram.buckets())
    assert histogram.max_us == max(values)


def test_what_is_out_of_range_counts_at_its_end() -> None:
    histogram = Histogram()
    histogram.add([-5, MAX_US + 10])
    assert list(histogram.buckets()) == [(0, 1), (MAX_US, 1)]


# ---- checks ----

DATA = DataSet(100, 10)
IDS = np.array([4, 7, 4])


def json_answer(**changes: Any) -> Answer:
    statuses = [[1] * 3 for _ in DATA.names]
    body = {"names": DATA.names, "values": DATA.values(IDS).T.tolist(), "statuses": statuses} | changes
    return Answer(200, {"content-type": "application/json"}, orjson.dumps(body))


def tensor_answer(values: Any, bits: bytes = b"\xff\x03" * 3, statuses: bytes = b"\1\1\1") -> Answer:
    headers = {"fastserve-dtype": "<f4", "fastserve-shape": "3,10", "fastserve-columns": ",".join(DATA.names)}
    return Answer(200, headers, values.astype("<f4").tobytes() + bits + statuses)


def test_right_answers_pass() -> None:
    Checker(DATA).check("json", json_answer(), IDS)
    Checker(DATA).check("tensor", tensor_answer(DATA.values(IDS)), IDS)


def off_by_a_bit() -> Any:
    values = DATA.values(IDS)
    values[1, 9] = np.nextafter(values[1, 9], np.float32(2))
    return values


@pytest.mark.parametrize(
    ("format", "answer", "kind"),
    [
        ("json", Answer(503, {}, b"busy"), "HTTP 503"),
        ("json", json_answer(values=off_by_a_bit().T.tolist()), "wrong value"),
        ("json", json_answer(values=[[None] * 3 for _ in DATA.names]), "wrong value"),
        ("json", json_answer(statuses=[[1, 1, 3]] * 10), "wrong status"),
        ("json", json_answer(names=["g", *DATA.names[1:]]), "wrong shape"),
        ("json", json_answer(values=[[0.5, 0.5]] * 10), "wrong shape"),
        ("json", Answer(200, {}, b"[]"), "wrong shape"),
        ("arrow", Answer(200, {}, b"no Arrow"), "wrong shape"),
        ("tensor", tensor_answer(off_by_a_bit()), "wrong value"),
        ("tensor", tensor_answer(DATA.values(IDS), statuses=b"\1\3\1"), "wrong status"),
        ("tensor", tensor_answer(DATA.values(IDS), bits=b"\xff\x01" * 3), "wrong status"),
        ("tensor", tensor_answer(DATA.values(IDS)[:2]), "wrong shape"),
    ],
)
def test_wrong_answers_do_not(format: str, answer: Answer, kind: str) -> None:
    with pytest.raises(WrongAnswerError) as caught:
        Checker(DATA).check(format, answer, IDS)
    assert caught.value.args[0] == kind


# ---- the verdict ----

IDLE = {"seconds": 1.0, "cpu_share": 0.2, "unsent": 0}


def report(latency_us: int, lag_us: int = 0, error: str = "", **end: float) -> dict[str, Any]:
    """The report of 100 answers of that latency, and of one error."""
    recorder = Recorder(Settings(rate=100.0, seconds=1.0, slo_ms=10.0))
    results = [(0, 0.5, latency_us, lag_us, 10, "", "")] * 100
    recorder.take([*results, (0, -0.5, 1, 0, 0, error, "seen")] if error else results)
    return recorder.report(IDLE | end)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (report(5_000), MET),
        (report(10_000), MISSED),
        (report(12_000, lag_us=200), MISSED),
        (report(12_000, lag_us=9_000), SATURATED),
        (report(60_000, lag_us=9_000), MISSED),
        (report(12_000, cpu_share=0.97), SATURATED),
        (report(12_000, wait_share=0.75), SATURATED),
        (report(5_000, cpu_share=0.97), MET),
        (report(5_000, unsent=3), SATURATED),
        (report(5_000, error="unreachable"), MISSED),
        (report(5_000, error="timeout"), MISSED),
        (report(5_000, error="timeout", cpu_share=0.97), SATURATED),
        (report(5_000, error="wrong value", cpu_share=0.97), MISSED),
    ],
)
def test_a_saturated_client_is_not_the_servers_fault(found: dict[str, Any], code: int) -> None:
    assert found["exit_code"] == code
    assert ("the client was saturated" in found["verdict"]) == found["saturated"]
    assert code != SATURATED or found["saturated"]


def test_the_warm_up_counts_its_errors_only() -> None:
    recorder = Recorder(Settings(rate=1.0))
    recorder.take(
        [(0, -0.1, 900_000, 0, 5, "", ""), (0, 0.1, 1_000, 0, 5, "", ""), (0, -0.1, 1, 0, 0, "HTTP 500", "x")]
    )
    found = recorder.report(IDLE)
    assert (found["ok"], found["requests"], found["latency_ms"]["max"]) == (1, 1, 1.0)
    assert found["errors"] == {"HTTP 500": {"count": 1, "examples": ["x"]}}


def test_the_page_stands_alone_and_shows_what_servers_say_as_text() -> None:
    page = page_of(report(5_000, error="<script>alert(1)</script>"))
    assert "<script" not in page and "src=" not in page and "<link" not in page
    assert page.count("<svg") == 2


def test_a_run_without_answers_has_a_page_too() -> None:
    found = Recorder(Settings(rate=1.0)).report({})
    assert found["exit_code"] == MISSED
    assert "No latencies." in page_of(found)


def test_settings_survive_their_line() -> None:
    settings = Settings(formats=("json", "tensor"), batches=(1, 10), http=("2", "1.1"), rate=1.5)
    assert Settings.loads(settings.dumps()) == settings
    assert len(settings.variants) == 8
