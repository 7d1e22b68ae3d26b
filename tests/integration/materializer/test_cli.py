"""The command: one line of JSON whatever happens, exit codes, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastserve.codec.rows import read_header
from fastserve.definitions import FeatureView, Field, FileSource, PushSource
from fastserve.online import open_store
from fastserve.store import FeatureStore
from fastserve.types import Int64
from materializer.cli import main
from tests.integration.materializer.repo import DAY, HOUR, ROOT, T0, USER, Repo, stats_view

ARGS = ("--incremental", "--now", "2013-01-31")


def rows(n: int = 10) -> list[dict[str, Any]]:
    return [{"user": f"u{i % 5}", "event_timestamp": T0 + i * HOUR, "amount": float(i)} for i in range(n)]


@pytest.fixture
def three_views(tmp_path: Path) -> Repo:
    """`stats`, `broken` over `data2`, and `pushed`, which has no batch source."""
    broken = FeatureView(
        "broken",
        entities=[USER],
        schema=[Field("visits", Int64)],
        source=FileSource("data2", created_timestamp_column="created"),
    )
    pushed = FeatureView(
        "pushed", entities=[USER], schema=[Field("visits", Int64)], source=PushSource("clicks")
    )
    repo = Repo.make(tmp_path / "repo", stats_view(), broken, pushed)
    (repo.path / "data2").mkdir()
    repo.write(rows())
    return repo


# ---- what goes right -----------------------------------------------------------------------------


def test_the_summary(repo: Repo) -> None:
    repo.write(rows())
    code, summary, err = repo.cli("--start", "2013-01-01", "--end", "2999-01-01", "--now", "2013-01-31")
    assert (code, err) == (0, "")
    [view] = summary["views"]
    assert view.pop("seconds") <= summary["totals"].pop("seconds")
    counts = {
        "rows_read": 10,
        "rows_offline_new": 10,
        "rows_online_written": 5,
        "partitions_done": 2,
        "partitions_skipped": 0,
    }
    assert view == {
        "view": "stats",
        "status": "ok",
        "window": {"start": "2013-01-01T00:00:00Z", "end": "2013-01-31T00:00:00Z"},
        "end_clamped": True,
        **counts,
    }
    assert summary == {"status": "ok", "views": [view], "totals": counts}


def test_target_and_view_options(repo: Repo) -> None:
    repo.write(rows())
    _, summary, _ = repo.cli(*ARGS, "--target", "offline", "--view", "stats@v1", "--view", "stats")
    assert [v["rows_online_written"] for v in summary["views"]] == [0]
    assert (repo.online_rows(), len(repo.offline_rows())) == ({}, 10)


def test_views_without_batch_source_or_store_are_left_out_by_default(tmp_path: Path) -> None:
    pushed = FeatureView("pushed", entities=[USER], schema=[Field("a", Int64)], source=PushSource("clicks"))
    off = stats_view("off", online=False, offline=False)
    repo = Repo.make(tmp_path / "repo", stats_view(online=False), pushed, off)
    repo.write(rows())
    code, summary, _ = repo.cli(*ARGS)
    assert code == 0
    assert [(v["view"], v["rows_online_written"]) for v in summary["views"]] == [("stats", 0)]
    assert not (repo.path / ".fastserve" / "online").exists()  # nobody needed it


def test_an_older_version_is_named_by_its_number(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", stats_view(), stats_view(version=2))
    repo.write(rows())
    names = [[v["view"] for v in repo.cli(*ARGS, *more)[1]["views"]] for more in ((), ("--view", "stats"))]
    assert names == [["stats", "stats@v2"], ["stats@v2"]]


# ---- what goes wrong -----------------------------------------------------------------------------

USAGE = [
    (["--start", "2013-01-02", "--end", "2013-01-01"], "is after end", "swap"),
    (["--start", "yesterday", "--end", "2013-01-01"], "'yesterday' is not a time", "write it like"),
    (["--incremental", "--now", "noon"], "'noon' is not a time", "write it like"),
    (["--incremental", "--overlap", "3 days"], "is not a duration", "write it like"),
    (["--start", "2013-01-01"], "--end must be given", "--incremental"),
    ([], "--start and --end must be given", "--incremental"),
    (["--incremental", "--start", "2013-01-01"], "exclude each other", "drop one"),
    (
        ["--start", "2013-01-01", "--end", "2013-01-02", "--overlap", "1h"],
        "incremental runs",
        "--incremental",
    ),
    (["--incremental", "--view", "stat"], "unknown feature view 'stat'", "did you mean 'stats'?"),
    (["--incremental", "--view", "stats@v7"], "has no version 7", "its versions: 1"),
    (["--incremental", "--view", "stats@7"], "is no view", "NAME@v2"),
    (["--incremental", "--view", "pushed"], "has no batch source", "push"),
    (["--incremental", "--target", "both!"], "both!", "--help"),
    (["--incremantal"], "--incremantal", "--help"),
    (["--incremental", "--repo", "/nowhere"], "not found", "fastserve init"),
]


@pytest.mark.parametrize(
    ("args", "message", "hint"), USAGE, ids=[" ".join(case[0]) or "nothing" for case in USAGE]
)
def test_mistakes_exit_2_and_change_nothing(
    three_views: Repo, capsys: pytest.CaptureFixture[str], args: list[str], message: str, hint: str
) -> None:
    code, summary, err = in_process(three_views, capsys, args)
    assert code == 2
    assert (summary["status"], summary["views"]) == ("failed", [])
    assert message in summary["error"]["message"], summary["error"]
    assert hint in summary["error"]["hint"], summary["error"]
    assert message in err
    assert "Traceback" not in err
    assert not (three_views.path / ".fastserve" / "online").exists()
    assert three_views.offline_rows() == []


def in_process(
    repo: Repo, capsys: pytest.CaptureFixture[str], args: list[str]
) -> tuple[int, dict[str, Any], str]:
    """The command without a process of its own: starting one takes longer than the mistake."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--repo", str(repo.path), *args])
    out, err = capsys.readouterr()
    [line] = out.splitlines()
    return ended.value.code, json.loads(line), err  # type: ignore[return-value]


BAD_ROWS = [
    ({"user": None, "event_timestamp": T0}, "join key is null", "column 'user'"),
    ({"user": "a", "event_timestamp": None}, "event time is null", "column 'event_timestamp'"),
]


@pytest.mark.parametrize(("bad", "message", "column"), BAD_ROWS)
def test_a_bad_row_fails_its_view_only_and_leaves_no_trace(
    three_views: Repo, bad: dict[str, Any], message: str, column: str
) -> None:
    three_views.write([*rows(), bad], "../data2/a.parquet")
    code, summary, err = three_views.cli(*ARGS)
    assert code == 1
    broken, stats = summary["views"]
    assert (broken["status"], stats["status"], summary["status"]) == ("failed", "ok", "failed")
    assert message in broken["error"]["message"]
    assert column in broken["error"]["where"] and "row 10" in broken["error"]["where"]
    assert "error: view broken" in err and "Traceback" not in err
    assert three_views.offline_table("broken").num_rows == 0
    view_id = three_views.view("broken").view_id
    with three_views.registry() as registry:
        assert registry.intervals(view_id, "offline") == []
        assert registry.get_cursor(view_id, "online") is None
        assert message in registry.runs(view_id=view_id)[0].error


def test_a_view_being_run_exits_3(three_views: Repo) -> None:
    three_views.write(rows(), "../data2/a.parquet")
    with three_views.registry() as registry, registry.lock_view(three_views.view().view_id):
        code, summary, err = three_views.cli(*ARGS)
    assert code == 3
    assert [v["status"] for v in summary["views"]] == ["ok", "already_running"]
    assert f"pid {os.getpid()}" in err


def test_of_two_runs_at_once_one_does_the_work(repo: Repo) -> None:
    repo.write(rows(700))
    both = [repo.start(*ARGS), repo.start(*ARGS)]
    ended = [process.communicate(timeout=300) for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 3]), ended
    new = [json.loads(out)["totals"]["rows_offline_new"] for out, _ in ended]
    assert sorted(new) == [0, 700]
    assert len(repo.offline_rows()) == 700
    assert repo.read_online(["u4"], T0 + 30 * DAY)[0][1] == 699.0


def test_an_online_store_of_another_registry_is_refused(repo: Repo, tmp_path: Path) -> None:
    repo.write(rows())
    repo.materialize(T0 + DAY, incremental=True)
    other = Repo.make(tmp_path / "other", online=f"lmdb://{repo.path}/.fastserve/online?sync=off")
    other.write(rows())
    before = repo.online_rows()
    code, summary, _ = other.cli(*ARGS)
    assert code == 2
    assert "belongs to registry" in summary["error"]["message"]
    assert repo.online_rows() == before
    assert other.offline_rows() == []


def test_an_online_store_that_is_down_fails_only_online_views(tmp_path: Path) -> None:
    offline = stats_view("history", online=False)
    repo = Repo.make(tmp_path / "repo", stats_view(), offline, online="redis://127.0.0.1:1")
    repo.write(rows())
    code, summary, _ = repo.cli(*ARGS)
    assert code == 1
    assert [(v["view"], v["status"]) for v in summary["views"]] == [("history", "ok"), ("stats", "failed")]
    assert summary["views"][1]["error"]["code"] == "StoreUnavailableError"


def test_a_registry_that_cannot_be_read_exits_1(repo: Repo) -> None:
    (repo.path / ".fastserve" / "registry.db").write_bytes(b"no database at all" * 100)
    code, summary, err = repo.cli(*ARGS)
    assert code == 1
    assert summary["error"]["code"] == "RegistryError"
    assert "Traceback" not in err


# ---- beside the run ------------------------------------------------------------------------------


def test_the_store_can_be_read_throughout_a_run(repo: Repo) -> None:
    """No read fails or goes back in time while a run writes."""
    repo.write(rows(5))
    repo.materialize(T0 + DAY, incremental=True)
    repo.write(rows(700))
    keys = list(repo.online_rows())

    async def watch() -> int:
        store = open_store(repo.config.online_store, read_only=True)
        newest = dict.fromkeys(keys, 0)
        process = repo.start(*ARGS)
        reads = 0
        while process.poll() is None:
            found = store.get_many(keys)
            assert not isinstance(found, asyncio.Future)
            for key, held in zip(keys, found, strict=True):
                assert held is not None
                event = read_header(held)[1]
                assert event >= newest[key]
                newest[key] = event
            reads += 1
            await asyncio.sleep(0)
        _, err = process.communicate()
        await store.close()
        assert process.returncode == 0, err
        assert min(newest.values()) > T0 + 2 * DAY
        return reads

    assert asyncio.run(watch()) > 10


def test_a_run_of_files_loads_what_they_need(repo: Repo) -> None:
    """Cron starts it every few minutes: what queries, events, tasks and history need stays where it is."""
    repo.write(rows())
    args = ["run", "--repo", str(repo.path), *ARGS, "--target", "online"]
    code = f"""
import sys
from materializer.cli import main
try:
    main({args!r})
except SystemExit as ended:
    assert not ended.code
print(*sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    summary, loaded = done.stdout.splitlines()
    assert json.loads(summary)["totals"]["rows_online_written"] == 5
    parts = {
        part for name in loaded.split() for part in (name, ".".join(name.split(".")[:2]), name.split(".")[0])
    }
    others = {"pandas", "sqlglot", "deltalake", "duckdb", "alembic", "multiprocessing", "redis", "pyspark"}
    ours = {f"materializer.{name}" for name in ("pit", "windows", "joining", "training", "backfill", "tiles")}
    assert not parts & (others | ours)
    assert {"pyarrow.dataset", "sqlalchemy", "lmdb"} <= parts


def test_a_transform_may_use_pandas(repo: Repo) -> None:
    """The command itself does without: what Arrow makes of a Series is what it makes of it anywhere."""
    repo.write(rows())
    (repo.path / "features.py").write_text(BY_PANDAS)
    with FeatureStore(repo.path) as store:
        store.apply()
    code, summary, err = repo.cli(*ARGS, "--view", "visits", "--target", "online")
    assert (code, summary["totals"]["rows_online_written"]) == (0, 2), err
    found = repo.read_online(["a", "b"], T0 + 20 * DAY, "visits")
    assert found == [(True, 1.5), (True, None)]


BY_PANDAS = """
import pyarrow as pa
from fastserve import Entity, FileInput, Field, batch_feature_view

@batch_feature_view(inputs={"rows": FileInput("data/")}, entities=[Entity("user")], schema=[Field("n", "float64")])
def visits(rows, *, end):
    import pandas as pd

    day = pd.Series([pd.Timestamp("2013-01-02T00:00:00Z")] * 2)
    return pa.table({
        "user": pa.array(pd.Series(["a", "b"])), "event_timestamp": pa.array(day),
        "n": pa.array(pd.Series([1.5, float("nan")])),
    })
"""


def test_progress_is_for_terminals_and_goes_to_standard_error(repo: Repo) -> None:
    repo.write(rows())
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "materializer.cli", "run", "--repo", str(repo.path), *ARGS]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_end, text=True, env=env)
    out, _ = process.communicate(timeout=300)
    os.close(its_end)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "stats" in shown and "partitions" in shown
    assert len(out.splitlines()) == 1
