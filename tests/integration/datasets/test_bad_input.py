"""Mistakes: each is told in one message, and nothing was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fastserve.errors import FastserveError
from tests.integration.datasets.kit import Shop, labels, ts

GOOD: dict[str, Any] = {"name": "t", "service": "ranking"}
WRONG_KEY = pa.table({"user_id": ["1"], "event_timestamp": ts([1])})
DUR = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
TWICE = ["activity:clicks", "activity:clicks"]
TAKEN = labels().rename_columns(["user_id", "event_timestamp", "city"])

# (what, labels, options, what the error says)
CASES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("no name", labels(), {"name": ""}, "not a usable name"),
    ("a path as name", labels(), {"name": "../x"}, "not a usable name"),
    ("a long name", labels(), {"name": "x" * 129}, "not a usable name"),
    ("a number as name", labels(), {"name": 3}, "not a usable name"),
    ("neither features nor service", labels(), {"service": None}, "either features or a service"),
    ("both", labels(), {"features": ["activity:clicks"]}, "either features or a service"),
    ("unknown service", labels(), {"service": "rankin"}, "did you mean 'ranking'"),
    ("unknown view", labels(), {"service": None, "features": ["activit:clicks"]}, "did you mean 'activity'"),
    ("unknown feature", labels(), {"service": None, "features": ["activity:click"]}, "did you mean 'clicks'"),
    ("unknown version", labels(), {"service": None, "features": ["activity@v7:clicks"]}, "no version 7"),
    ("no reference", labels(), {"service": None, "features": ["clicks"]}, "view:feature"),
    ("one name twice", labels(), {"service": None, "features": TWICE}, "both be named"),
    ("labels of a feature's name", TAKEN, {}, "both be named"),
    ("no key", labels().drop_columns(["user_id"]), {}, "no column 'user_id'"),
    ("a key of another type", WRONG_KEY, {}, "user_id"),
    ("no time", labels().drop_columns(["event_timestamp"]), {}, "no column 'event_timestamp'"),
    ("another time column", labels(), {"timestamp_column": "when"}, "no column 'when'"),
    ("a time that is null", labels().set_column(1, "event_timestamp", pa.nulls(5, pa.timestamp("us"))), {}, "row 0"),
    ("no frame", [1, 2], {}, "pandas or polars frame"),
    ("no columns", pa.table({}), {}, "has no columns"),
    ("a type Parquet has not", labels().append_column("i", pa.chunked_array([DUR.take([0] * 5)])), {}, "column 'i'"),
    ("no such file of labels", "nothing.parquet", {}, "nothing.parquet"),
    ("cutoff is no time", labels(), {"cutoff": "yesterday"}, "not a time"),
    ("cutoff is a list", labels(), {"cutoff": []}, "cutoff"),
    ("full_feature_names is text", labels(), {"full_feature_names": "yes"}, "not true or false"),
    ("author is a number", labels(), {"author": 3}, "not text"),
    ("unknown option", labels(), {"cut_off": 1}, "unknown option 'cut_off'"),
    ("output is an URL", labels(), {"output": "s3://bucket/x"}, "local directories"),
    ("output is a file", labels(), {"output": "FILE"}, "is a file"),
    ("output is somebody's directory", labels(), {"output": "DIRECTORY"}, "is there already"),
    ("labels after what is materialized", labels().set_column(1, "event_timestamp", ts([10**6] * 5)), {}, "missing"),
]  # fmt: skip


def written(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if not p.name.endswith(("-shm", "-wal"))}


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_mistakes_are_explained_and_change_nothing(
    case: tuple[str, Any, dict[str, Any], str], shop: Shop
) -> None:
    _, spine, options, says = case
    (shop.path / "file").write_text("x")
    places = {"FILE": str(shop.path / "file"), "DIRECTORY": str(shop.path / "data")}
    options = {**GOOD, **options}
    options["output"] = places.get(options.get("output", ""), options.get("output", ""))
    (shop.path / ".fastserve/training").mkdir()
    before = written(shop.path)
    with shop.store() as store:
        with pytest.raises(FastserveError) as caught:
            store.create_training_dataset(
                spine, options.pop("name"), options.pop("features", None), **options
            )
        assert says in str(caught.value)
        assert store.list_training_datasets() == []
    assert written(shop.path) == before


def test_a_directory_that_holds_another_data_set_stays(shop: Shop) -> None:
    folder = shop.path / "set"
    first = shop.create(output=folder)
    with pytest.raises(FastserveError, match=r"(?s)holds another data set.*never overwritten"):
        shop.create("second", output=folder)
    assert shop.verify(folder).ok and shop.verify(first).ok


COMMANDS: list[tuple[list[str], str]] = [
    (["create", "--spine", "labels.parquet", "--service", "ranking"], "--name NAME"),
    (["create", "--spine", "labels.parquet", "--name", "a b", "--service", "ranking"], "not a usable name"),
    (["create", "--spine", "no.parquet", "--name", "t", "--service", "ranking"], "no.parquet"),
    (
        ["create", "--spine", "labels.parquet", "--name", "t", "--service", "ranking", "--cutoff", "x"],
        "label-time",
    ),
    (["create", "--spine", "labels.parquet", "--name", "t"], "either features or --service"),
    (["show", "nothing"], "none is registered yet"),
    (["verify", "nothing"], "none is registered yet"),
    (["verify"], "DATASET"),
    (["verfy"], "verfy"),
]


@pytest.mark.parametrize(("args", "says"), COMMANDS, ids=[" ".join(args) for args, _ in COMMANDS])
def test_mistakes_on_the_command_line(args: list[str], says: str, shop: Shop) -> None:
    done = shop.run(*args)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("[]", "is no manifest"),
        ("{}", "is no manifest"),
        ('{"format": 2}', "upgrade"),
    ],
)
def test_a_manifest_that_is_none(text: str, says: str, shop: Shop) -> None:
    folder = shop.folder(shop.create())
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FastserveError, match=says):
        shop.verify(folder)
