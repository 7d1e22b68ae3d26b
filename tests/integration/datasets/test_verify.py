"""A data set is re-made to the byte whatever happens later; and when it cannot be, what is in the way is named."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.integration.datasets.kit import Shop, activity, kinds, labels, ts


@pytest.fixture
def made(shop: Shop) -> str:
    return shop.create()


def flip(path: Path, at: int) -> None:
    """Change one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def table(shop: Shop) -> DeltaTable:
    return DeltaTable(str(shop.path / ".fastserve/offline/shop/activity/v1"))


# ---- it holds --------------------------------------------------------------------------------------------


def test_it_is_equal_at_once_and_in_another_process(shop: Shop, made: str) -> None:
    report = shop.verify(made)
    assert report.outcome == "equal" and not report.findings and report.rows == 5
    assert shop.ok("verify", made)["outcome"] == "equal"


def test_two_processes_make_the_same_bytes(shop: Shop) -> None:
    for output in ("one", "two"):
        shop.ok(
            "create", "--spine", "labels.parquet", "--name", "t", "--service", "ranking", "--output", output
        )
    files = [
        [(shop.path / o / f).read_bytes() for f in ("data.parquet", "spine.parquet")] for o in ("one", "two")
    ]
    assert files[0] == files[1]
    ids = [json.loads((shop.path / o / "manifest.json").read_text())["id"] for o in ("one", "two")]
    assert ids[0] == ids[1]


def test_it_holds_after_later_ingests_late_rows_and_new_files(shop: Shop, made: str) -> None:
    shop.add("activity/c", activity([1, 2], [29, 29], [99, 98]))  # late: before the labels' times
    shop.add("activity/d", activity([1], [40], [97]))
    shop.ingest()
    shop.add("profile/q", shop_profile())  # read from files: a file added later
    assert shop.verify(made).outcome == "equal"
    with shop.store() as store:
        now = store.get_training_dataset(shop.create("later")).to_arrow()
        then = store.get_training_dataset(made).to_arrow()
    assert now["clicks"].to_pylist() == [99, 98, None, 97, 20]
    assert then["clicks"].to_pylist()[0] == 11 and then["city"].to_pylist()[0] == "Łódź"
    assert now["city"].to_pylist()[0] == "Paris"


@pytest.mark.parametrize("format", ["files", "delta"])
def test_pushed_rows_beside_a_source_are_part_of_it(format: str, shop: Shop) -> None:
    if format == "delta":
        write_deltalake(str(shop.path / "data/lake"), pq.read_table(shop.path / "data/profile/p.parquet"))
        shop.define('FileSource("data/profile", "ts", name="crm")',
                    'FileSource("data/lake", "ts", name="crm", format="delta")')  # fmt: skip
    with shop.store() as store:
        push = shop_profile().rename_columns(["user_id", "event_timestamp", "city", "vector"])
        store.write_to_offline_store("profile", push)
        made = store.create_training_dataset(labels(), "pushed", service="ranking")
        plain = store.get_historical_features(labels(), service="ranking").to_arrow()
        assert made.to_arrow()["city"].to_pylist() == plain["city"].to_pylist()
        assert made.to_arrow()["city"].to_pylist()[0] == "Paris"
        origin = next(v["origin"] for v in made.manifest.views if v["view"] == "profile")
        version = origin["pushed_version"]
        assert shop.verify(made.id).ok
        later = push.set_column(2, "city", pa.array(["Roma"])).set_column(1, "event_timestamp", ts([4]))
        store.write_to_offline_store("profile", later)
        if format == "delta":
            write_deltalake(str(shop.path / "data/lake"), shop_profile(), mode="append")
    assert shop.verify(made.id).ok, "later pushes and commits do not matter"
    lake = DeltaTable(str(shop.path / ".fastserve/offline/shop/profile/v1"))
    lake.optimize.compact()
    lake.vacuum(0, dry_run=False, enforce_retention_duration=False)
    report = shop.verify(made.id)
    assert (
        report.outcome == "cannot_be_remade" and f"version {version} vacuumed" in report.findings[0].message
    )


def shop_profile() -> pa.Table:
    vectors = pa.array([[9.0, 9.0]], pa.list_(pa.float32(), 2))
    return pa.table({"user_id": [1], "ts": ts([3]), "city": ["Paris"], "vector": vectors})


def test_it_holds_after_compaction_until_vacuum(shop: Shop) -> None:
    shop.add("activity/c", activity([7], [29], [99]))
    shop.ingest()  # a second file of that date
    made = shop.create()
    version = table(shop).version()
    assert table(shop).optimize.compact()["numFilesRemoved"] > 1
    assert table(shop).version() > version
    assert shop.verify(made).outcome == "equal"

    table(shop).vacuum(0, dry_run=False, enforce_retention_duration=False)
    report = shop.verify(made)
    assert report.outcome == "cannot_be_remade" and kinds(report) == ["history"]
    assert f"version {version} vacuumed" in report.findings[0].message
    assert "activity@v1" in report.findings[0].where
    assert shop.run("verify", made).returncode == 1


def test_it_holds_after_definitions_change(shop: Shop, made: str) -> None:
    shop.define('ttl="10d"', 'ttl="1h"')
    shop.define('Field("clicks", "int64", default=0)', 'Field("clicks", "int64", default=5)')
    report = shop.verify(made)
    assert report.outcome == "equal"
    assert any("activity@v1 has another definition" in note for note in report.notes)
    text = (shop.path / "features.py").read_text()
    second = text[text.index("profile = ") : text.index("ranking =")].replace("profile =", "second =")
    shop.define("ranking = ", second.replace('"profile",', '"profile", version=2,') + "\nranking = ")
    report = shop.verify(made)
    assert report.outcome == "equal" and any("newer version, v2" in note for note in report.notes)


def test_a_view_that_was_retired_is_still_known(shop: Shop, made: str) -> None:
    text = (shop.path / "features.py").read_text()
    kept = text[: text.index("profile = ")] + 'only = FeatureService("only", ["activity:clicks"])\n'
    (shop.path / "features.py").write_text(kept)
    with shop.store() as store:
        store.apply(prune=True)
    report = shop.verify(made)
    assert report.outcome == "equal"
    assert "view profile@v1 is no longer registered" in report.notes


def test_it_holds_where_the_repo_was_moved_to(shop: Shop, made: str) -> None:
    moved = shop.path.rename(shop.path.with_name("moved"))
    assert Shop(moved).verify(made).outcome == "equal"


# ---- what differs is named -------------------------------------------------------------------------------


def test_one_changed_byte_in_a_source_is_found_and_named(shop: Shop, made: str) -> None:
    source = shop.path / "data/profile/p.parquet"
    at = source.read_bytes().index("Köln".encode())
    flip(source, at)
    report = shop.verify(made)
    first = report.findings[0]
    assert report.outcome == "different" and first.kind == "source"
    assert "data/profile/p.parquet" in first.where and "'crm'" in first.where and "same size" in first.message
    assert shop.run("verify", made).returncode == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_any_changed_byte_is_found(share: float, shop: Shop, made: str) -> None:
    source = shop.path / "data/profile/p.parquet"
    flip(source, int((source.stat().st_size - 1) * share))
    report = shop.verify(made)
    assert not report.ok and report.findings[0].kind == "source"
    assert "data/profile/p.parquet" in report.findings[0].where


def test_a_value_changed_in_a_source_names_column_and_row(shop: Shop, made: str) -> None:
    path = shop.path / "data/profile/p.parquet"
    rows = pq.read_table(path)
    shop.add("profile/p", rows.set_column(2, "city", pa.array(["Łódź", "Bonn"])))
    report = shop.verify(made)
    assert kinds(report) == ["source", "column"]
    assert report.findings[1].where == "city"
    assert "in 2 rows: 1, 4" in report.findings[1].message


def test_a_source_file_that_is_gone(shop: Shop, made: str) -> None:
    (shop.path / "data/profile/p.parquet").rename(shop.path / "data/profile/q.parquet")
    report = shop.verify(made)
    assert report.outcome == "cannot_be_remade" and kinds(report) == ["source"]
    assert "is gone" in report.findings[0].message


def test_a_table_removed_and_made_anew_is_another_table(shop: Shop, made: str) -> None:
    shutil.rmtree(shop.path / ".fastserve/offline")
    report = shop.verify(made)
    assert report.outcome == "cannot_be_remade" and "no Delta table" in report.findings[0].message
    with shop.store() as store:
        store.materialize(views=["activity"], target="offline", now="2030-01-01T00:00:00Z")
    if table(shop).version() >= 1:
        assert "is another one" in shop.verify(made).findings[0].message


def test_a_changed_output_names_column_and_row(shop: Shop, made: str) -> None:
    path = shop.folder(made) / "data.parquet"
    rows = pq.read_table(path)
    values = rows["clicks"].to_pylist()
    values[3] += 1
    at = rows.column_names.index("clicks")
    pq.write_table(rows.set_column(at, "clicks", pa.array(values)), path)
    report = shop.verify(made)
    assert report.outcome == "different" and kinds(report) == ["file", "column"]
    assert report.findings[1].where == "clicks" and "in 1 row: 3" in report.findings[1].message
    with shop.store() as store, pytest.raises(Exception, match=r"(?s)SHA-256.*training-set verify"):
        store.get_training_dataset(made).to_df()


@pytest.mark.parametrize("name", ["data.parquet", "spine.parquet"])
def test_a_damaged_file_of_the_data_set(name: str, shop: Shop, made: str) -> None:
    path = shop.folder(made) / name
    path.write_bytes(path.read_bytes()[:-20])
    report = shop.verify(made)
    assert not report.ok and report.findings[0].kind == "file" and name in report.findings[0].where


def test_changed_labels_are_not_taken_for_the_labels(shop: Shop, made: str) -> None:
    path = shop.folder(made) / "spine.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    report = shop.verify(made)
    assert report.outcome == "cannot_be_remade" and "spine.parquet" in report.findings[0].where


def test_a_changed_manifest(shop: Shop, made: str) -> None:
    path = shop.folder(made) / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "full_feature_names": True}))
    report = shop.verify(made)
    assert kinds(report)[:2] == ["manifest", "manifest"]
    assert "full_feature_names" in report.findings[1].message


def test_other_software_is_a_note(shop: Shop, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(
        "materializer.datasets.verify"
    )  # the package has the function by that name

    now = module.software()
    monkeypatch.setattr(module, "software", lambda: {**now, "pyarrow": "99.0"})
    report = shop.verify(made)
    assert report.ok and any("pyarrow" in note and "99.0" in note for note in report.notes)


def test_another_registry(shop: Shop, made: str, tmp_path: Path) -> None:
    other = Shop.make(tmp_path / "other")
    report = other.verify(shop.folder(made))
    assert report.outcome == "cannot_be_remade" and "definition" in kinds(report)
