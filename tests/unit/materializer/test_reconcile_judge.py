"""Kinds of differences, against the naive oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.codec.rows import RowEncoder
from fastserve.definitions import FeatureView, Field
from fastserve.offline.online_rows import kept_us
from fastserve.types import Float64, Int64, String, arrow_type
from materializer.reconcile.judge import Judge
from tests.oracles.naive_reconcile import DAY_US, Fact, kind_of, newest
from tests.unit.offline.views import registered

NOW = 1_000 * DAY_US
GRACE = 3_600_000_000
TTL = DAY_US
KEY = b"7:1"
DEFAULTS: dict[str, Any] = {"a": None, "b": "none", "c": 0.5}


def view_of(ttl: str | None) -> Any:
    schema = [Field("a", Int64), Field("b", String, default="none"), Field("c", Float64, default=0.5)]
    view = FeatureView("v", schema=schema, ttl=ttl)
    return registered(view, {"id": "int64"}, (("a",), ("a", "b")))


def encoded(rv: Any, key: bytes, fact: Fact) -> bytes:
    """The row of a fact, in the layout of the fields it has."""
    [layout] = [one for one in rv.layouts if set(one.names) == set(fact.values)]
    columns = [
        pa.array([fact.values[n]], arrow_type(t)) for n, t in zip(layout.names, layout.dtypes, strict=True)
    ]
    times = [np.array([us], np.int64) for us in (fact.event, fact.created)]
    return RowEncoder(layout).encode([key], columns, *times)[0]


edges = st.sampled_from([0, 1, GRACE - 1, GRACE, GRACE + 1, TTL - 1, TTL, TTL + 1, 3 * TTL, 3 * TTL + DAY_US - 1,
                         3 * TTL + DAY_US, 3 * TTL + DAY_US + 1])  # fmt: skip


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    event = NOW - draw(edges)
    created = min(NOW, event + draw(st.sampled_from([0, 0, 1, GRACE])))
    n_fields = draw(st.integers(1, 3))
    values = {
        "a": draw(st.sampled_from([None, 0, 1])),
        "b": draw(st.sampled_from([None, "", "none", "x"])),
        "c": draw(st.sampled_from([None, 0.5, 0.0])),
    }
    return Fact(event, created, dict(list(values.items())[:n_fields]))


@settings(max_examples=300, deadline=None)
@given(
    history=st.lists(facts(), max_size=3),
    online=st.none() | st.sampled_from(["flip", "cut", "layout"]) | facts(),
    same_times=st.booleans(),
    with_ttl=st.booleans(),
)
def test_it_says_what_the_oracle_says(
    history: list[Fact], online: Fact | str | None, same_times: bool, with_ttl: bool
) -> None:
    rv, ttl = view_of("1d" if with_ttl else None), TTL if with_ttl else None
    truth = newest(history, NOW, ttl)
    if same_times and truth is not None and isinstance(online, Fact):
        online = Fact(truth.event, truth.created, online.values)
    row = None if truth is None else encoded(rv, KEY, truth)
    held = None if online is None else encoded(rv, KEY, online) if isinstance(online, Fact) else b""
    if isinstance(online, str):
        held = broken(encoded(rv, KEY, truth or Fact(NOW, NOW, {"a": 1})), online)
    judge = Judge(rv, NOW, GRACE, kept_us(ttl))
    wanted = kind_of(history, online, now=NOW, ttl=ttl, grace=GRACE, defaults=DEFAULTS)
    assert judge.judge([KEY], [row], [held]) == [wanted]


def broken(row: bytes, how: str) -> bytes:
    if how == "cut":
        return row[:20]
    if how == "layout":
        return row[:2] + b"\x09\x09" + row[4:]
    return row[:-1] + bytes([row[-1] ^ 1])


def test_bad_rows_are_found_among_good_ones() -> None:
    rv = view_of(None)
    keys = [b"7:%d" % i for i in range(100)]
    truth = [encoded(rv, key, Fact(NOW, NOW, {"a": 1})) for key in keys]
    held = [encoded(rv, key, Fact(NOW, NOW, {"a": 2})) for key in keys]
    for i in (0, 17, 18, 99):
        held[i] = broken(held[i], "flip")
    held[50] = held[51]  # of another key
    judge = Judge(rv, NOW, GRACE, None)
    kinds = judge.judge(keys, list(truth), list(held))
    assert {i for i, kind in enumerate(kinds) if kind == "corrupt"} == {0, 17, 18, 50, 99}
    assert {kind for kind in kinds if kind != "corrupt"} == {"value"}


@pytest.mark.parametrize(("mine", "theirs"), [(0.0, -0.0), (float("nan"), None)])
def test_values_are_compared_bit_by_bit(mine: float | None, theirs: float | None) -> None:
    rv = view_of(None)
    rows = [encoded(rv, KEY, Fact(NOW, NOW, {"a": 1, "b": "x", "c": c})) for c in (mine, theirs)]
    judge = Judge(rv, NOW, GRACE, None)
    assert judge.judge([KEY], [rows[0]], [rows[1]]) == ["value"]
    assert judge.differing(KEY, *rows) == ["c"]
