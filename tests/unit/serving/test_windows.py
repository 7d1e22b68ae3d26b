"""Aggregated views on the read path: folded as of now, beside row views and on-demand ones, in one round trip."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.aggregations.build import TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.api.arrow_answer import render_arrow
from fastserve.api.handlers import _HITS, _RENDER
from fastserve.api.json_answer import render_json
from fastserve.batch import ReadBatch
from fastserve.cache import RowCache
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.status import Status
from fastserve.definitions import AggregatedFeatureView
from fastserve.definitions.load import load_definitions
from fastserve.errors import CodecError, RequestError
from fastserve.online import OnlineStore, open_store
from fastserve.registry import RegisteredView, open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.push import Pusher
from fastserve.serving.read_path import Found, ReadPath, decode_columns
from fastserve.timeutil import MICROS
from tests.oracles.windows import window_value
from tests.support import NOW_US, make_repo, put

FEATURES = '''
from fastserve import (AggregatedFeatureView, Aggregation, Entity, EventSource, FeatureService, FeatureView, Field,
                       FileSource, RequestSource, on_demand_feature_view)
from fastserve.on_demand import ratio

card = Entity("card", "card_id", "int64")
payments = EventSource("payments", FileSource("payments.parquet"), schema=[Field("amount", "float64")])
spend = AggregatedFeatureView("spend", entities=[card], source=payments, aggregations=[
    Aggregation("amount", "sum", windows=["5m", "1h"]),
    Aggregation("*", "count", windows=["5m"]),
    Aggregation("amount", "last_n", n=2, windows=["1h"])])
profile = FeatureView("profile", entities=[card], schema=[Field("limit", "float64")])
now = RequestSource("now", [Field("amount", "float64")])

@on_demand_feature_view(sources=[spend[["amount_sum_5m"]], profile, now], schema=[Field("used", "float64")])
def used(inputs):
    return {"used": ratio(inputs["amount_sum_5m"] + inputs["amount"], inputs["limit"])}

@on_demand_feature_view(sources=[spend[["count_5m"]], profile], schema=[Field("each", "float64")])
def each(inputs):
    return {"each": inputs["limit"] / inputs["count_5m"]}

scoring = FeatureService("scoring", [profile, spend, used])
hitting = FeatureService("hitting", [spend[["amount_sum_5m"]], profile, each])
'''  # fmt: skip
EVENTS = {1: [(-600, 5.0), (-240, 1.5), (-30, 2.0)], 2: [(-3_500, 7.0)], 3: [(5, 4.0)]}
"""Card -> (seconds after NOW_US, amount): card 3's clock is ahead of the reader's."""


@dataclass
class Shop:
    """What the tests ask."""

    catalog: Catalog
    store: OnlineStore


async def put_tiles(store: OnlineStore, rv: RegisteredView, events: dict[int, Any]) -> None:
    """Write the tile rows of these events."""
    assert isinstance(rv.view, AggregatedFeatureView)
    batch = ReadBatch(
        KeyEncoder(rv.online_id, tuple(rv.join_keys.values())).encode([list(events)], len(events))
    )
    codes = [code for code, found in enumerate(events.values()) for _ in found]
    times = [NOW_US + seconds * MICROS for found in events.values() for seconds, _ in found]
    amounts = pa.array([amount for found in events.values() for _, amount in found], pa.float64())
    TileBuilder(compile_program(rv.view), rv.layout.layout_id).build_into(
        batch, np.array(codes), np.array(times), [amounts], end_us=NOW_US + 10**9, created_us=NOW_US)  # fmt: skip
    await store.put_batch(batch, None)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    repo = make_repo(tmp_path / "repo", FEATURES)
    registry = open_registry(f"sqlite:///{tmp_path}/registry.db", "tests")
    snapshot = registry.apply(load_definitions(repo)).snapshot
    store = open_store(f"memory://{tmp_path}")
    await put_tiles(store, snapshot.view("spend"), EVENTS)
    await put(store, snapshot.view("profile"), [{"card_id": i, "limit": 10.0} for i in (1, 2, 3, 4)])
    catalog = Catalog(registry, repo)
    yield Shop(catalog, store)
    await catalog.close()
    await store.close()


def expected(ids: Sequence[int], now: int, amount: float) -> dict[str, list[Any]]:
    """By the oracle."""
    found: dict[str, list[Any]] = {
        name: []
        for name in ("limit", "amount_sum_5m", "amount_sum_1h", "count_5m", "amount_last_2_1h", "used")
    }
    for card in ids:
        events = [(NOW_US + seconds * MICROS, value) for seconds, value in EVENTS.get(card, [])]
        t = max([now, *(at for at, _ in events)])
        ask = {"t": t, "dtype": "float64"}
        sum_5m = window_value("sum", events, window=300 * MICROS, hop=10 * MICROS, **ask)
        found["limit"].append(10.0)
        found["amount_sum_5m"].append(sum_5m)
        found["amount_sum_1h"].append(
            window_value("sum", events, window=3_600 * MICROS, hop=60 * MICROS, **ask)
        )
        found["count_5m"].append(window_value("events", events, window=300 * MICROS, hop=10 * MICROS, **ask))
        found["amount_last_2_1h"].append(
            window_value("last_n", events, window=3_600 * MICROS, hop=60 * MICROS, argument=2, **ask)
        )
        found["used"].append(None if sum_5m is None else (sum_5m + amount) / 10.0)
    return found


@pytest.mark.parametrize("later", [0, 20, 65, 290, 600, 3_000, 9_000])
async def test_values_are_the_oracles_and_decay(shop, later):
    plan = shop.catalog.plan("scoring", (), False)
    assert [read.view for read in plan.reads] == ["profile", "spend"]  # used needs nothing more
    ids, now = [1, 2, 3, 4], NOW_US + later * MICROS
    path = ReadPath(shop.store, lambda: now)
    batch = path.read(plan, {"card_id": ids, "amount": [1.0] * 4}, decode_columns)
    found = {c.name: batch.reads[c.read].columns[c.column].to_pylist() for c in batch.plan.columns}
    assert found == expected(ids, now, 1.0)
    rows = [Status(int(status)).name for status in batch.reads[1].row_status]
    assert rows == ["PRESENT", "PRESENT", "PRESENT", "NOT_FOUND"]
    assert batch.reads[1].event_ts.tolist() == [
        NOW_US - 30 * MICROS, NOW_US - 3_500 * MICROS, min(now, NOW_US + 5 * MICROS), 0
    ]  # fmt: skip
    assert path.counters()["reads"] == 1


async def test_the_cache_keeps_tiles_and_hits_go_on_with_time(shop):
    plan = shop.catalog.plan("hitting", (), False)
    cache, moment = RowCache(1 << 20), time.monotonic_ns() // 1_000
    path = ReadPath(shop.store, lambda: NOW_US)
    batch = path.encode(plan, {"card_id": [1, 2]}, 2)
    batch.fill(await_rows(shop.store, batch), moment)
    path.read(plan, {"card_id": [1, 2]}, decode_columns)
    cache.put_many(batch, 0, len(batch))
    for media, hit in _HITS.items():
        answer = hit(plan.answered)
        if answer is None and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
            continue
        assert answer is not None and plan.derivation is not None
        derived = plan.derivation.hit(answer, plan)
        said = {}
        for later in (0, 290):
            again = path.encode(plan, {"card_id": [1, 2]}, 2)
            assert cache.get_reads(again, 2, plan.max_ages_us, moment, 0) == 0
            now = NOW_US + later * MICROS
            said[later] = bytes(derived(again, 2, now).body)
            finish = plan.finishing(_RENDER[media], {})
            assert said[later] == bytes(finish(Found(plan, 2, again, now)).body)
        assert said[0] != said[290], media


def await_rows(store: OnlineStore, batch: ReadBatch) -> Any:
    rows = store.get_many(batch.missing_keys())
    assert isinstance(rows, list)
    return rows


async def test_plans_of_rows_alone_are_as_ever(shop):
    assert shop.catalog.plan("", ("profile:limit",), False).derivation is None
    plan = shop.catalog.plan("", ("spend:count_5m",), False)
    assert plan.derivation is not None and plan.derivation.steps == ()


async def test_a_corrupt_tile_row_is_an_error_and_unknown_rows_are_unavailable(shop):
    plan = shop.catalog.plan("hitting", (), False)
    path = ReadPath(shop.store, lambda: NOW_US)
    batch = path.encode(plan, {"card_id": [1]}, 1)
    rows = await_rows(shop.store, batch)
    batch.fill([rows[0][:-1] + bytes([rows[0][-1] ^ 1]), rows[1]], 0)
    assert plan.derivation is not None
    with pytest.raises(CodecError, match="checksum"):
        plan.derivation.derive(Found(plan, 1, batch, NOW_US), {})
    unknown = path.encode(plan, {"card_id": [1]}, 1)
    found = plan.derivation.derive(Found(plan, 1, unknown, NOW_US, "gone"), {})
    answer = decode_columns(found)
    assert [s for rows in answer.reads for s in rows.statuses[:, 0].tolist()] == [5, 5, 5]
    assert (render_json(found), len(render_arrow(found)) > 0) and found.unavailable == "gone"


async def test_rows_of_windows_are_not_pushed(shop, tmp_path):
    registry = open_registry(f"sqlite:///{tmp_path}/registry.db", "tests")
    snapshot = registry.snapshot()
    pusher = Pusher(registry, snapshot, offline_root=str(tmp_path), online=shop.store, now=lambda: NOW_US)
    with pytest.raises(RequestError, match="made of events"):
        await pusher.push([snapshot.view("spend")], {"card_id": [1]})
    await pusher.close()
