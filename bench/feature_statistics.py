"""What statistics cost a run: the same rows materialized with and without, in turns.

A source of Parquet in date partitions, history and LMDB as targets, everything new. Both leave the same rows; the one
with statistics also says of every feature what numpy says.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import Figure, alternate
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource
from fastserve.config import Config
from fastserve.timeutil import DAY_US
from materializer.run import Request, run

ROWS: Final = scaled(500_000, 5_000)
DATES: Final = scaled(30, 3)
FLOATS: Final = 20
START_US: Final = 1_700_000_000_000_000 // DAY_US * DAY_US
SHAPES: Final = {  # label, and the keys' type
    "floats": (f"int64 keys, {FLOATS} float64", "int64"),
    "mixed": ("text keys; 5 float64, 5 int64, 5 texts, 5 lists of 8 float32", "string"),
}


def main(rounds: int = ROUNDS) -> int:
    """Measure and write bench/results/feature_statistics.json."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder:
        repos = {shape: make(Path(folder, shape), shape) for shape in SHAPES}
        systems = {
            f"{shape} {with_}": partial(timed, repo, with_=with_ == "with")
            for shape, repo in repos.items()
            for with_ in ("with", "without")
        }
        found = alternate(systems, rounds=rounds)
    report(found)
    return 0


def report(found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Table, aims and file."""
    table = Table(f"{ROWS:,} rows of {DATES} dates", {"seconds": "s", "without": "s", "cost": "%"})
    aims = []
    for shape, (label, _) in SHAPES.items():
        with_, without = (
            Figure(tuple(found[f"{shape} {which}"]["seconds"])) for which in ("with", "without")
        )
        cost = Figure(tuple((ratio - 1) * 100 for ratio in with_.over(without).rounds))
        table.add(label, seconds=with_, without=without, cost=cost)
        what = f"statistics at materialization, % of the run ({shape})"
        aims.append(Target(what, cost.median, at_most=15, reach=5))
    notes = ["From Parquet to history and LMDB, all rows new; the registry's part is in it."]
    save("feature_statistics", "Statistics at materialization", [table], targets=aims, notes=notes)


def timed(repo: Path, *, with_: bool) -> Mapping[str, float]:
    """One run into empty stores, and its statistics checked."""
    work = repo.with_name(f"{repo.name}-work")
    shutil.copytree(repo, work)
    started = time.perf_counter()
    summary = run(Config.from_repo(work), Request(incremental=True, statistics=with_))
    seconds = time.perf_counter() - started
    assert summary.status == "ok" and summary.views[0].rows_offline_new == ROWS
    with FeatureStore(work) as store:
        noted = store.statistics("wide")
    assert (noted is not None) == with_
    if noted is not None:
        first = pq.read_table(work / "data", columns=["f0"]).column(0).to_numpy()
        moments = noted.features["f0"].moments
        assert (noted.rows, moments.low, moments.high) == (ROWS, first.min(), first.max())
        assert np.isclose(moments.mean, first.mean()) and np.isclose(moments.std or 0, first.std())
    shutil.rmtree(work)
    return {"seconds": seconds}


def make(repo: Path, shape: str) -> Path:
    """A repo with the view `wide` and its rows."""
    (repo / "data").mkdir(parents=True)
    (repo / "fastserve.toml").write_text('project = "bench"\nonline_store = "lmdb://online?sync=off"\n')
    key = SHAPES[shape][1]
    columns = {name: values(name, ROWS, np.random.default_rng(i)) for i, name in enumerate(names(shape))}
    ids = np.arange(ROWS) % (ROWS // 5)
    keys = pa.array(ids if key == "int64" else [f"user-{i:012}" for i in ids])
    times = pa.array(START_US + np.arange(ROWS) * (DATES * DAY_US // ROWS), pa.timestamp("us", "UTC"))
    table = pa.table({"user": keys, "event_timestamp": times, **columns})
    for i in range(DATES):
        part = table.slice(i * ROWS // DATES, (i + 1) * ROWS // DATES - i * ROWS // DATES)
        pq.write_table(part, repo / "data" / f"{i:03}.parquet")
    schema = [Field(name, DTYPES[name[0]]) for name in columns]
    view = FeatureView("wide", entities=["user"], schema=schema, source=FileSource("data"))
    with FeatureStore(repo) as store:
        store.apply([Entity("user", dtype=key), view])
    return repo


DTYPES: Final = {"f": "float64", "n": "int64", "s": "string", "l": "list<float32>[8]"}


def names(shape: str) -> list[str]:
    """Of the features; the first letter is the type."""
    if shape == "floats":
        return [f"f{i}" for i in range(FLOATS)]
    return [f"{kind}{i}" for kind in DTYPES for i in range(5)]


def values(name: str, n: int, rng: np.random.Generator) -> pa.Array:
    """A column; nulls only where names end in 1."""
    kind = name[0]
    if kind == "l":
        items = pa.array(rng.random(n * 8, np.float32))
        return pa.FixedSizeListArray.from_arrays(items, 8)
    if kind == "s":
        words = pa.array([f"city number {i}" for i in range(1_000)])
        return words.take(pa.array(rng.integers(0, 1_000, n)))
    drawn = rng.integers(0, 1 << 40, n) if kind == "n" else rng.normal(size=n)
    return pa.array(drawn, mask=rng.random(n) < 0.1 if name.endswith("1") else None)


if __name__ == "__main__":
    raise SystemExit(main())
