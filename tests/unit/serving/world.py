"""A registry with one view of every type, a composite key, an entity-less view; a memory store with rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastserve import Array, Entity, FeatureService, FeatureView, Field
from fastserve.online import OnlineStore, open_store
from fastserve.registry import Registry, open_registry
from fastserve.serving.catalog import Catalog
from fastserve.serving.read_path import ReadPath
from fastserve.timeutil import MICROS
from tests.support import NOW_US, put

USER = Entity("user", join_keys="user_id", dtype="int64")
PLACE = Entity("place", join_keys=["city", "country"])
DEVICE = Entity("device", dtype="bytes")
KINDS = FeatureView(
    "kinds",
    entities=[USER],
    schema=[
        Field("flag", "bool"),
        Field("small", "int32"),
        Field("big", "int64", default=7),
        Field("single", "float32"),
        Field("double", "float64"),
        Field("moment", "timestamp"),
        Field("text", "string", default="none"),
        Field("blob", "bytes"),
        Field("vector", Array("float32", 3)),
        Field("names", Array("string")),
    ],
    ttl="1h",
)
PLACES = FeatureView("places", entities=[PLACE], schema=[Field("people", "int64"), Field("flag", "bool")])
GLOBAL = FeatureView("global_stats", schema=[Field("total", "int64")])
DEVICES = FeatureView("devices", entities=[DEVICE], schema=[Field("battery", "float32")])
HOME = (
    PLACES[["people"]].with_name("home").with_join_key_map({"city": "home_city", "country": "home_country"})
)
MIXED = FeatureService("mixed", [KINDS[["big", "text"]], HOME, GLOBAL])
OBJECTS = [USER, PLACE, DEVICE, KINDS, PLACES, GLOBAL, DEVICES, MIXED]
FULL_ROW = {
    "user_id": 1,
    "flag": True,
    "small": -5,
    "big": 2**53 + 1,
    "single": 0.1,
    "double": float("nan"),
    "moment": NOW_US,
    "text": "zażółć",
    "blob": b"\x00\xff",
    "vector": [1.0, 2.0, float("inf")],
    "names": ["a", ""],
}


@dataclass
class World:
    """What a serving test works on."""

    registry: Registry
    catalog: Catalog
    store: OnlineStore
    read_path: ReadPath


@asynccontextmanager
async def make_world(folder: Path, name: str) -> AsyncIterator[World]:
    """The world above, in a folder of its own."""
    registry = open_registry(f"sqlite:///{folder}/registry.db", "tests")
    snapshot = registry.apply(OBJECTS).snapshot
    store = open_store(f"memory://{name}")
    await put(store, snapshot.view("kinds"), [FULL_ROW, {"user_id": 2, "big": None, "small": 3}])
    await put(
        store, snapshot.view("kinds"), [{"user_id": 3, "big": 9}], event_us=NOW_US - 3600 * MICROS
    )  # just expired: the ttl is an hour, open at its far end
    await put(store, snapshot.view("places"), [{"city": "a|b", "country": "%", "people": 12, "flag": False}])
    await put(store, snapshot.view("global_stats"), [{"total": 99}])
    await put(store, snapshot.view("devices"), [{"device": b"\x00|", "battery": 0.5}])
    catalog = Catalog(registry)
    yield World(registry, catalog, store, ReadPath(store, lambda: NOW_US))
    await catalog.close()
    await store.close()
