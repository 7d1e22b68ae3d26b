"""Training sets beside Feast's file store: `get_historical_features` of both, of the same labels and Parquet file.

Every run is a process of its own (feast_training_run.py), which has joined a few labels before: imports do not count.
Every label has a row before it, and no two labels of an entity have one time: where that is not so, Feast's file store
leaves labels out. All answers are compared with pandas' merge_asof first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench import feast_peer
from bench.measure import Figure, alternate
from bench.pit import stamps
from bench.record import Table, Target, save
from bench.scale import ROUNDS, SMOKE, scaled
from bench.world import ROOT
from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource

ROWS: Final = scaled(1_000_000, 5_000)
LABELS: Final = scaled(1_000_000, 5_000)
AN_ENTITY: Final = 10  # rows
FEATURES: Final = 10
NAMES: Final = tuple(f"f{i}" for i in range(FEATURES))
STEP_US: Final = 60_000_000
OURS: Final = {  # system -> label
    "frame": "fastserve, DataFrame in and out",
    "arrow": "fastserve, Arrow in and out",
}
GIB: Final = 1 << 30

_DEFINITIONS: Final = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
source = FileSource(path="rows.parquet", timestamp_field="event_timestamp")
v = FeatureView(name="v", entities=[key], ttl=timedelta(0), source=source,
                schema=[Field(name=f"f{i}", dtype=Float64) for i in range(10)])
"""
_HISTORICAL: Final = """
import json, re, time
import pandas as pd
from feast import FeatureStore
store, features = FeatureStore("."), [f"v:f{i}" for i in range(10)]
store.get_historical_features(entity_df=pd.read_parquet("labels.parquet")[:9], features=features).to_df()  # imports
cpu, begun = time.process_time(), time.perf_counter()
labels = pd.read_parquet("labels.parquet")
made = store.get_historical_features(entity_df=labels, features=features).to_df()
took, cpu = time.perf_counter() - begun, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
made.to_parquet("out.parquet")
print(json.dumps({"s": took, "cpu": cpu, "peak": peak}))
"""


def main(rounds: int = ROUNDS) -> int:
    """Measure and write bench/results/feast_training.json; without Feast only look at our own answers."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as name:
        folder = Path(name)
        write_inputs(folder)
        answer = expected(folder)
        systems = {system: partial(fastserve, system, folder, answer) for system in OURS}
        if feast_peer.is_there():
            make_feast(folder)
            systems["feast"] = partial(feast, folder, answer)
        elif not SMOKE:
            return 0
        found = alternate(systems, rounds=rounds)
    if "feast" in found:
        report(found)
    return 0


def report(found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Table, aim and file."""
    rates = {
        system: Figure(tuple(LABELS / s for s in of["s"]), smaller_is_better=False)
        for system, of in found.items()
    }
    columns = {"labels_per_s": "", "over_Feast": "x", "time": "s", "cpu": "s", "peak": "GiB"}
    table = Table(f"{LABELS:,} labels, {ROWS:,} rows of {FEATURES} float64", columns)
    for system, of in found.items():
        over = {} if system == "feast" else {"over_Feast": rates[system].over(rates["feast"])}
        table.add(
            OURS.get(system, "Feast, file store"),
            labels_per_s=rates[system],
            **over,
            time=Figure(tuple(of["s"])),
            cpu=Figure(tuple(of["cpu"])),
            peak=Figure(tuple(peak / GIB for peak in of["peak"])),
        )
    aim = Target(
        "training set over Feast's file store, DataFrame in and out, labels/s",
        rates["frame"].over(rates["feast"]).median,
        at_least=30,
        reach=100,
    )
    notes = [
        f"{ROWS // AN_ENTITY:,} entities; the time has the reading of labels and rows in it, not the imports.",
        f"Feast joins every label with every row of its entity, here {AN_ENTITY} of them, and then picks one.",
    ]
    save(
        "feast_training",
        "Training sets beside Feast's file store",
        [table],
        targets=[aim],
        notes=notes,
        versions=feast_peer.versions(),
    )


# ---- the systems -----------------------------------------------------------------------------------


def fastserve(system: str, folder: Path, answer: pa.Table) -> Mapping[str, float]:
    """One training set of ours, compared."""
    command = [sys.executable, "-m", "bench.feast_training_run", system, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr}")
    compare(system, folder, answer)
    return _said(done.stdout)


def feast(folder: Path, answer: pa.Table) -> Mapping[str, float]:
    """One of Feast's, compared."""
    said = _said(feast_peer.python(_HISTORICAL, folder))
    compare("feast", folder, answer)
    return said


def _said(text: str) -> Mapping[str, float]:
    said: dict[str, float] = json.loads(text.splitlines()[-1])
    return said


def compare(system: str, folder: Path, answer: pa.Table) -> None:
    """Raise SystemExit unless out.parquet has the answer's rows, in any order."""
    made = pq.read_table(folder / "out.parquet", columns=answer.column_names).sort_by("id")
    (folder / "out.parquet").unlink()
    same = len(made) == len(answer) and all(
        np.array_equal(made[name].to_numpy(), answer[name].to_numpy()) for name in answer.column_names
    )
    if not same:
        raise SystemExit(f"{system}: {len(made)} rows, and not those of pandas' merge_asof")


# ---- what they read --------------------------------------------------------------------------------


def write_inputs(folder: Path) -> None:
    """A repo with labels.parquet and rows.parquet, both in random order, and its view `v`."""
    draw = np.random.default_rng(11)
    entities = ROWS // AN_ENTITY
    # The first row of each entity comes before all labels.
    keys = np.concatenate((np.arange(entities), draw.integers(0, entities, ROWS - entities)))
    order = draw.permutation(ROWS)
    rows = {"key": keys[order], "event_timestamp": stamps(order * STEP_US)}
    pq.write_table(pa.table(rows | {name: draw.random(ROWS) for name in NAMES}), folder / "rows.parquet")
    # Between two rows, each time once.
    times = (entities + draw.integers(0, ROWS - entities, LABELS)) * STEP_US
    times += draw.permutation(LABELS) * (STEP_US // 2 // LABELS) + 1
    labels = {
        "id": np.arange(LABELS),
        "key": draw.integers(0, entities, LABELS),
        "event_timestamp": stamps(times),
    }
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    (folder / "fastserve.toml").write_text('project = "bench"\nonline_store = "memory://bench"\n')
    key = Entity("key", dtype="int64")
    schema = [Field(name, "float64") for name in NAMES]
    source = FileSource("rows.parquet", "event_timestamp", name="rows")
    with FeatureStore(folder) as store:
        store.apply([key, FeatureView("v", entities=[key], schema=schema, source=source)])


def make_feast(folder: Path) -> None:
    """Feast's repo, in the same place."""
    feast_peer.make_repo(folder, "{type: sqlite, path: online.db}", _DEFINITIONS)


def expected(folder: Path) -> pa.Table:
    """By pandas: label ids, ascending, and their features."""
    labels, rows = (
        pd.read_parquet(folder / f"{name}.parquet").sort_values("event_timestamp")
        for name in ("labels", "rows")
    )
    made = pd.merge_asof(labels, rows, on="event_timestamp", by="key").sort_values("id")
    assert not made["f0"].isna().any()
    return pa.Table.from_pandas(made[["id", *NAMES]], preserve_index=False)


if __name__ == "__main__":
    sys.exit(main())
