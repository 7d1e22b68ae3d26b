"""A repo with pushed views on a real store, and what the tests of pushes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastserve import FeatureStore
from fastserve.codec.keys import KeyEncoder
from fastserve.offline.delta import OfflineTable
from fastserve.online import open_store
from fastserve.registry import RegisteredView
from fastserve.serving.push import Pusher, PushLimits
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.support import make_repo

FEATURES = """
from fastserve import Array, Entity, FeatureService, FeatureView, Field, FileSource, PushSource
user = Entity("user", join_keys="user_id", dtype="int64")
place = Entity("place", join_keys=["city", "country"])
clicks = PushSource("clicks")
lonely = PushSource("lonely")
stats = FeatureView("stats", entities=[user], source=clicks, ttl="30d",
                    schema=[Field("n", "int64"), Field("x", "float64")])
kinds = FeatureView("kinds", entities=[place], source=PushSource("places"), schema=[
    Field("flag", "bool"), Field("small", "int32"), Field("single", "float32"), Field("moment", "timestamp"),
    Field("text", "string"), Field("blob", "bytes"), Field("vector", Array("float32", 2)),
    Field("names", Array("string")), Field("blobs", Array("bytes"))])
totals = FeatureView("totals", entities=[user], source=clicks, schema=[Field("n", "int64")])
filed = FeatureView("filed", entities=[user], schema=[Field("n", "int64")], ttl="30d",
                    source=PushSource("filed", FileSource("filed.csv")))
everything = FeatureService("everything", features=[stats, totals])
"""


def make(folder: Path, url: str = "") -> Path:
    """The repo, applied; on LMDB unless another store is named."""
    (folder / "repo").mkdir(parents=True)
    (folder / "repo" / "filed.csv").write_text("user_id,n,event_timestamp\n900,1,2024-01-01T00:00:00Z\n")
    repo = make_repo(folder / "repo", FEATURES, **({"online_store": url} if url else {}))
    with FeatureStore(repo) as store:
        store.apply()
    return repo


def ago(seconds: float) -> str:
    """A moment before now, as text."""
    return format_timestamp(now_us() - int(seconds * MICROS))


def rows(ids: Iterable[int], n: int = 0, *, at: str | list[str] = "", created: str = "") -> dict[str, Any]:
    """Rows of `stats` and `totals`: n, and n / 2."""
    ids = list(ids)
    df: dict[str, Any] = {"user_id": ids, "n": [n] * len(ids), "x": [n / 2] * len(ids)}
    df["event_timestamp"] = at if isinstance(at, list) else [at or ago(1)] * len(ids)
    return {**df, "created_timestamp": [created] * len(ids)} if created else df


def table_of(store: FeatureStore, view: str) -> OfflineTable:
    """A view's history."""
    return OfflineTable(store.config.offline_store, store.config.project, store.snapshot.view(view))


def history(store: FeatureStore, view: str = "stats") -> list[dict[str, Any]]:
    """All of a view's history, in no order."""
    return [row for batch in table_of(store, view).read() for row in batch.to_pylist()]


def online(store: FeatureStore, ids: list[int], view: str = "stats") -> list[Any]:
    """What is served of n."""
    return store.get_online_features([f"{view}:n"], {"user_id": ids}).to_dict()["n"]


async def online_bytes(url: str, rv: RegisteredView, ids: list[int]) -> list[bytes | None]:
    """The rows as they are stored."""
    keys = KeyEncoder(rv.view_id, tuple(rv.join_keys.values())).encode([ids], len(ids))
    held = open_store(url)
    try:
        found = held.get_many(keys)
        return found if isinstance(found, list) else await found
    finally:
        await held.close()


@asynccontextmanager
async def pushing(store: FeatureStore, limits: PushLimits | None = None) -> AsyncIterator[Pusher]:
    """A Pusher on the repo's stores."""
    held = open_store(store.config.online_store)
    pusher = Pusher(
        store.registry,
        store.snapshot,
        offline_root=store.config.offline_store,
        online=held,
        now=now_us,
        limits=limits,
    )
    try:
        yield pusher
    finally:
        await pusher.close()
        await held.close()
