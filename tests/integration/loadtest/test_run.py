"""Load tests of a second: what is reported, and the exit codes. How fast it was is nobody's business here."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.data import ROOT, DataSet, tool_environ
from loadtest.servers import server

ENTITIES, FEATURES = 300, 10
NO_VERDICT = 3
PATIENT = ["--slo-ms", "15000", "--timeout-s", "20", "--warmup-s", "0.2"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo with its data in LMDB."""
    folder = tmp_path_factory.mktemp("load")
    data = DataSet(ENTITIES, FEATURES)
    data.write_repo(folder, "lmdb://.fastserve/online")
    data.load(folder)
    return folder


@pytest.fixture(scope="module")
def url(repo: Path) -> Iterator[str]:
    with server(repo) as (url, _):
        yield url


def command(url: str, *options: str) -> list[str]:
    data = ["--entities", str(ENTITIES), "--features", str(FEATURES)]
    return [sys.executable, "-m", "loadtest", "--host", url, "--seconds", "1", *data, *PATIENT, *options]


def run(words: list[str], folder: Path, verdict: bool = True) -> tuple[int, dict[str, Any], str]:
    """(exit code, report.json, what was printed); again while the machine is too busy to load anything (NO_VERDICT,
    or where there is never a verdict: nothing was asked)."""
    words = [*words, "--report-dir", str(folder)]
    for _ in range(10):
        done = subprocess.run(
            words, env=tool_environ(), cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert (folder / "report.json").exists(), done.stdout + done.stderr
        report = json.loads((folder / "report.json").read_text())
        if done.returncode != NO_VERDICT or (report["requests"] and not verdict):
            break
    return done.returncode, report, done.stdout + done.stderr


def test_an_open_loop_asks_for_everything_over_both_protocols(url: str, tmp_path: Path) -> None:
    mix = ["--format", "json,arrow,tensor", "--http", "2,1.1", "--batch", "1,7"]
    code, report, text = run(command(url, "--rate", "80", *mix), tmp_path)
    assert code == 0, text
    assert report["errors"] == {}
    assert report["ok"] == report["requests"] == sum(n for _, n in report["histogram_us"])
    assert len(report["variants"]) == 12
    assert all(one["ok"] > 0 and one["bytes"] > 0 for one in report["variants"])
    assert report["rate"]["asked"] == 80
    assert "SLO met" in text
    assert "SLO met" in (tmp_path / "report.html").read_text()


def test_evenly_spaced_arrivals_are_as_many_as_asked_for(url: str, tmp_path: Path) -> None:
    code, report, text = run(command(url, "--rate", "50", "--arrivals", "constant"), tmp_path)
    assert code == 0, text
    assert report["requests"] == 50


def test_a_closed_loop_waits_for_its_answers(url: str, tmp_path: Path) -> None:
    code, report, text = run(command(url, "--users", "2", "--batch", "5"), tmp_path, verdict=False)
    assert code in (0, NO_VERDICT), text  # two users without a pause may well be all that a core can do
    assert report["errors"] == {}
    assert report["ok"] > 0


def test_a_missed_slo_fails(url: str, tmp_path: Path) -> None:
    code, report, text = run(command(url, "--rate", "40", "--slo-ms", "0.001"), tmp_path)
    assert code == 1, text
    assert report["errors"] == {}
    assert "SLO missed" in text


def test_a_wrong_value_is_an_error(url: str, tmp_path: Path) -> None:
    code, report, text = run(
        command(url, "--rate", "30", "--seed", "2", "--format", "json,arrow,tensor"), tmp_path
    )
    assert code == 1, text
    assert set(report["errors"]) == {"wrong value"}
    assert report["ok"] == 0


def test_a_server_that_dies_is_counted(repo: Path, tmp_path: Path) -> None:
    with server(repo) as (url, pid):
        words = [*command(url, "--rate", "60"), "--seconds", "2", "--report-dir", str(tmp_path)]
        with subprocess.Popen(words, env=tool_environ(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as load:
            assert load.stdout is not None
            assert load.stdout.readline().startswith("asking")  # said when the first answers are in
            os.kill(pid, signal.SIGKILL)
            said = load.stdout.read()
        assert load.returncode == 1, said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["errors"]["unreachable"]["count"] > 0
    assert "unreachable" in said


@pytest.mark.parametrize(("seed", "rate", "code"), [("1", "0", 0), ("1", "40", 0), ("2", "40", 1)])
def test_locusts_own_command_runs_it(url: str, tmp_path: Path, seed: str, rate: str, code: int) -> None:
    words = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--host", url]
    words += ["-u", "2", "-r", "2", "-t", "4s", "--rate", rate, "--seed", seed, *PATIENT, "--json"]
    words += ["--entities", str(ENTITIES), "--features", str(FEATURES), "--batch", "3"]
    found, report, text = run(words, tmp_path, verdict=rate != "0")
    assert found in ((0, NO_VERDICT) if rate == "0" else (code,)), text
    assert report["ok"] + sum(e["count"] for e in report["errors"].values()) >= report["requests"] > 0
    assert bool(report["errors"]) == bool(code)


@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_it_brings_its_own_server(tmp_path: Path, store: str) -> None:
    words = [sys.executable, "-m", "loadtest", "--store", store, "--rate", "30", "--seconds", "1"]
    words += ["--entities", "500", "--features", "5", "--batch", "10", *PATIENT]
    code, report, text = run(words, tmp_path)
    assert code == 0, text
    assert report["server"]["CPU_us_per_request"] >= 0
    assert report["ok"] > 0


def test_a_terminated_run_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "loadtest", "--store", "redis", "--rate", "30", "--seconds", "600"]
    words += ["--entities", "500", "--features", "5", "--report-dir", str(tmp_path)]
    with subprocess.Popen(words, env=tool_environ(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        assert any(line.startswith("asking") for line in load.stdout)
        children = Path(f"/proc/{load.pid}/task/{load.pid}/children").read_text().split()
        assert len(children) == 3  # the store, the server, the engine
        opened = [os.pidfd_open(int(pid)) for pid in children]
        load.terminate()
        load.stdout.read()
    assert load.returncode == 143
    for fd in opened:
        assert select.select([fd], [], [], 20)[0], "a process was left behind"
        os.close(fd)


def test_a_mistake_in_the_command_is_told() -> None:
    words = [sys.executable, "-m", "loadtest", "--format", "yaml"]
    done = subprocess.run(words, env=tool_environ(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'yaml' is none of json, arrow, tensor" in done.stderr
