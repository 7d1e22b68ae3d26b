"""Tasks on a real Spark cluster: results, errors, an end on request, an executor that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastserve.config import Config
from fastserve.errors import ConfigError, InvalidDataError, MaterializeError
from materializer.engine import Engine, open_engine, run_tasks
from materializer.stop import Stop, Stopped
from tests.spark.conftest import MASTER
from tests.spark.tasks import divides, fails, fails_oddly, held_once, killed_always, squared, waits_for_stop

CONFIG = Config(Path("/nowhere"), "test")


def spark(**options: Any) -> Engine:
    return open_engine(CONFIG, Stop(), engine="spark", **options)


def test_each_task_comes_with_its_result_and_the_session_stays(cluster: Any) -> None:
    for _ in range(2):
        with spark(workers=3) as engine:
            assert sorted(run_tasks(engine, squared, range(6), Stop())) == [(n, n * n) for n in range(6)]
    assert cluster.parallelize([1, 2]).sum() == 3


def test_the_slots_are_the_cores_of_the_cluster(cluster: Any) -> None:
    with spark() as engine:
        assert engine.slots == cluster.defaultParallelism == 2
    with spark(workers=7) as engine:
        assert engine.slots == 7


def test_errors_come_back_as_themselves_and_say_where_they_were(cluster: Any) -> None:
    with spark() as engine:
        with pytest.raises(InvalidDataError, match="task 1 is bad") as caught:
            list(run_tasks(engine, fails, [1], Stop()))
        assert (caught.value.where, caught.value.hint) == ("column 'a'", "mend it")
        with pytest.raises(ZeroDivisionError) as other:
            list(run_tasks(engine, divides, [0], Stop()))
        assert "in a Spark worker" in other.value.__notes__[0]
        assert "in divides" in other.value.__notes__[0]
        with pytest.raises(RuntimeError, match="_Odd: odd one"):
            list(run_tasks(engine, fails_oddly, [0], Stop()))


def test_a_stop_ends_the_tasks(cluster: Any, tmp_path: Path) -> None:
    class WhenBegun(Stop):
        def check(self) -> None:
            self.signum = signal.SIGTERM if len(pids()) == 2 else 0
            super().check()

    def pids() -> list[str]:
        return [text for path in tmp_path.iterdir() if (text := path.read_text())]

    with spark() as engine, pytest.raises(Stopped):
        list(run_tasks(engine, waits_for_stop, [tmp_path / name for name in "abc"], WhenBegun()))
    assert len(pids()) == 2
    ended = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids()):
        assert time.monotonic() < ended, "workers go on after the tasks were cancelled"
        time.sleep(0.01)
    with spark() as engine:
        assert dict(run_tasks(engine, squared, [3], Stop())) == {3: 9}


def test_the_task_of_a_killed_executor_is_done_by_another(cluster: Any, tmp_path: Path) -> None:
    def kill() -> None:
        while not (told := tmp_path / "executor").exists():
            time.sleep(0.005)
        pid = int(told.read_text())
        assert b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with spark() as engine:
        found = dict(run_tasks(engine, partial(held_once, tmp_path), range(6), Stop()))
    killer.join()
    assert found == {n: n for n in range(6)}


def test_a_task_that_kills_its_worker_each_time_is_given_up(cluster: Any) -> None:
    with spark() as engine, pytest.raises(MaterializeError, match="a worker died") as caught:
        list(run_tasks(engine, killed_always, [1], Stop(), where="view stats"))
    assert caught.value.where == "view stats"
    assert "spark.executor.memoryOverhead" in caught.value.hint


def test_a_worker_without_fastserve_says_so(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setattr(cluster, "pythonExec", str(tmp_path / "bare/bin/python"))
    monkeypatch.setattr(cluster, "environment", {})
    with spark() as engine, pytest.raises(ConfigError, match="cannot import what the task needs") as caught:
        list(run_tasks(engine, squared, [1], Stop()))
    assert "No module named 'tests'" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "install this version of fastserve" in caught.value.hint


def test_a_python_that_is_not_there_is_named(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "pythonExec", "/no/such/python")
    with spark() as engine, pytest.raises(MaterializeError, match="Spark gave a task up") as caught:
        list(run_tasks(engine, squared, [1], Stop()))
    assert "/no/such/python" in caught.value.message
    assert len(str(caught.value)) < 1000


def test_another_master_than_the_active_one_is_refused(cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"a Spark session on local-cluster\[2,1,1024\] is active"):
        spark(master="local[2]")
    with spark(master=MASTER) as engine:
        assert dict(run_tasks(engine, squared, [2], Stop())) == {2: 4}
