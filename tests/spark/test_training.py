"""A training set made on a cluster is the one made on this machine, to the byte; also when executors are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import Entity, FeatureView, Field, SQLSource
from fastserve.cli.main import main
from fastserve.errors import InvalidDataError
from materializer.datasets.create import DatasetRequest, create
from materializer.datasets.manifest import DATA, DatasetManifest
from materializer.engine.spark import SparkEngine
from materializer.shards import plan
from tests.integration.training.kit import Repo, ts
from tests.spark.shard_tasks import held

ROWS, LABELS = 20_000, 5_000
FEATURES = ("table:v", "table:word", "files:x", "asked:y")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A view in its offline table, one in files with a hot entity, and one that is a query's answer."""
    repo = Repo(tmp_path_factory.mktemp("shop"))
    rng = np.random.default_rng(5)
    words = pa.array(["", "é", None, "a" * 40]).take(pa.array(rng.integers(0, 4, ROWS)))
    rows = {"u": rng.integers(0, 500, ROWS), "ts": stamps(rng, ROWS), "created": stamps(rng, ROWS),
            "v": pa.array(rng.integers(-(2**62), 2**62, ROWS), mask=rng.random(ROWS) < 0.1), "word": words}  # fmt: skip
    schema = [Field("v", "int64"), Field("word", "string")]
    repo.view("table", pa.table(rows), schema, backend="offline")
    hot = np.where(rng.random(ROWS) < 0.7, 7, rng.integers(0, 500, ROWS))
    rows = {"u": hot, "ts": stamps(rng, ROWS), "x": rng.standard_normal(ROWS)}
    repo.view("files", pa.table(rows), [Field("x", "float64", default=-1.0)])
    query = SQLSource("SELECT u, ts, x * 2 AS y FROM files", {"files": "files.parquet"}, "ts", name="asked")
    entity = Entity("asked_entity", ["u"], ["int64"])
    asked = FeatureView("asked", entities=[entity], schema=[Field("y", "float64")], source=query)
    repo.store.apply([*repo.objects, entity, asked])
    return repo


def stamps(rng: np.random.Generator, n: int) -> pa.Array:
    return ts(rng.integers(0, 10**11, n).tolist())


@pytest.fixture(scope="module")
def labels() -> pa.Table:
    rng = np.random.default_rng(6)
    return pa.table({"u": rng.integers(0, 510, LABELS), "event_timestamp": stamps(rng, LABELS)})


@pytest.fixture(scope="module")
def local(shop: Repo, labels: pa.Table) -> DatasetManifest:
    return make(shop, labels, shop.folder / "local")


@pytest.fixture
def finely() -> Iterator[None]:
    """Many tasks, although rows are few; the hot entity's shard is cut by time."""
    with patch.multiple(plan, DEAL_ROWS=4_000, SHARD_ROWS=1_000):
        yield


def make(shop: Repo, labels: pa.Table, output: Path, **options: Any) -> DatasetManifest:
    request = DatasetRequest(name="made", features=FEATURES, cutoff="label_time", **options)
    return create(shop.store.config, shop.store.registry, labels, request, output=output)


def check_same(shop: Repo, made: DatasetManifest, output: Path, local: DatasetManifest) -> None:
    assert (made.id, made.output_sha256) == (local.id, local.output_sha256)
    assert (output / DATA).read_bytes() == (shop.folder / "local" / DATA).read_bytes()
    assert not list((shop.folder / ".fastserve" / "offline").glob(".fastserve-work-*"))


def test_the_bytes_are_those_of_one_machine(
    cluster: Any, shop: Repo, labels: pa.Table, local, finely, tmp_path: Path
) -> None:
    made = make(shop, labels, tmp_path / "made", engine="spark")
    check_same(shop, made, tmp_path / "made", local)
    work = tmp_path / "work"
    made = make(shop, labels, tmp_path / "again", engine="spark", memory="4GiB", work=f"file://{work}")
    check_same(shop, made, tmp_path / "again", local)
    assert not list(work.iterdir())


@pytest.mark.parametrize("name", ["deal", "join_shard"])
def test_an_executor_killed_in_the_middle_changes_nothing(
    name: str, cluster: Any, shop: Repo, labels: pa.Table, local, finely, tmp_path: Path
) -> None:
    class Holding(SparkEngine):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            return super().submit(held, tmp_path, name, fn, *args, **kwargs)

    def kill() -> None:
        while not (tmp_path / f"{name}-executor").exists():
            time.sleep(0.005)
        os.kill(int((tmp_path / f"{name}-executor").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with Holding({}, None, None) as engine:
        made = make(shop, labels, tmp_path / "made", engine=engine)
    killer.join(10)
    assert not killer.is_alive()
    check_same(shop, made, tmp_path / "made", local)


def test_a_row_that_does_not_fit_is_told_as_on_one_machine(cluster: Any, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    rows = pa.table({"u": [1, 2], "ts": ts([1, 1]), "v": [1, 2**40]})
    repo.view("w", rows, [Field("v", "int32")])
    spine = pa.table({"u": [2], "event_timestamp": ts([5])})
    errors = []
    for engine in ("local", "spark"):
        with pytest.raises(InvalidDataError) as caught:
            repo.store.get_historical_features(spine, ["w:v"], engine=engine)
        errors.append((caught.value.message, caught.value.where, caught.value.hint))
    assert errors[0] == errors[1]
    assert not list((tmp_path / "repo/.fastserve/offline").iterdir())


def test_the_command(cluster: Any, shop: Repo, labels: pa.Table, tmp_path: Path) -> None:
    pq.write_table(labels, tmp_path / "labels.parquet")
    args = [
        "training-set",
        "create",
        *FEATURES,
        "--repo",
        str(shop.folder),
        "--spine",
        str(tmp_path / "labels.parquet"),
    ]
    for engine in ("local", "spark"):
        main([*args, "--output", str(tmp_path / f"{engine}.parquet"), "--engine", engine])
    assert (tmp_path / "spark.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
