"""Aggregated views on a cluster: a training set's windows, and the rows of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from fastserve import FeatureService, FeatureStore, Field
from materializer.datasets.create import DatasetRequest, create
from materializer.datasets.manifest import DATA
from materializer.shards import plan
from tests.integration.materializer.test_tiles import check, rows_of, run
from tests.integration.training.kit import Repo, ts
from tests.integration.training.test_windows import declare, labels, random_events


def test_windows_of_a_training_set_are_those_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    """Beside a row view, and under other names for the keys, in many tasks; a hot entity's shard is cut by time."""
    repo = Repo(tmp_path)
    rng = np.random.default_rng(11)
    view = declare(repo, random_events(rng, 1_500), event_id="id", filter="ok IS NOT FALSE")
    rows = pa.table({"u": [1, 2, 1], "ts": ts([1, 1, 5]), "v": [10, 20, 11]})
    plain = repo.view("plain", rows, [Field("v", "int64")])
    other = view.with_name("other").with_join_key_map({"u": "friend"})
    repo.store.apply([FeatureService("all", [plain, view, other])])
    spine = labels(rng, 400)
    spine = spine.append_column("friend", pa.array(rng.integers(0, 9, len(spine))))
    made = []
    for engine in ("local", "spark"):
        request = DatasetRequest(name="made", service="all", full_feature_names=True, engine=engine)
        with patch.multiple(plan, DEAL_ROWS=400, SHARD_ROWS=200):
            made.append(
                create(repo.store.config, repo.store.registry, spine, request, output=tmp_path / engine)
            )
    assert made[0].output_sha256 == made[1].output_sha256
    assert (tmp_path / "local" / DATA).read_bytes() == (tmp_path / "spark" / DATA).read_bytes()


def test_rows_of_a_run_are_those_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    found = []
    for engine in ("local", "spark"):
        folder = tmp_path / engine
        repo = Repo(folder)
        (folder / "fastserve.toml").write_text(
            'project = "tests"\nonline_store = "lmdb://.fastserve/online?sync=off"\n'
        )
        repo.store = FeatureStore(folder)
        declare(repo, random_events(np.random.default_rng(12), 300), event_id="id")
        about = run(repo, 60, now=100, engine=engine)
        assert about.rows_online_written == 7
        found.append(rows_of(repo))
        check(repo, [100, 110])
    assert found[0] == found[1]
