"""`import-feast` from recorded dumps: readable files that apply, and a note for all that is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.definitions.load import load_definitions
from fastserve.errors import ConfigError
from fastserve.feast_import.code import features_py
from fastserve.feast_import.importer import import_repo, read_feast, write_repo
from fastserve.feast_import.translate import Note, Translated, translate
from tests.feast.kit import ROOT, dump_of, make_feast_repo

NAMES = ("rides", "odd", "quick_start")


def imported(dump: dict[str, Any]) -> Translated:
    return translate(dump, lambda path: None, lambda path: path)


def notes_of(made: Translated) -> set[tuple[str, str]]:
    return {(note.where, note.what) for note in made.notes}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_loads_as_what_was_translated_and_applies(name: str, tmp_path: Path) -> None:
    (tmp_path / "feast").mkdir()
    done = write_repo(dump_of(name), tmp_path / "feast", tmp_path / "new")
    assert {path.name for path in done.files} == {"fastserve.toml", "features.py", "import-report.md"}
    loaded = load_definitions(tmp_path / "new")
    assert {(type(o).__name__, o.name): o for o in loaded} == {
        (type(o).__name__, o.name): o for o in done.made.objects
    }
    with FeatureStore(tmp_path / "new") as store:
        assert store.apply().snapshot.revision == 1
        assert len(store.snapshot.definitions()) == len(loaded)
    assert max(map(len, (tmp_path / "new" / "features.py").read_text().splitlines())) <= 120
    report = (tmp_path / "new" / "import-report.md").read_text()
    assert all(note.where in report and note.why in report for note in done.made.notes)


def test_rides_is_carried_over_whole(tmp_path: Path) -> None:
    made = imported(dump_of("rides"))
    assert notes_of(made) == {("FeatureView 'global_stats'", "changed")}
    text = features_py(made, "from Feast")
    assert 'field_mapping={"n": "rides"}' in text
    assert '.with_name("origin").with_join_key_map({"location_id": "origin_id"})' in text
    assert '"location",\n    join_keys="location_id",\n    dtype="int64",\n' in text
    views = {view.name: view for view in made.views}
    assert views["global_stats"].ttl_us is None and views["driver_stats"].ttl_us == 6 * 3_600_000_000
    assert views["driver_stats"].owner == "fleet@example.org" and dict(views["driver_stats"].tags) == {
        "team": "fleet"
    }
    assert views["pair_stats"].entities == ("driver", "customer")


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    repo = make_feast_repo(tmp_path, "odd")
    done = write_repo(dump_of("odd"), repo, tmp_path / "new")
    assert notes_of(done.made) == {
        ("Entity 'moment'", "left out"),
        ("FeatureView 'by_moment'", "left out"),
        ("KafkaSource 'click_stream'", "left out"),
        ("BatchFeatureView 'doubled'", "left out"),
        ("FeatureView 'inferred'", "changed"),
        ("FeatureView 'kinds', feature 'config'", "changed"),
        ("FeatureView 'kinds', feature 'extras'", "left out"),
        ("FeatureView 'kinds', feature 'labels'", "left out"),
        ("FeatureView 'kinds'", "changed"),
        ("OnDemandFeatureView 'bids'", "left out"),
        ("FeatureService 'bid_model'", "changed"),
        ("FeatureService 'bid_model'", "left out"),
        ("FeatureService 'item_model'", "changed"),
        ("RequestSource 'at_request'", "left out"),
    }
    views = {view.name: view for view in done.made.views}
    assert views["inferred"].feature_names == ("score", "visits")
    assert done.made.entities[0].dtypes == ("int64",), "from the file: nothing declares it"


def view_dump(**changes: Any) -> dict[str, Any]:
    """A dump of one entity, one view and one service, changed here and there."""
    source = {
        "class": "FileSource", "name": "files", "path": "s3://bucket/x.parquet", "timestamp_field": "at",
        "created_timestamp_column": "", "date_partition_column": "", "field_mapping": {}, "file_format": None,
        "s3_endpoint_override": "", "description": "", "tags": {}, "owner": "",
    }  # fmt: skip
    about = {"description": "", "tags": {}, "owner": ""}
    field = {"name": "a", "dtype": "Int64", "description": "", "tags": {}, "vector_index": False}
    view = {
        "class": "FeatureView", "name": "v", "entities": ["e"], "ttl_us": None, "features": [field],
        "entity_columns": [], "source": source, "batch_source": source, "online": True, "version": "latest",
        "enable_validation": False, "transformed": False, "aggregations": 0, "source_views": [], **about,
    }  # fmt: skip
    view |= {k: v for k, v in changes.items() if k in view}
    view["features"] = [field | changes.get("field", {})]
    if "batch_source" in changes:
        view["source"] = view["batch_source"] = source | changes["batch_source"]
    entity = {"name": "e", "join_key": "e_id", "value_type": "INT64", **about} | changes.get("entity", {})
    parts = [{"view": "v", "alias": "", "features": ["a"], "join_key_map": {}}]
    service = {"name": "s", "features": parts, "refs": [], "logged": False, **about} | changes.get(
        "service", {}
    )
    return {"entities": [entity], "sources": [], "views": [view], "services": [service], "permissions": []}


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"entity": {"value_type": "DOUBLE"}}, "Entity 'e'", "left out"),
        ({"entity": {"value_type": "UNKNOWN"}}, "Entity 'e'", "changed"),
        ({"entity": {"join_key": "e-id"}}, "Entity 'e'", "left out"),
        ({"name": "a-view"}, "FeatureView 'a-view'", "left out"),
        ({"aggregations": 1}, "FeatureView 'v'", "left out"),
        ({"source_views": ["other"]}, "FeatureView 'v'", "left out"),
        ({"version": "v3"}, "FeatureView 'v'", "changed"),
        ({"ttl_us": 0}, "FeatureView 'v'", "changed"),
        ({"field": {"dtype": "Decimal"}}, "FeatureView 'v', feature 'a'", "left out"),
        ({"field": {"dtype": "Array(Array(Int64))"}}, "FeatureView 'v', feature 'a'", "left out"),
        ({"field": {"dtype": "Something"}}, "FeatureView 'v', feature 'a'", "left out"),
        ({"field": {"dtype": "Uuid"}}, "FeatureView 'v', feature 'a'", "changed"),
        ({"field": {"vector_index": True}}, "FeatureView 'v', feature 'a'", "changed"),
        ({"field": {"name": "event_timestamp"}}, "FeatureView 'v', feature 'event_timestamp'", "left out"),
        ({"batch_source": {"class": "BigQuerySource", "path": ""}}, "BigQuerySource 'files'", "left out"),
        ({"batch_source": {"class": "BigQuerySource", "path": ""}}, "FeatureView 'v'", "changed"),
        ({"batch_source": {"s3_endpoint_override": "x"}}, "FileSource 'files'", "changed"),
        ({"batch_source": {"date_partition_column": "d"}}, "FileSource 'files'", "changed"),
        ({"batch_source": {"timestamp_field": ""}}, "FileSource 'files'", "changed"),
        ({"service": {"logged": True}}, "FeatureService 's'", "changed"),
        ({"service": {"name": "a service"}}, "FeatureService 'a service'", "left out"),
    ],
)
def test_every_oddity_has_its_note(changes: dict[str, Any], where: str, what: str) -> None:
    made = imported(view_dump(**changes))
    assert (where, what) in notes_of(made)
    assert all(isinstance(note, Note) and note.why for note in made.notes)


def test_refs_and_whole_views_in_services() -> None:
    made = imported(view_dump(service={"features": [], "refs": ["v:a"]}))
    assert made.services[0].features[0].features == ("a",) and made.notes == ()
    assert imported(view_dump(service={"features": [], "refs": ["v"]})).services == made.services


def test_paths_are_relative_to_the_new_repo_and_urls_stay(tmp_path: Path) -> None:
    made = write_repo(
        {**view_dump(), "config": dump_of("rides")["config"] | {"project": "1-x"}, "feast_version": "0"},
        tmp_path / "feast",
        tmp_path / "deep" / "new",
    )
    assert made.project == "_1_x"
    assert "s3://bucket/x.parquet" in (made.output / "features.py").read_text()
    rides = write_repo(dump_of("rides"), tmp_path / "feast", tmp_path / "deep" / "rides")
    assert '"../../feast/data/drivers.parquet"' in (rides.output / "features.py").read_text()


def command(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "fastserve.cli.main", "import-feast", *args],
        cwd=cwd, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_mistakes_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    done = command("nowhere", "--json", cwd=tmp_path)
    assert done.returncode == 2 and "feature_store.yaml" in json.loads(done.stdout)["error"]["where"]
    repo = make_feast_repo(tmp_path, "rides")
    done = command("rides", "--python", "/no/such/python", cwd=tmp_path)
    assert done.returncode == 2 and "cannot run /no/such/python" in done.stderr
    done = command("rides", "--output", "rides", cwd=tmp_path)
    assert done.returncode == 2 and "--output" in done.stderr
    assert not (tmp_path / "fastserve_repo").exists()
    write_repo(dump_of("rides"), repo, tmp_path / "new")
    with pytest.raises(ConfigError, match="is there already"):
        write_repo(dump_of("rides"), repo, tmp_path / "new")


def fake_feast(folder: Path, code: str) -> str:
    """An interpreter whose feast is this code: what goes wrong there is told here."""
    (folder / "feast").mkdir(parents=True)
    (folder / "feast" / "__init__.py").write_text(code)
    run = folder / "python"
    run.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    run.chmod(0o755)
    return str(run)


def test_an_interpreter_without_feast_and_a_repo_that_fails(tmp_path: Path) -> None:
    repo = make_feast_repo(tmp_path, "rides")
    missing = fake_feast(tmp_path / "a", "raise ModuleNotFoundError(\"No module named 'feast'\")\n")
    with pytest.raises(ConfigError, match="has no feast"):
        import_repo(repo, tmp_path / "new", missing)
    broken = fake_feast(tmp_path / "b", f'exec(compile("1/0", "{repo}/rides.py", "exec"))\n')
    with pytest.raises(ConfigError, match="division by zero") as caught:
        read_feast(repo, broken)
    assert caught.value.where == f"{repo}/rides.py:1"
