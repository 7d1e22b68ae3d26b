"""A repo of a row view, a windowed one and an on-demand one, with a history in Parquet and rows online of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastserve import FeatureStore
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.online import open_store
from fastserve.timeutil import MICROS
from fastserve.types import arrow_type
from materializer.run import materialize
from tests.support import NOW_US, make_repo

UTC = pa.timestamp("us", "UTC")
CARDS = 120
FEATURES = """
from fastserve import (AggregatedFeatureView, Aggregation, Array, Entity, EventSource, FeatureService, FeatureView,
    Field, FileSource, RequestSource, on_demand_feature_view)
from fastserve.on_demand import hours_since, ratio

card = Entity("card", "card_id", "int64")
profile = FeatureView("profile", entities=[card], ttl="2h", offline=False,
    source=FileSource("profiles.parquet", "ts", "created"), schema=[
    Field("mean", "float64"), Field("seen", "timestamp"), Field("home", "string"), Field("rank", "int32", default=7),
    Field("vector", Array("float32", 2)), Field("tags", Array("string"))])
payments = EventSource("payments", FileSource("payments.parquet", "ts", "created"), schema=[
    Field("amount", "float64"), Field("status", "string")], event_id="id", lateness="1h")
spend = AggregatedFeatureView("spend", entities=[card], source=payments, filter="status = 'paid'", aggregations=[
    Aggregation("amount", "sum", windows=["10m", "1h"]), Aggregation("*", "count", windows=["1h"]),
    Aggregation("amount", "last_n", n=2, windows=["1h"])])
payment = RequestSource("payment", schema=[Field("price", "float64"), Field("shop", "string")])

@on_demand_feature_view(sources=[profile[["mean", "seen"]], spend[["amount_sum_1h"]], payment], schema=[
    Field("times_mean", "float64"), Field("hours", "float32"), Field("share", "float64")])
def unusual(inputs, at):
    return {
        "times_mean": ratio(inputs["price"], inputs["mean"]),
        "hours": hours_since(inputs["seen"], at),
        "share": inputs["price"] / (1.0 + inputs["amount_sum_1h"]),
    }

scoring = FeatureService("scoring", [profile, spend, unusual])
"""


def times(values: Any) -> pa.Array:
    """Microseconds as timestamps."""
    return pa.array(np.asarray(values, np.int64)).cast(UTC)


def profiles(rng: np.random.Generator, now_us: int, cards: range = range(CARDS)) -> pa.Table:
    """Three rows of most cards in the 3 hours before an instant; some expired by then."""
    ids = np.repeat([card for card in cards if card % 10], 3)
    ts = now_us - rng.integers(1, 3 * 3600 * MICROS, len(ids))
    missing = rng.random(len(ids)) < 0.1
    return pa.table(
        {
            "card_id": ids,
            "ts": times(ts),
            "created": times(ts + 1),
            "mean": pa.array(rng.normal(20, 5, len(ids)), mask=missing),
            "seen": times(ts - 5 * MICROS),
            "home": rng.choice(["Bern", "Genève", ""], len(ids)),
            "rank": pa.array(rng.integers(0, 9, len(ids)), pa.int32(), mask=missing),
            "vector": pa.array(
                rng.normal(size=(len(ids), 2)).astype("f4").tolist(), pa.list_(pa.float32(), 2)
            ),
            "tags": [["a", "bc"][: i % 3] if i % 7 else None for i in range(len(ids))],
        }
    )


def payments(rng: np.random.Generator, now_us: int, cards: range = range(CARDS)) -> pa.Table:
    """Some 30 events of each card in the 2 hours before an instant."""
    ids = np.repeat([card for card in cards if card % 11], 30)
    ts = now_us - rng.integers(1, 2 * 3600 * MICROS, len(ids))
    return pa.table(
        {
            "card_id": ids,
            "ts": times(ts),
            "created": times(ts + 1),
            "id": [f"e{i}" for i in range(len(ids))],
            "amount": pa.array(rng.lognormal(3, 1, len(ids)), mask=rng.random(len(ids)) < 0.05),
            "status": rng.choice(["paid", "open"], len(ids)),
        }
    )


def make(folder: Path, now_us: int = NOW_US, features: str = FEATURES, **settings: str) -> FeatureStore:
    """The repo, applied, with a history and the online rows of it."""
    rng = np.random.default_rng(7)
    make_repo(folder, features, **{"online_store": "lmdb://.fastserve/online?sync=off", **settings})
    pq.write_table(profiles(rng, now_us), folder / "profiles.parquet")
    pq.write_table(payments(rng, now_us), folder / "payments.parquet")
    store = FeatureStore(folder)
    store.apply()
    run(store, now_us)
    return store


def run(store: FeatureStore, now_us: int = NOW_US) -> None:
    """Bring what history has by then online."""
    summary = materialize(store.config, end_us=now_us, now_us=now_us)
    assert summary.status == "ok", [view.error for view in summary.views]


def add(path: Path, **columns: Any) -> None:
    """One more row of a source: the given columns, the others as in its first row."""
    table = pq.read_table(path)
    row = {name: values[0:1] for name, values in zip(table.column_names, table.columns, strict=True)}
    for name, value in columns.items():
        is_time = name in ("ts", "created")
        row[name] = pa.chunked_array([times([value]) if is_time else pa.array([value], table[name].type)])
    pq.write_table(pa.concat_tables([table, pa.table(row, schema=table.schema)]), path)


def overwrite(store: FeatureStore, card: int, row: dict[str, Any] | None, event_us: int = 0) -> None:
    """Put another row of a profile online, past every rule; None for bytes that are no row."""
    rv = store.snapshot.view("profile")
    keys = KeyEncoder(rv.online_id, ("int64",)).encode([[card]], 1)
    rows: list[bytes | None] = [b"\x01no row of any layout, and long enough"]
    if row is not None:
        columns = [
            pa.array([row.get(name)], arrow_type(dtype))
            for name, dtype in zip(rv.layout.names, rv.layout.dtypes, strict=True)
        ]
        at = np.array([event_us], np.int64)
        rows = RowEncoder(rv.layout).encode(keys, columns, at, at)

    async def put() -> None:
        online = open_store(store.config.online_store)
        await online.delete_many(keys)
        await online.put_many(keys, rows)
        await online.close()

    asyncio.run(put())
