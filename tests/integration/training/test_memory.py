"""A budget of memory holds: the peak of a process of its own, which joins more than the budget could hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource
from tests.integration.training.kit import T0
from tests.servers import ROOT

FILES, ROWS, FEATURES, LABELS = 8, 250_000, 24, 800_000
MIB = 1 << 20
ASK = """
import hashlib, json, sys, tempfile
from pathlib import Path
import pyarrow as pa, pyarrow.compute, pyarrow.parquet as pq
from fastserve import FeatureStore
from materializer.budget import resident
from bench.peak import resident as held
from tests.integration.training.measured import Measured
more, by_tasks = json.loads(sys.argv[1])
with FeatureStore(".") as store:
    labels = pq.read_table("labels.parquet")
    store.get_historical_features(labels.slice(0, 9), ["v:f0", "w:f1"]).to_arrow()  # imports count as held
    features = [f"v:f{i}" for i in range(24)] + ["w:f1"]
    options = {} if more is None else {"memory": resident() + more}
    peaks = {}
    if by_tasks:
        with tempfile.TemporaryDirectory() as folder, Measured(Path(folder)) as engine:
            made = store.get_historical_features(
                labels, features, full_feature_names=True, engine=engine, **options
            )
            peaks = engine.peaks()
    else:
        made = store.get_historical_features(labels, features, full_feature_names=True, **options)
    digest = hashlib.sha256()
    for batch in made.batches() if more is not None else made.to_arrow().to_batches(1 << 17):
        assert batch.num_rows <= 1 << 17
        for column in batch.columns:
            numbers = column.cast("float64" if pa.types.is_floating(column.type) else "int64")
            digest.update(numbers.fill_null(-1).to_numpy(zero_copy_only=False).tobytes())
    peak = held("VmHWM")
    spooled = getattr(made.features, "spooled_bytes", 0)
    print(json.dumps({"peak": peak, "budget": options.get("memory"), "spooled": spooled,
                      "digest": digest.hexdigest(), "rows": len(made), "peaks": peaks}))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo with 2 million rows x 24 float64, about 400 MB once decoded, and labels."""
    folder = tmp_path_factory.mktemp("shop")
    draw = np.random.default_rng(5)
    (folder / "fastserve.toml").write_text('project = "tests"\nonline_store = "memory://training"\n')
    (folder / "rows").mkdir()
    for i in range(FILES):
        rows = {f"f{k}": draw.integers(0, 999, ROWS).astype(np.float64) for k in range(FEATURES)}
        rows |= {"u": draw.integers(0, 50_000, ROWS), "ts": stamps(draw, i, i + 1, ROWS)}
        pq.write_table(pa.table(rows), folder / "rows" / f"{i}.parquet", row_group_size=62_500)
    labels = {"u": draw.integers(0, 51_000, LABELS), "event_timestamp": stamps(draw, 0, FILES, LABELS)}
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    source = FileSource("rows", "ts", name="rows")
    schema = [Field(f"f{k}", "float64") for k in range(FEATURES)]
    entity = Entity("u", ["u"], ["int64"])
    with FeatureStore(folder) as store:
        views = [FeatureView(name, entities=[entity], schema=schema, source=source) for name in ("v", "w")]
        store.apply([entity, *views])
    return folder


def stamps(draw: np.random.Generator, start: int, stop: int, n: int) -> pa.Array:
    return pa.array(draw.integers(start * 10**9, stop * 10**9, n) + T0).cast(pa.timestamp("us"))


def ask(folder: Path, more: int | None, *, by_tasks: bool = False) -> dict:
    words, env = (
        [sys.executable, "-c", ASK, json.dumps([more, by_tasks])],
        {**os.environ, "PYTHONPATH": str(ROOT)},
    )
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_peak_is_within_the_budget_and_the_answer_the_same(shop):
    free = ask(shop, None)
    held = ask(shop, 300 * MIB)
    assert held["peak"] <= held["budget"], held
    assert held["peak"] < free["peak"], (held, free)
    assert held["digest"] == free["digest"] and held["rows"] == LABELS
    assert held["spooled"] > 0
    tasks = ask(shop, 300 * MIB, by_tasks=True)
    assert tasks["peaks"].keys() == {"deal", "join_shard"}
    assert max(tasks["peak"], *tasks["peaks"].values()) <= tasks["budget"], tasks
    assert tasks["digest"] == free["digest"]
