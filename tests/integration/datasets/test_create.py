"""Making data sets: what is kept, twice the same, nothing half-written, lineage, jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve.errors import InvalidDataError, RequestError
from fastserve.jobs.context import JobContext, JobStopped
from fastserve.jobs.kinds import function_of
from materializer.datasets.content import column_hashes, keep_spine, table_hash, write_parquet
from materializer.datasets.origins import Recorder
from materializer.datasets.stage import PREFIX, staging
from tests.integration.datasets.kit import ROOT, Shop, labels, ts
from tests.oracles.bits import bits


def test_the_manifest_says_what_it_was_made_from(shop: Shop) -> None:
    with shop.store() as store:
        made = store.create_training_dataset(
            labels(), "train", service="ranking", cutoff="2024-03-12T00:00:00Z", author="ana"
        )
        manifest = made.manifest
        answer = store.get_online_features(service="ranking", entity_rows={"user_id": [1]})
        assert manifest.schema_fingerprint == answer.batch.plan.fingerprint
        assert (manifest.registry_id, manifest.registry_revision) == (store.registry.registry_id, 1)
    assert manifest.output_names == ("clicks", "spend", "city", "vector")
    assert (manifest.cutoff, manifest.author, manifest.rows) == ("2024-03-12T00:00:00Z", "ana", 5)
    assert set(manifest.software) >= {"fastserve", "pyarrow", "numpy", "python"}
    views = {v["view"]: v for v in manifest.views}
    assert (
        views["activity"]["origin"]["kind"] == "offline_table" and views["activity"]["origin"]["version"] >= 0
    )
    files = views["profile"]["origin"]["files"]
    data = (shop.path / "data/profile/p.parquet").read_bytes()
    assert [(f["path"], f["size"]) for f in files] == [("data/profile/p.parquet", len(data))]
    import hashlib

    assert files[0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(views["activity"]["definition_hash"]) == 64 and views["activity"]["layout_id"] == 1


def test_it_holds_what_a_plain_training_set_holds(shop: Shop) -> None:
    made = shop.create()
    with shop.store() as store:
        kept = store.get_training_dataset(made)
        plain = store.get_historical_features(labels(), service="ranking").to_arrow()
        for name in plain.column_names:
            assert bits(kept.to_arrow()[name]) == bits(plain[name]), name
        frame = kept.to_df()
        assert frame["clicks"].dtype == pd.Int64Dtype() and frame["clicks"].isna().tolist()[2]
        assert kept.to_polars()["city"].to_list()[0] == "Łódź"
        assert len(kept) == 5 and made in repr(kept) and made in kept._repr_html_()


def test_the_same_again_is_the_same_data_set(shop: Shop) -> None:
    first = shop.create()
    before = (shop.folder(first) / "manifest.json").read_bytes()
    assert shop.create() == first
    assert (shop.folder(first) / "manifest.json").read_bytes() == before
    assert shop.create("other") != first
    with shop.store() as store:
        assert [d.name for d in store.list_training_datasets()] == ["other", "train"]
        assert store.get_training_dataset("train").id == first


@pytest.mark.parametrize("kind", ["pandas", "polars", "chunks", "slices"])
def test_however_the_labels_come_it_is_the_same_data_set(kind: str, shop: Shop) -> None:
    table = labels().drop_columns(["label"]).append_column("y", pa.array([3, 1, 2, 5, 4]))
    forms = {
        "pandas": table.to_pandas(),
        "polars": pl.from_arrow(table),
        "chunks": pa.concat_tables([table.slice(i, 1) for i in range(5)]),
        "slices": pa.concat_tables([table, table]).slice(5, 5),
    }
    with shop.store() as store:
        expected = store.create_training_dataset(table, "t", service="ranking")
        assert store.create_training_dataset(forms[kind], "t", service="ranking").id == expected.id


def test_lineage_is_known_from_views_and_services(shop: Shop) -> None:
    made = shop.create()
    other = shop.create("clicks", service=None, features=["activity:clicks"])
    with shop.store() as store:
        assert {d.dataset_id for d in store.list_training_datasets(view="activity")} == {made, other}
        assert [d.dataset_id for d in store.list_training_datasets(view="profile")] == [made]
        assert [d.dataset_id for d in store.list_training_datasets(service="ranking")] == [made]
        assert store.list_training_datasets(view="nothing") == []
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, expected in (("activity", {made, other}), ("ranking", {made}), ("user", set())):
        command = [sys.executable, "-m", "fastserve.cli.main", "describe", name, "--json"]
        done = subprocess.run(command, cwd=shop.path, env=environ, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)[0].get("training_datasets", [])
        assert {one["id"] if isinstance(one, dict) else one for one in found} == expected
    listed = shop.ok("list")
    assert {d["id"] for d in listed} == {made, other}
    assert shop.ok("show", made)["id"] == made and made in shop.run("show", made).stdout
    assert made in shop.run("list").stdout


def test_a_source_that_changes_meanwhile_is_an_error(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    origins = Recorder.origins

    def late(self: Recorder) -> object:
        path = shop.path / "data/profile/p.parquet"
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, 1))
        return origins(self)

    monkeypatch.setattr(Recorder, "origins", late)
    with pytest.raises(InvalidDataError, match="changed while the data set was made"):
        shop.create()
    assert not list((shop.path / ".fastserve/training").glob("*"))


# ---- nothing half-written --------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["", "spine.parquet", "data.parquet", "manifest.json"])
def test_kill_9_leaves_nothing_half_written(seen: str, shop: Shop) -> None:
    parent = shop.path / "out"
    parent.mkdir()
    command = [sys.executable, "-m", "fastserve.cli.main", "training-set", "create", "--name", "t",
               "--service", "ranking", "--spine", "labels.parquet", "--output", "out/set"]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=shop.path, env=environ, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if any((folder / seen).exists() for folder in parent.glob(f"{PREFIX}*")):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    if (parent / "set").exists():  # it was faster
        assert shop.verify(parent / "set").outcome in ("equal", "different")
    made = shop.ok("create", *command[5:])
    assert [path.name for path in parent.iterdir()] == ["set"], "what was left behind is gone"
    assert shop.verify(made["id"]).outcome == "equal"


def test_a_living_process_keeps_its_staging_directory(tmp_path: Path) -> None:
    with staging(tmp_path) as first, staging(tmp_path) as second:
        assert first.is_dir() and second.is_dir() and first != second
    assert not list(tmp_path.iterdir())


# ---- bytes depend on values only -------------------------------------------------------------------------

MANY = pa.table(
    {
        "f": pa.array([0.0, -0.0, float("nan"), None]),
        "s": ["a", None, "", "ż"],
        "l": pa.array([[1], None, [], [None]], pa.list_(pa.int64())),
        "v": pa.array([[1.0, 2.0], None, [3.0, None], [0.0, -0.0]], pa.list_(pa.float32(), 2)),
        "b": pa.array([b"\x00", None, b"", b"x"]),
        "t": pa.array([1, None, -1, 0], pa.timestamp("us", "UTC")),
        "k": pa.array([True, None, False, True]),
        "st": pa.array([{"x": 1}, None, {"x": None}, {"x": 2}]),
    }
)


def test_hashes_and_files_do_not_see_chunks_or_what_is_under_a_null(tmp_path: Path) -> None:
    hidden = pa.FixedSizeListArray.from_arrays(
        pa.array([1.0, 2.0, 9.0, 9.0, 3.0, None, 0.0, -0.0], pa.float32()),
        2,
        mask=pa.array([False, True, False, False]),
    )
    other = MANY.set_column(3, "v", hidden)
    other = pa.concat_tables([other.slice(i, 1) for i in range(4)])
    assert table_hash(other) == table_hash(MANY) and column_hashes(other) == column_hashes(MANY)
    for name, table in (("a", MANY), ("b", other)):
        write_parquet(table, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", MANY.column_names)
def test_hashes_see_every_value(name: str) -> None:
    whole = column_hashes(MANY)[name]
    for i in range(4):
        rest = MANY.take([j for j in range(4) if j != i] + [i])
        if i < 3:
            assert column_hashes(rest)[name] != whole, i
    distinct = len({repr(value) for value in MANY[name].to_pylist()})
    assert len({column_hashes(MANY.slice(i, 1))[name] for i in range(4)}) == distinct


def test_labels_are_kept_bit_for_bit(tmp_path: Path) -> None:
    kept = keep_spine(MANY, tmp_path / "s")
    for name in MANY.column_names:
        assert bits(kept[name]) == bits(MANY[name]), name
    odd = pa.table(
        {"d": pa.array(["x", None, "x"]).dictionary_encode(), "t": pa.array([1, None, 2], pa.timestamp("s"))}
    )
    kept = keep_spine(odd, tmp_path / "o")
    assert kept["d"].to_pylist() == ["x", None, "x"] and kept["t"].to_pylist() == odd["t"].to_pylist()


def test_many_rows_are_many_parts(shop: Shop) -> None:
    n = 300_000
    spine = pa.table(
        {"user_id": np.arange(n) % 4, "event_timestamp": ts([30]).take(pa.array(np.zeros(n, int)))}
    )
    with shop.store() as store:
        made = store.create_training_dataset(spine, "many", service="ranking")
        assert pq.ParquetFile(made.folder / "data.parquet").num_row_groups == 3
        assert store.verify_training_dataset(made.id).ok


def test_no_labels_at_all(shop: Shop) -> None:
    with shop.store() as store:
        made = store.create_training_dataset(labels().slice(0, 0), "none", service="ranking")
        assert len(made) == 0 and store.verify_training_dataset(made.id).ok


# ---- as a job --------------------------------------------------------------------------------------------


def test_as_a_job(shop: Shop) -> None:
    run = function_of("training_dataset")
    with shop.store() as store:
        context = JobContext(store.config, 1)
        args = {"name": "job", "service": "ranking", "spine": "labels.parquet", "cutoff": None}
        result = run(context, args)
        assert run(context, args) == result, "again, it makes nothing twice"
        assert store.verify_training_dataset(result["id"]).ok and context.progress["rows"] == 5
        for wrong, says in (
            ({"nam": 1}, "unknown member"),
            ({"name": ""}, "missing"),
            ({"spine": 3}, "missing"),
        ):
            with pytest.raises(RequestError, match=says):
                run(context, {**args, **wrong})
        context.stop()
        with pytest.raises(JobStopped):
            run(context, args)
