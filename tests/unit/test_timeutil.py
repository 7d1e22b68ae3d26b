"""One clock: timestamps and durations as exact microseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.timeutil import (
    DAY_US,
    MAX_US,
    MIN_US,
    format_duration,
    format_timestamp,
    now_us,
    parse_duration,
    parse_timestamp,
    read_timestamp,
    to_moment,
    to_us,
)

ZONES = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
INSTANTS = st.integers(MIN_US, MAX_US)
ANY = st.integers(-(2**63) + 1, 2**63 - 1)  # numpy's least is no time


@given(INSTANTS)
def test_timestamps_round_trip(us: int) -> None:
    text = format_timestamp(us)
    assert text.endswith("Z")
    assert parse_timestamp(text) == us


@given(ANY)
def test_any_int64_has_a_text_which_numpy_reads_too(us: int) -> None:
    text = format_timestamp(us)
    assert read_timestamp(text) == us == int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))
    assert to_moment(us) == (datetime.fromisoformat(text) if MIN_US <= us <= MAX_US else text)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (MAX_US + 1, "+010000-01-01T00:00:00Z"),
        (MIN_US - 1, "0000-12-31T23:59:59.999999Z"),
        (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
        (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999Z"),
        (-(2**63), "-290308-12-21T19:59:05.224192Z"),
        (2**63 - 1, "+294247-01-10T04:00:54.775807Z"),
    ],
)
def test_years_that_datetime_does_not_know(us: int, text: str) -> None:
    assert format_timestamp(us) == to_moment(us) == text
    assert read_timestamp(text) == us


@pytest.mark.parametrize(
    "text", ["", "2013-01-01", "2013-01-01T00:00:00", "2013-13-01T00:00:00Z", "+10000-01-01T00:00:00Z"]
)
def test_what_is_no_time_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        read_timestamp(text)


@given(st.datetimes(), ZONES)
def test_to_us_is_exact(moment: datetime, zone: timezone) -> None:
    """Naive is UTC; another zone names the same instant; no float in between."""
    us = to_us(moment)
    assert to_us(moment.replace(tzinfo=UTC)) == us
    offset = zone.utcoffset(None)
    assert to_us(moment.replace(tzinfo=zone)) == us - offset // timedelta(microseconds=1)
    assert datetime(1970, 1, 1) + timedelta(microseconds=us) == moment


@given(INSTANTS, INSTANTS)
def test_the_order_of_texts_is_the_order_of_times(a: int, b: int) -> None:
    """For times of one precision: whole seconds."""
    a, b = a // 1_000_000 * 1_000_000, b // 1_000_000 * 1_000_000
    assert (format_timestamp(a) < format_timestamp(b)) == (a < b)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01 00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("0001-01-01", MIN_US),
        ("9999-12-31T23:59:59.999999Z", MAX_US),
        (datetime(1970, 1, 2), DAY_US),
        (date(1970, 1, 2), DAY_US),
        (42, 42),
    ],
)
def test_timestamps(text: str, us: int) -> None:
    assert parse_timestamp(text) == us


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2013-13-01", "2013-01-01T25:00:00", "1.5", "12:00", 1.5, True, None, pd.NaT],
)
def test_bad_timestamps(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a time; write it like 2013-01-01"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (250_000, "1970-01-01T00:00:00.250000Z"),
        (MIN_US, "0001-01-01T00:00:00Z"),
    ],
)
def test_format_timestamp(us: int, text: str) -> None:
    assert format_timestamp(us) == text


def test_now() -> None:
    before = datetime.now(UTC)
    now = now_us()
    assert to_us(before) <= now <= to_us(datetime.now(UTC))


@given(st.integers(0, MAX_US))
def test_durations_round_trip(us: int) -> None:
    assert parse_duration(format_duration(us)) == us
    assert parse_duration(timedelta(microseconds=us)) == us


@given(
    st.lists(
        st.tuples(st.integers(0, 999), st.sampled_from(["us", "ms", "s", "m", "h", "d", "w"])), min_size=1
    )
)
def test_durations_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{n}{unit}" for n, unit in parts)
    assert parse_duration(text) == sum(parse_duration(f"{n}{unit}") for n, unit in parts)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("250us", 250),
        ("500ms", 500_000),
        ("90s", 90_000_000),
        ("15m", 900_000_000),
        ("2h", 7_200_000_000),
        ("30d", 30 * DAY_US),
        ("1w", 7 * DAY_US),
        ("1h30m", 5_400_000_000),
        ("0s", 0),
        (timedelta(days=-1), -DAY_US),
    ],
)
def test_durations(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1.5h", "-1h", "1 h", "1h ", "2 hours", "1y", "1H", "٣h", "1h-30m", 3600, None]
)
def test_bad_durations(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("us", "text"), [(0, "0s"), (5_400_000_000, "1h30m"), (DAY_US, "1d"), (1_500, "1ms500us")]
)
def test_format_duration(us: int, text: str) -> None:
    assert format_duration(us) == text
