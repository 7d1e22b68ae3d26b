"""One clock: int64 microseconds since 1970-01-01 UTC. Naive timestamps are UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final

MICROS: Final = 1_000_000
DAY_US: Final = 86_400 * MICROS
MIN_US: Final = -62_135_596_800 * MICROS  # 0001-01-01, the first instant datetime can name
MAX_US: Final = 253_402_300_800 * MICROS - 1  # the last microsecond of 9999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CYCLE_YEARS: Final = 400  # the calendar repeats itself
_CYCLE_US: Final = 146_097 * DAY_US
_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": MICROS,
    "m": 60 * MICROS,
    "h": 3_600 * MICROS,
    "d": DAY_US,
    "w": 7 * DAY_US,
}
_DURATION = re.compile(r"([0-9]+)(us|ms|s|m|h|d|w)")
_ANY_YEAR: Final = re.compile(r"([0-9]{4}|[+-][0-9]{6})(-[0-9]{2}-[0-9]{2}T[0-9:.]+)Z")


def now_us() -> int:
    """The wall clock in microseconds UTC."""
    return time.time_ns() // 1_000


def to_us(moment: datetime) -> int:
    """Microseconds of a datetime; a naive one is UTC. Exact: no float on the way."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_timestamp(text: str | date | int) -> int:
    """Microseconds of an ISO 8601 date or time (``2013-01-01``, ``2013-01-01T05:00:00Z``).

    An int is taken as microseconds already, a date as its midnight UTC.

    Raises:
        ValueError: when it is no date or time.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if isinstance(text, datetime) and text == text:  # pandas' NaT is a datetime, and not itself
        return to_us(text)
    try:
        return to_us(datetime.fromisoformat(text.isoformat() if isinstance(text, date) else str(text)))
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write it like 2013-01-01 or 2013-01-01T05:00:00Z"
        ) from None


def format_timestamp(us: int) -> str:
    """RFC 3339 in UTC, as short as exact: ``2013-01-01T05:00:00Z``, ``…00.250000Z``.

    Years beyond 0 to 9999, which RFC 3339 and datetime do not know, have a sign and six digits, as ISO 8601
    extends them and ECMAScript reads them: ``+010000-01-01T00:00:00Z``.
    """
    if MIN_US <= us <= MAX_US:
        return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    cycles, within = divmod(us, _CYCLE_US)  # years that are whole cycles apart have the same days
    text = format_timestamp(within)
    year = int(text[:4]) + cycles * _CYCLE_YEARS
    return (f"{year:04}" if 0 <= year <= 9_999 else f"{year:+07}") + text[4:]


def read_timestamp(text: str) -> int:
    """The inverse of format_timestamp.

    Raises:
        ValueError: when it is nothing that format_timestamp writes.
    """
    found = _ANY_YEAR.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time in UTC")
    cycles, years = divmod(int(found[1]) - _EPOCH.year, _CYCLE_YEARS)
    return cycles * _CYCLE_US + to_us(datetime.fromisoformat(f"{_EPOCH.year + years}{found[2]}"))


def to_moment(us: int) -> datetime | str:
    """The instant as a datetime in UTC; as text where a datetime cannot name it."""
    return _EPOCH + timedelta(microseconds=us) if MIN_US <= us <= MAX_US else format_timestamp(us)


def parse_duration(value: object) -> int:
    """Microseconds of ``90s``, ``15m``, ``2h``, ``30d``, ``1w``, ``500ms``, ``250us``, ``1h30m`` or a timedelta.

    Raises:
        ValueError: when the text is no duration.
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    parts = _DURATION.findall(value) if isinstance(value, str) else []
    if not parts or "".join(n + unit for n, unit in parts) != value:
        raise ValueError(f"{value!r} is not a duration; write it like 90s, 15m, 2h, 30d or 1h30m")
    return sum(int(n) * _UNITS[unit] for n, unit in parts)


def format_duration(us: int) -> str:
    """The inverse of parse_duration, largest units first: ``1h30m``."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, us = divmod(us, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
