"""A repo with two views, one materialized offline and one read from its files, and labels for both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastserve import FeatureStore
from fastserve.timeutil import parse_timestamp
from materializer.datasets import Report

ROOT = Path(__file__).resolve().parents[3]
UTC_US = pa.timestamp("us", "UTC")
T0 = parse_timestamp("2024-03-10T00:00:00Z")
HOUR = 3_600_000_000

FEATURES = """
from fastserve import *

user = Entity("user", join_keys="user_id", dtype="int64")
activity = FeatureView(
    "activity",
    entities=[user],
    schema=[Field("clicks", "int64", default=0), Field("spend", "float64")],
    source=FileSource("data/activity", "ts", "created", name="clickstream"),
    ttl="10d",
)
profile = FeatureView(
    "profile",
    entities=[user],
    schema=[Field("city", "string"), Field("vector", Array("float32", 2))],
    source=FileSource("data/profile", "ts", name="crm"),
)
ranking = FeatureService("ranking", ["activity:clicks", "activity:spend", "profile:city", "profile:vector"])
"""


def ts(hours: list[int]) -> pa.Array:
    return pa.array([T0 + h * HOUR for h in hours], pa.int64()).cast(UTC_US)


def activity(users: list[int], hours: list[int], clicks: list[int | None]) -> pa.Table:
    spend = [None if c is None else c / 7 for c in clicks]
    return pa.table(
        {
            "user_id": users,
            "ts": ts(hours),
            "created": ts(hours),
            "clicks": pa.array(clicks, pa.int64()),
            "spend": pa.array(spend, pa.float64()),
        }
    )


def labels() -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([1, 2, 3, 1, 2]),
            "event_timestamp": ts([30, 30, 30, 50, 2]),
            "label": pa.array([0.0, -0.0, float("nan"), None, 1.0]),
        }
    )


class Shop:
    """The repo."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path) -> Shop:
        for name in ("activity", "profile"):
            (path / "data" / name).mkdir(parents=True)
        (path / "fastserve.toml").write_text('project = "shop"\n')
        (path / "features.py").write_text(FEATURES)
        shop = cls(path)
        shop.add("activity/a", activity([1, 2, 1], [1, 2, 26], [10, 20, 11]))
        shop.add("activity/b", activity([3, 2], [5, 28], [None, 21]))
        vectors = pa.array([[0.5, 1.5], [2.5, 3.5]], pa.list_(pa.float32(), 2))
        shop.add("profile/p", pa.table({"user_id": [1, 2], "ts": ts([0, 0]), "city": ["Łódź", "Köln"],
                                        "vector": vectors}))  # fmt: skip
        with shop.store() as store:
            store.apply()
            assert store.materialize(views=["profile"], target="online").status == "ok"
        shop.ingest()
        pq.write_table(labels(), path / "labels.parquet")
        return shop

    def store(self) -> FeatureStore:
        return FeatureStore(self.path)

    def add(self, name: str, table: pa.Table) -> Path:
        path = self.path / "data" / f"{name}.parquet"
        pq.write_table(table, path)
        return path

    def ingest(self) -> None:
        """Materialize `activity` offline; `profile` stays in its files."""
        with self.store() as store:
            done = store.materialize(T0 - HOUR, T0 + 10_000 * HOUR, ["activity"], target="offline")
            assert done.status == "ok"

    def define(self, old: str, new: str) -> None:
        """Change the definitions and apply them."""
        text = (self.path / "features.py").read_text()
        assert old in text
        (self.path / "features.py").write_text(text.replace(old, new))
        with self.store() as store:
            store.apply()

    def create(self, name: str = "train", **options: Any) -> str:
        """A data set of the service; its id."""
        options = {"service": "ranking", **options}
        with self.store() as store:
            return store.create_training_dataset(labels(), name, **options).id

    def verify(self, dataset: str | Path) -> Report:
        with self.store() as store:
            return store.verify_training_dataset(dataset)

    def folder(self, dataset: str) -> Path:
        with self.store() as store:
            return store.get_training_dataset(dataset).folder

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`fastserve training-set ...` in a process of its own."""
        command = [sys.executable, "-m", "fastserve.cli.main", "training-set", *args]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=self.path, env=environ, capture_output=True, text=True, check=False
        )

    def ok(self, *args: str) -> Any:
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.findings]
