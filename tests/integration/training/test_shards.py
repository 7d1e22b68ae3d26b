"""Training sets joined by tasks: in processes of their own, and what is told on the way. Their answers: kit.py."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from fastserve import Entity, FeatureView, Field, SQLSource
from fastserve.errors import InvalidDataError, OfflineStoreError, RequestError
from materializer.engine import Engine
from materializer.engine.processes import Processes
from materializer.shards import plan
from materializer.shards.join import Shards
from materializer.shards.shard import join_shard
from materializer.training import build_training_set, to_spine
from tests.carried import Carried
from tests.integration.training.kit import BACKENDS, Repo, assert_same, ts, values, write_source

V = [Field("v", "int64")]
ROWS = pa.table({"u": [1, 2, 1], "ts": ts([1, 1, 5]), "v": [10, 20, 11]})
SPINE = pa.table({"u": [1, 2, 3], "event_timestamp": ts([4, 9, 9])})


@pytest.fixture
def repo(tmp_path):
    return Repo(tmp_path)


def test_other_processes_read_every_kind_of_source(repo):
    rng = np.random.default_rng(5)
    n, refs = 300, []
    for backend in (*BACKENDS, "asked"):
        rows = {"k": [f"key {i}" for i in rng.integers(0, 30, n)], "ts": ts(rng.integers(0, 99, n).tolist())}
        rows |= {
            "created": ts(rng.integers(0, 99, n).tolist()),
            f"v_{backend}": rng.integers(-(2**62), 2**62, n),
        }
        schema, keys = [Field(f"v_{backend}", "int64")], {"k": "string"}
        if backend == "asked":
            write_source(repo.folder, "input", pa.table(rows), "parquet")
            query = SQLSource("SELECT * FROM rows", {"rows": "input.parquet"}, "ts", "created", name="query")
            entity = Entity("asked_entity", ["k"], ["string"])
            view = FeatureView("asked", entities=[entity], schema=schema, source=query)
            repo.store.apply([*repo.objects, entity, view])
        else:
            repo.view(f"of_{backend}", pa.table(rows), schema, backend=backend, keys=keys)
        refs.append(f"{'' if backend == 'asked' else 'of_'}{backend}:v_{backend}")
    spine = pa.table(
        {"k": [f"key {i % 33}" for i in range(200)], "event_timestamp": ts([i % 110 for i in range(200)])}
    )
    with patch.multiple(plan, DEAL_ROWS=100, SHARD_ROWS=50), Processes(2) as engine:
        made = repo.store.get_historical_features(spine, refs, cutoff="label_time", engine=engine)
    local = repo.store.get_historical_features(spine, refs, cutoff="label_time")
    assert_same(made.to_arrow(), local.to_arrow())
    assert all(0 < column.null_count < 200 for column in local.features.values())
    assert not list((repo.folder / ".fastserve/offline").glob(".*"))


def watched(repo: Repo, engine: Engine, watch: Any = lambda *_: None) -> Any:
    parts = repo.store.snapshot.resolve((repo.objects[-1]["v"],))
    shards = Shards(engine, str(repo.folder / "work"))
    return build_training_set(
        to_spine(SPINE),
        parts,
        config=repo.store.config,
        registry=repo.store.registry,
        watch=watch,
        shards=shards,
    )


def test_who_watches_is_told_of_every_row_twice_and_that_all_is_done(repo):
    repo.view("w", ROWS, V)
    told: list[Any] = []
    with Carried() as engine:
        watched(repo, engine, lambda *of: told.append(of))
    assert told == sorted(told) and told[-1] == ("w", 6, 6)
    assert {(name, total) for name, _, total in told} == {("w", 6)}
    assert engine.tasks == 2


class Meddled(Carried):
    """Before the first task something happens."""

    def __init__(self, meddle: Callable[[], Any], before: str) -> None:
        super().__init__()
        self._meddle, self._before = meddle, before

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn.__name__ == self._before:
            self._meddle()
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_a_file_that_is_written_to_meanwhile_is_an_error(repo, format):
    repo.view("w", ROWS, V, backend=format)
    write = partial(write_source, repo.folder, "w", ROWS.slice(1), format)
    with (
        Meddled(write, "deal") as engine,
        pytest.raises(InvalidDataError, match=r"changed while it was read|cannot be read"),
    ):
        watched(repo, engine)
    assert not list((repo.folder / "work").iterdir())


def test_a_work_directory_that_goes_away_is_an_error_that_says_so(repo):
    repo.view("w", ROWS, V)

    def lose() -> None:
        for path in (repo.folder / "work").glob("*/rows-*"):
            path.unlink()

    with Meddled(lose, join_shard.__name__) as engine, pytest.raises(OfflineStoreError, match="--work"):
        watched(repo, engine)


def test_a_row_that_no_label_has_is_looked_at_too(repo):
    rows = ROWS.set_column(2, "v", pa.array(["1", "2", "x"]))
    repo.view("w", rows, V, backend="csv")
    spine = SPINE.slice(1, 1)
    assert len(repo.store.get_historical_features(spine, ["w:v"])) == 1
    with Carried() as engine, pytest.raises(InvalidDataError, match="column 'v', row 2"):
        repo.store.get_historical_features(
            spine.set_column(1, "event_timestamp", ts([9])), ["w:v"], engine=engine
        )


def test_what_only_tasks_need_is_refused_without_any(repo):
    repo.view("w", ROWS, V)
    for options, where in (({"work": "/tmp/x"}, "--work"), ({"master": "local"}, "--master")):
        with pytest.raises(RequestError) as caught:
            repo.store.get_historical_features(SPINE, ["w:v"], **options)
        assert caught.value.where == where
    with pytest.raises(RequestError, match="no engine 'dask'"):
        repo.store.create_training_dataset(SPINE, "d", ["w:v"], engine="dask")


def test_rows_that_are_joined_to_two_columns_are_dealt_out_once(repo):
    repo.view("w", ROWS, V)
    parts = [repo.objects[-1].with_name(name).with_join_key_map({"u": name}) for name in ("a", "b")]
    spine = pa.table({"a": [1, 2, 3], "b": [2, 3, 1], "event_timestamp": ts([4, 9, 9])})
    with Carried() as engine:
        made = repo.store.get_historical_features(spine, parts, full_feature_names=True, engine=engine)
    assert (values(made, "a__v"), values(made, "b__v")) == ([10, 20, None], [20, None, 11])
    assert engine.tasks == 1 + 2
