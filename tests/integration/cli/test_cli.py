"""The fastserve command as a user runs it: in a process of its own, by exit code and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fastserve.cli.get import parse_entities
from fastserve.cli.training_set import write_rows
from fastserve.errors import InvalidEntityError, RequestError
from tests.support import make_repo

ROOT = Path(__file__).resolve().parents[3]


def run(*args: str, cwd: Path, module: str = "fastserve.cli.main") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def ok(*args: str, cwd: Path, module: str = "fastserve.cli.main") -> Any:
    """Run with --json; the parsed document."""
    done = run(*args, "--json", cwd=cwd, module=module)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def contents(repo: Path) -> dict[str, bytes]:
    """Every file of a repo but SQLite's and LMDB's shared memory and locks."""
    files = (
        p
        for p in repo.rglob("*")
        if p.is_file() and not p.name.endswith(("-shm", "-wal", "lock.mdb", ".pyc"))
    )
    return {str(p.relative_to(repo)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` writes, applied and materialized."""
    folder = tmp_path_factory.mktemp("cli") / "shop"
    assert run("init", str(folder), cwd=folder.parent).returncode == 0
    assert ok("apply", cwd=folder)["revision"] == 1
    done = run("run", "--incremental", cwd=folder, module="materializer.cli")
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_init_writes_a_repo_that_works(shop: Path) -> None:
    found = ok("get", "--service", "driver_activity", "-e", "driver_id=1001,9999", cwd=shop)
    assert found["values"]["driver_id"] == [1001, 9999]
    assert found["statuses"]["trips"] == ["PRESENT", "NOT_FOUND"]
    assert found["values"]["trips"][1] == 0, "the default"


def test_init_as_json_names_what_it_wrote(tmp_path: Path) -> None:
    made = ok("init", "new-shop", cwd=tmp_path)
    assert made["project"] == "new_shop" and all((tmp_path / name).is_file() for name in made["files"])


def test_init_never_overwrites(shop: Path) -> None:
    done = run("init", ".", cwd=shop)
    assert done.returncode == 2 and "is there already" in done.stderr


def test_applying_again_changes_nothing(shop: Path) -> None:
    assert ok("plan", cwd=shop)["changes"] is not None
    assert ok("apply", cwd=shop)["revision"] == 1


def test_list_and_describe(shop: Path) -> None:
    listed = ok("list", cwd=shop)
    assert [v["name"] for v in listed["views"]] == ["driver_hourly"]
    about = ok("describe", "driver_hourly", cwd=shop)[0]
    assert about["ttl"] == "1d" and about["join_keys"] == {"driver_id": "int64"}
    assert about["materialized"]["online"], "the range that was materialized"
    assert ok("describe", "driver_hourly@v1", cwd=shop) == [about]
    text = run("list", cwd=shop).stdout
    assert text.splitlines()[0].split()[:2] == ["KIND", "NAME"]


def test_describe_tells_of_the_history(shop: Path) -> None:
    history = ok("describe", "driver_hourly", cwd=shop)[0]["history"]
    assert history["rows"] > 0 and history["files"] > 0 and history["bytes"] > 0
    assert history["oldest"] <= history["newest"] and "optimized" not in history
    assert run("optimize", "--json", cwd=shop, module="materializer.cli").returncode == 0
    assert ok("describe", "driver_hourly", cwd=shop)[0]["history"]["optimized"].endswith("Z")


def test_inspect_decodes_the_stored_row(shop: Path) -> None:
    row = ok("inspect", "driver_hourly", "-e", "driver_id=1001", cwd=shop)
    assert row["found"] and row["key"] == "1:1001" and row["layout"] == 1
    assert set(row["values"]) == {"trips", "acceptance"}
    assert not ok("inspect", "driver_hourly", "-e", "driver_id=5", cwd=shop)["found"]


def test_status_says_what_is_materialized(shop: Path) -> None:
    status = ok("status", cwd=shop)
    assert status["online_store"] == "ok" and status["registry"]["revision"] == 1
    assert set(status["views"]["driver_hourly"]) == {"online", "offline"}


def test_ranges_are_shown_as_the_materializer_takes_them(tmp_path: Path) -> None:
    """Both ends included, in `status`, in `describe` and in the message that names what is missing."""
    assert run("init", "shop", cwd=tmp_path).returncode == 0
    shop = tmp_path / "shop"
    ok("apply", cwd=shop)
    args = ("run", "--start", "2013-01-01", "--end", "2013-01-02")
    assert run(*args, cwd=shop, module="materializer.cli").returncode == 0
    span = {"from": "2013-01-01T00:00:00Z", "to": "2013-01-02T00:00:00Z", "rows_read": 0}
    ranges = {"online": [span], "offline": [span]}
    assert ok("status", cwd=shop)["views"] == {"driver_hourly": ranges}
    assert ok("describe", "driver_hourly", cwd=shop)[0]["materialized"] == ranges
    assert run("status", cwd=shop).stdout.splitlines()[2].split("  ")[-1] == "ROWS READ"

    def refused(time: str) -> str:
        (shop / "labels.csv").write_text(f"driver_id,event_timestamp\n1,{time}\n")
        options = ("--spine", "labels.csv", "--output", "out.csv", "--service", "driver_activity")
        done = run("training-set", "create", *options, cwd=shop)
        assert done.returncode == 1 and "--allow-incomplete" in done.stderr
        return done.stderr

    missing = refused("2013-01-04")
    assert "holds what is from 2013-01-01T00:00:00Z to 2013-01-02T00:00:00Z;" in missing
    assert "--start 2013-01-03T00:00:00.000001Z --end 2013-01-04T00:00:00Z`" in missing
    assert "future" in refused("9013-01-01"), "no run could fill that"


def test_join_keys_in_a_csv_spine_have_their_declared_type(tmp_path: Path) -> None:
    """Text that looks like a number is not one: 007 is the user "007"."""
    repo = make_repo(
        tmp_path / "repo",
        "from fastserve import *\nu = Entity('u')\n"
        "v = FeatureView('v', entities=[u], schema=[Field('x', 'int64')], source=FileSource('d.csv'))\n",
    )
    (repo / "d.csv").write_text("u,event_timestamp,x\n007,2013-01-01,1\n7,2013-01-01,2\n")
    (repo / "labels.csv").write_text("u,event_timestamp\n7,2013-01-02\n007,2013-01-02\n")
    ok("apply", cwd=repo)
    ok("training-set", "create", "v:x", "--spine", "labels.csv", "--output", "out.parquet", cwd=repo)
    made = pyarrow.parquet.read_table(repo / "out.parquet")
    assert made["u"].to_pylist() == ["7", "007"] and made["x"].to_pylist() == [2, 1]


def test_lists_do_not_fit_into_csv(tmp_path: Path) -> None:
    table = pa.table({"x": [[1, 2]]})
    with pytest.raises(RequestError, match=r"out.csv: cannot be written: .*\n.*write .parquet"):
        write_rows(table.schema, table.to_batches(), str(tmp_path / "out.csv"))
    assert not list(tmp_path.iterdir())


def test_boolean_keys_on_the_command_line() -> None:
    key = {"flag": "bool"}
    assert parse_entities(("flag=true,0,F",), key) == {"flag": [True, False, False]}
    with pytest.raises(InvalidEntityError, match="'yes' is neither true nor false"):
        parse_entities(("flag=yes",), key)


def test_training_set_from_a_file(shop: Path, tmp_path: Path) -> None:
    rows = pyarrow.csv.read_csv(shop / "data" / "driver_hourly.csv")
    spine = pa.table(
        {
            "driver_id": pa.array([1001, 7, 1002]),
            "event_timestamp": rows["event_timestamp"].take([140, 140, 140]).combine_chunks(),
            "label": pa.array([1, 0, 1]),
        }
    )
    pyarrow.parquet.write_table(spine, tmp_path / "labels.parquet")
    out = tmp_path / "out.parquet"
    summary = ok(
        "training-set",
        "create",
        *("--service", "driver_activity", "--spine", str(tmp_path / "labels.parquet"), "--output", str(out)),
        cwd=shop,
    )
    assert summary["rows"] == 3
    made = pyarrow.parquet.read_table(out)
    assert made.column_names == ["driver_id", "event_timestamp", "label", "trips", "acceptance"]
    assert made["label"].equals(spine["label"])
    assert made["trips"].to_pylist()[1] == 0 and made["acceptance"].to_pylist()[1] is None


# (arguments, exit code, what standard error must say)
MISTAKES = [
    (["aply"], 2, "did you mean 'apply'"),
    (["get"], 2, "name either features or --service"),
    (["get", "driver_hourly:trips"], 2, "driver_id"),
    (["get", "driver_hourly:trips", "-e", "driver_id"], 2, "KEY=VALUE"),
    (["get", "driver_hourly:trips", "-e", "driver_id=x"], 2, "no integer"),
    (["get", "driver_hourli:trips", "-e", "driver_id=1"], 2, "did you mean 'driver_hourly'"),
    (["get", "driver_hourly:trip", "-e", "driver_id=1"], 2, "did you mean 'trips'"),
    (["get", "trips", "-e", "driver_id=1"], 2, "view:feature"),
    (["get", "--service", "driver_activit", "-e", "driver_id=1"], 2, "did you mean 'driver_activity'"),
    (["get", "driver_hourly:trips", "-e", "driver_id=1", "--now", "soon"], 2, "is not a time"),
    (["describe", "drivr"], 2, "did you mean 'driver'"),
    (["inspect", "driver_hourly"], 2, "driver_id"),
    (["inspect", "driver_hourly@vx", "-e", "driver_id=1"], 2, "VIEW@v2"),
    (["describe", "driver_hourly@v2"], 2, "driver_hourly"),
    (
        ["training-set", "create", "--spine", "a.csv", "--output", "x.csv"],
        2,
        "name either features or --service",
    ),
    (["inspect", "driver_hourly@v3", "-e", "driver_id=1"], 2, "no version 3"),
    (["list", "--repo", "/nowhere"], 2, "fastserve init"),
    (["serve", "--clock", "noon"], 2, "is not a time"),
    (["serve", "--cert", "a.pem"], 2, "both a certificate and a key"),
    (["serve", "--cert", "a.pem", "--key", "b.pem", "--port", "0"], 2, "a.pem"),
    (["serve", "--workers", "0"], 2, "workers"),
    (
        [
            "training-set",
            "create",
            "--spine",
            "no.parquet",
            "--output",
            "x.parquet",
            "--service",
            "driver_activity",
        ],
        2,
        "no.parq",
    ),
    (
        ["training-set", "create", "--spine", "a.csv", "--output", "x.txt", "--service", "driver_activity"],
        2,
        ".parquet",
    ),
]


@pytest.mark.parametrize(("args", "code", "says"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_mistakes_are_explained(shop: Path, args: list[str], code: int, says: str) -> None:
    before = contents(shop)
    done = run(*args, cwd=shop)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert contents(shop) == before, "nothing changed"


def test_what_the_system_refuses_is_one_line(shop: Path) -> None:
    done = run("init", "features.py/repo", cwd=shop)
    assert done.returncode == 1 and "features.py" in done.stderr and len(done.stderr.splitlines()) == 1


def test_errors_as_json(shop: Path) -> None:
    done = run("describe", "drivr", "--json", cwd=shop)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "UnknownObjectError" and "driver" in error["hint"]


BROKEN = [
    ("import nothing_there", "features.py:1", "nothing_there"),
    ("x = (", "features.py:1", "SyntaxError"),
    ("", "no definitions", ""),
    ("from fastserve import *\nv = FeatureView('v', entities=['u'], schema=[])", "2 problems", "Entity('u')"),
]


@pytest.mark.parametrize(("source", "where", "says"), BROKEN)
def test_broken_definitions_are_located(tmp_path: Path, source: str, where: str, says: str) -> None:
    repo = make_repo(tmp_path / "repo", source)
    done = run("apply", cwd=repo)
    assert done.returncode == 2
    assert where in done.stderr and says in done.stderr and "Traceback" not in done.stderr


SETTINGS = [
    ('project = "a b"', "project"),
    ('projct = "a"', "did you mean 'project'"),
    ("project = 3", "put it in quotes"),
    ("project =", "not valid TOML"),
    ('project = "a"\nregistry = "mysql://x/y"', "mysql"),
    ('project = "a"\nregistry = "postgresql://u:secret@127.0.0.1:1/x"', "127.0.0.1:1"),
]


@pytest.mark.parametrize(("toml", "says"), SETTINGS)
def test_broken_settings_are_explained(tmp_path: Path, toml: str, says: str) -> None:
    repo = make_repo(tmp_path / "repo", "")
    (repo / "fastserve.toml").write_text(toml)
    done = run("list", cwd=repo)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr and "secret" not in done.stderr


def test_a_breaking_change_is_refused_and_says_how(tmp_path: Path) -> None:
    source = "from fastserve import *\nv = FeatureView('v', schema=[Field('a', '{}'), Field('b', 'int64')])\n"
    repo = make_repo(tmp_path / "repo", source.format("int64"))
    assert ok("apply", cwd=repo)["revision"] == 1
    (repo / "features.py").write_text(source.format("string"))
    for command in ("plan", "apply"):
        done = run(command, cwd=repo)
        assert done.returncode == 2 and "version=2" in done.stderr and "'a'" in done.stderr
    assert ok("status", cwd=repo)["registry"]["revision"] == 1
