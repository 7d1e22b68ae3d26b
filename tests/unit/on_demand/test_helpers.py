"""Helpers of on-demand functions, against plain Python; and the very bits, which are the same on every machine."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.on_demand import day_of_week, haversine_km, hour_of_day, hours_since, ratio

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))


def far(lat_1: float, lon_1: float, lat_2: float, lon_2: float) -> float:
    """The angle between two vectors, by its tangent; no haversine."""
    a, b = (
        (math.cos(math.radians(t)) * math.cos(math.radians(n)),
         math.cos(math.radians(t)) * math.sin(math.radians(n)),
         math.sin(math.radians(t))) for t, n in ((lat_1, lon_1), (lat_2, lon_2))
    )  # fmt: skip
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return 6371.0088 * math.atan2(math.hypot(*cross), sum(x * y for x, y in zip(a, b, strict=True)))


@settings(max_examples=50)
@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_a_distance_is_that_of_the_vectors(lat_1, lon_1, lat_2, lon_2):
    found = float(haversine_km(lat_1, lon_1, lat_2, lon_2))
    # Near the antipodes the haversine itself is ill-conditioned: a last bit is some metres there.
    slack = 1e-3 if found > 19_000 else 1e-6
    assert math.isclose(found, far(lat_1, lon_1, lat_2, lon_2), rel_tol=1e-11, abs_tol=slack)


@settings(max_examples=50)
@given(st.lists(st.tuples(LATITUDES, LONGITUDES), min_size=1, max_size=40), st.integers(0, 39))
def test_a_distance_does_not_depend_on_its_neighbours(points, i):
    i %= len(points)
    lat, lon = (np.array(column) for column in zip(*points, strict=True))
    whole = haversine_km(lat, lon, 52.5, 13.4)
    assert whole[i].tobytes() == haversine_km(lat[i : i + 1], lon[i : i + 1], 52.5, 13.4)[0].tobytes()
    assert whole[::-1].tobytes() == haversine_km(lat[::-1], lon[::-1], 52.5, 13.4).tobytes()


def test_distances_to_the_bit():
    lat_1 = np.array([0.0, 52.52, 40.6413, -33.8688, 90.0, 10.0])
    lon_1 = np.array([0.0, 13.405, -73.7781, 151.2093, 0.0, 200.0])
    lat_2 = np.array([0.0, 48.8566, 33.9416, 51.5074, -90.0, 10.0])
    lon_2 = np.array([1.0, 2.3522, -118.4085, -0.1278, 0.0, -160.0])
    found = haversine_km(lat_1, lon_1, lat_2, lon_2)
    assert [value.hex() for value in found.tolist()] == BITS
    assert np.isnan(haversine_km([91.0, 0.0, math.nan, 0.0], [0.0, 361.0, 0.0, math.inf], 0.0, 0.0)).all()


BITS = [
    "0x1.bcc7c31cdc7acp+6",
    "0x1.b6bb75fa86512p+9",
    "0x1.f0caef1efb3d6p+11",
    "0x1.0987d3e6323e0p+14",
    "0x1.38bc75304b065p+14",
    "0x0.0p+0",
]


@settings(max_examples=50)
@given(st.lists(st.tuples(MOMENTS, MOMENTS), max_size=20))
def test_times(pairs):
    then, at = (np.array([pair[i] for pair in pairs], "datetime64[us]") for i in (0, 1))
    assert hours_since(then, at).tolist() == [
        (b - a) // timedelta(microseconds=1) / 3_600_000_000 for a, b in pairs
    ]
    aware = [pair[1].replace(tzinfo=UTC) for pair in pairs]
    assert hour_of_day(at).tolist() == [moment.hour for moment in aware]
    assert day_of_week(at).tolist() == [moment.weekday() for moment in aware]


def test_nulls_go_through():
    given = np.ma.MaskedArray([90.0, 1.0], mask=[False, True])
    assert haversine_km(given, 0.0, 90.0, 0.0).tolist() == [0.0, None]
    assert ratio(given, np.array([0.0, 2.0])).tolist() == [None, None]
    times = np.ma.MaskedArray(np.array(["2024-01-01T05", "2024-01-01"], "datetime64[us]"), mask=[False, True])
    assert (hour_of_day(times).tolist(), day_of_week(times).tolist()) == ([5, None], [0, None])
    assert hours_since(times, times.data).tolist() == [0.0, None]


def test_a_ratio_of_nothing_is_null():
    made = ratio(np.array([1.0, 2.0, 0.0]), np.array([2, 0, 0]))
    assert made.tolist() == [0.5, None, None]
