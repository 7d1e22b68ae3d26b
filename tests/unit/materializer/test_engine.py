"""Tasks in this process and in others: results, errors, an end on request, workers that die. Spark's: tests/spark."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fastserve.config import Config
from fastserve.errors import ConfigError, InvalidDataError, MaterializeError, RequestError
from materializer.engine import Engine, open_engine, run_tasks
from materializer.engine.processes import Inline, Processes
from materializer.engine.reach import Use, check_reach
from materializer.stop import Stop, Stopped
from tests.spark.tasks import fails, kept_by, killed_always, killed_once, squared, waits_for_stop

CONFIG = Config(Path("/nowhere"), "test")
ALL: list[Use] = ["registry", "online", "offline"]


@pytest.fixture(params=["inline", "processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Inline(Stop()) if request.param == "inline" else Processes(2)


def test_each_task_comes_with_its_result_and_is_told_of_before(engine: Engine) -> None:
    told: list[int] = []
    with engine:
        found = []
        for task, result in run_tasks(engine, squared, range(7), Stop(), taken=told.append):
            assert task in told
            found.append((task, result))
    assert sorted(found) == [(n, n * n) for n in range(7)]
    assert told == list(range(7))


def test_what_a_task_raises_comes_back_as_itself(engine: Engine) -> None:
    with engine, pytest.raises(InvalidDataError, match="task 1 is bad") as caught:
        list(run_tasks(engine, fails, [1], Stop()))
    assert (caught.value.where, caught.value.hint) == ("column 'a'", "mend it")


def test_a_process_keeps_what_it_made_until_it_is_for_something_else(tmp_path: Path) -> None:
    with Inline(Stop()) as engine:
        list(run_tasks(engine, partial(kept_by, tmp_path), ["a", "a", "b"], Stop()))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0-left", "b-1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0-left", "b-1-left"]


def test_a_stop_is_heard_here_and_by_tasks_in_this_process(tmp_path: Path) -> None:
    stop = Stop()
    with Inline(stop) as engine:
        stop.signum = signal.SIGTERM
        with pytest.raises(Stopped):
            list(run_tasks(engine, waits_for_stop, [tmp_path / "a"], stop))
        assert isinstance(engine.submit(waits_for_stop, tmp_path / "a").exception(), Stopped)


def test_a_stop_ends_tasks_in_other_processes(tmp_path: Path) -> None:
    class WhenBegun(Stop):
        def check(self) -> None:
            self.signum = signal.SIGTERM if len(list(tmp_path.iterdir())) == 2 else 0
            super().check()

    with Processes(2) as engine, pytest.raises(Stopped):
        list(run_tasks(engine, waits_for_stop, [tmp_path / name for name in "abc"], WhenBegun()))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_tasks_of_a_dead_worker_are_done_again(tmp_path: Path) -> None:
    with Processes(2) as engine:
        found = dict(run_tasks(engine, partial(killed_once, tmp_path), range(4), Stop()))
    assert found == {n: n for n in range(4)}


def test_workers_that_die_again_and_again_are_given_up(tmp_path: Path) -> None:
    with Processes(2) as engine, pytest.raises(MaterializeError, match="workers died 3 times") as caught:
        list(run_tasks(engine, killed_always, range(4), Stop(), where="view stats"))
    assert caught.value.where == "view stats"
    assert "--workers" in caught.value.hint


def test_an_engine_is_local_or_spark() -> None:
    with pytest.raises(RequestError, match="no engine 'dask'"):
        open_engine(CONFIG, Stop(), engine="dask")
    with pytest.raises(RequestError, match="only Spark has a master"):
        open_engine(CONFIG, Stop(), master="local[2]")


def test_without_pyspark_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match="pyspark is not installed") as caught:
        open_engine(CONFIG, Stop(), engine="spark")
    assert "pip install 'fastserve[spark]'" in caught.value.hint


@pytest.mark.parametrize(
    ("stores", "told"),
    [
        ({"online_store": "lmdb:///data/online"}, "online_store: lmdb:// is a file of this machine"),
        ({"online_store": "unix:///run/redis"}, "online_store: unix:// is a file of this machine"),
        ({"online_store": "redis://localhost:6379"}, "online_store: localhost is this machine"),
        ({"online_store": "memory://"}, "online_store: memory:// is in one process"),
        ({"registry": "sqlite:////data/registry.db"}, "registry: sqlite:// is a file of this machine"),
        ({"registry": "postgresql+psycopg://u:p@127.0.0.1/db"}, "registry: 127.0.0.1 is this machine"),
        ({}, ""),
    ],
)
def test_workers_elsewhere_need_stores_that_they_reach(stores: dict[str, str], told: str) -> None:
    servers = {
        "online_store": "redis://cache:6379",
        "registry": "postgresql://db/fs",
        "offline_store": "s3://b/o",
    }
    config = replace(CONFIG, **{**servers, **stores})
    if not told:
        check_reach(config, ALL, "spark://far:7077")
        return
    for master in ("spark://far:7077", "yarn", "k8s://https://far:443"):
        with pytest.raises(ConfigError) as caught:
            check_reach(config, ALL, master)
        assert str(caught.value).startswith(told)
    with pytest.raises(ConfigError, match=told.partition(":")[0]):  # before Spark is started, or even there
        open_engine(config, Stop(), engine="spark", master="spark://far:7077", uses=ALL)
    if "memory" not in told:
        for master in ("local", "local[2]", "local-cluster[2,1,1024]", "spark://localhost:7077"):
            check_reach(config, ALL, master)
    check_reach(config, ["offline"], "yarn")


def test_a_directory_may_be_mounted_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(
        CONFIG, online_store="redis://cache", registry="postgresql://db/fs", offline_store="/mnt/o"
    )
    check_reach(config, ALL, "yarn")
    assert "offline_store /mnt/o is a path" in caplog.text
