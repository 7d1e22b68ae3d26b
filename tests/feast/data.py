"""The data of the Feast test repos: written from a seed, so that Feast and fastserve read the same files anywhere.

Every entity has some rows; the newest decides what is served. Times are fixed: NOW is when the tests ask.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
START = NOW - timedelta(days=40)
TIME = pa.timestamp("us", "UTC")
DRIVERS = range(1001, 1021)
CUSTOMERS = ("ann", "bob|b", "café", "", "d e")
LOCATIONS = range(1, 9)
ITEMS = range(1, 31)


def write_data(repo: Path, name: str) -> None:
    """The files of the repo `name` under `repo`/data."""
    (repo / "data").mkdir(exist_ok=True)
    for file, rows, kinds in TABLES[name](random.Random(name)):
        schema = pa.schema(kinds)
        pq.write_table(pa.Table.from_pylist(rows, schema), repo / "data" / f"{file}.parquet")


Table = tuple[str, list[dict[str, Any]], dict[str, pa.DataType]]


def _rides(rng: random.Random) -> list[Table]:
    keys = {"event_timestamp": TIME}
    drivers = [_driver(rng, driver, hours) for driver in DRIVERS[:-2] for hours in (1, 3, 5, 30)]
    drivers += [_driver(rng, DRIVERS[-2], hours) for hours in (7, 9)]  # expired: the ttl is 6 hours
    correction = {**drivers[0], "trips": 4242, "created": drivers[0]["created"] + timedelta(minutes=30)}
    pairs = [
        {
            "driver_id": driver,
            "customer_id": customer,
            "n": rng.choice([rng.randrange(100), None]),
            "spent": rng.choice([round(rng.uniform(0, 99), 2), float("nan")]),
            "at": NOW - timedelta(hours=hours),
            "known_at": NOW - timedelta(hours=hours - 1),
        }
        for driver in DRIVERS[:6]
        for customer in CUSTOMERS
        for hours in (2, 20)
    ]
    locations = [
        {
            "location_id": i,
            "temperature": rng.uniform(-9, 35),
            "name": f"place {i}",
            "event_timestamp": NOW - timedelta(days=i),
        }
        for i in LOCATIONS
    ]
    world = [
        {"open_rides": 10 * hours, "surge": hours / 7, "event_timestamp": NOW - timedelta(hours=hours)}
        for hours in (1, 2)
    ]
    numbers = {"conv_rate": pa.float32(), "rating": pa.float64(), "trips": pa.int64(), "level": pa.int32()}
    return [
        (
            "drivers",
            [*rng.sample(drivers, len(drivers)), correction],
            {"driver_id": pa.int64(), **numbers, "active": pa.bool_(), "vehicle": pa.string(), **keys, "created": TIME},
        ),
        ("pairs", pairs, PAIR_COLUMNS),
        ("locations", locations, {"location_id": pa.int32(), "temperature": pa.float32(), "name": pa.string(), **keys}),
        ("global", world, {"open_rides": pa.int64(), "surge": pa.float64(), **keys}),
    ]  # fmt: skip


PAIR_COLUMNS = {
    "driver_id": pa.int64(), "customer_id": pa.string(), "n": pa.int64(), "spent": pa.float64(),
    "at": TIME, "known_at": TIME,
}  # fmt: skip


def _driver(rng: random.Random, driver: int, hours: int) -> dict[str, Any]:
    at = NOW - timedelta(hours=hours, microseconds=rng.choice([0, 1_000, 123_456]))
    return {
        "driver_id": driver,
        "conv_rate": rng.choice([rng.random(), 0.1, 1e-7, 3e38]),
        "rating": rng.choice([rng.random() * 5, 0.1, 1e22, -0.0, None]),
        "trips": rng.choice([rng.randrange(10**6), 2**53 + 1, -(2**63), None]),
        "level": rng.choice([rng.randrange(-5, 9), 2**31 - 1]),
        "active": rng.choice([True, False]),
        "vehicle": rng.choice(["sedan", "", 'a "van"', "żuk \U0001f697", None]),
        "event_timestamp": at,
        "created": at + timedelta(minutes=1),
    }


def _odd(rng: random.Random) -> list[Table]:
    time = {"item_id": pa.int64(), "event_timestamp": TIME}
    items = [_item(rng, item, days) for item in ITEMS for days in (20, 1)]
    inferred = [
        {
            "item_id": i,
            "score": rng.random(),
            "visits": rng.randrange(9),
            "event_timestamp": NOW - timedelta(days=1),
        }
        for i in ITEMS
    ]
    clicks = [
        {"item_id": i, "n_clicks": rng.randrange(99), "event_timestamp": NOW - timedelta(hours=i)}
        for i in ITEMS
    ]
    moments = [{"moment_at": NOW, "n_clicks": 1, "event_timestamp": NOW}]
    lists = {name: pa.list_(kind) for name, kind in ITEM_LISTS.items()}
    others = {"extras": pa.struct({"k": pa.string()}), "labels": pa.list_(pa.string())}
    return [
        ("kinds", items, {**time, **ITEM_SCALARS, **lists, **others}),
        ("inferred", inferred, {**time, "score": pa.float64(), "visits": pa.int64()}),
        ("clicks", clicks, {**time, "n_clicks": pa.int64()}),
        ("moments", moments, {"moment_at": TIME, "n_clicks": pa.int64(), "event_timestamp": TIME}),
    ]


ITEM_SCALARS = {
    "flag": pa.bool_(), "small": pa.int32(), "big": pa.int64(), "single": pa.float32(), "double": pa.float64(),
    "text": pa.string(), "blob": pa.binary(), "moment": TIME, "config": pa.string(),
}  # fmt: skip
ITEM_LISTS = {
    "flags": pa.bool_(), "smalls": pa.int32(), "bigs": pa.int64(), "singles": pa.float32(), "doubles": pa.float64(),
    "texts": pa.string(), "blobs": pa.binary(), "moments": TIME,
}  # fmt: skip


def _item(rng: random.Random, item: int, days: int) -> dict[str, Any]:
    scalars: dict[str, Any] = {
        "flag": rng.choice([True, False]),
        "small": rng.randrange(-9, 9),
        "big": rng.choice([rng.randrange(99), 2**53 + 1]),
        "single": rng.choice([rng.random(), float("inf")]),
        "double": rng.choice([rng.random(), float("-inf")]),
        "text": rng.choice(["a", "", "ü\n"]),
        "blob": rng.randbytes(rng.randrange(4)),
        "moment": NOW - timedelta(days=rng.randrange(9)),
        "config": rng.choice(['{"a": [1, 2]}', "[]"]),
    }
    lists = {
        "flags": [True, False, True],
        "smalls": [rng.randrange(9) for _ in range(3)],
        "bigs": [2**53 + 1, -1],
        "singles": [rng.random(), 0.1],
        "doubles": [rng.random(), 1e22],
        "texts": ["a", "", "é"],
        "blobs": [b"\x00\xff", b"x"],
        "moments": [NOW, NOW - timedelta(days=1)],
    }
    values = scalars | lists
    if item % 5 == 0:  # one null of each kind somewhere
        values[rng.choice(list(values))] = None
    other = {"extras": {"k": "v"}, "labels": ["x", "y"]}
    return {"item_id": item, "event_timestamp": NOW - timedelta(days=days), **values, **other}


TABLES = {"rides": _rides, "odd": _odd}
