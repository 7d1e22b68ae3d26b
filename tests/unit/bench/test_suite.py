"""Running the suite, and the pages made of what it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import render
from bench.__main__ import main, run
from bench.measure import Figure
from bench.processes import children, cpu_s, holder
from bench.record import Table, Target, save
from bench.suite import Bench


def test_a_bench_that_fails_is_told_of() -> None:
    assert run(Bench("no_such_bench", "nothing", 1), smoke=True).startswith("failed with status 1 after")


def test_a_bench_without_its_peer_is_left_out() -> None:
    bench = Bench("kernels", "nothing", 1, needs=Path("no/such/file"))
    assert run(bench, smoke=True) == "left out, there is no no/such/file"


def test_an_unknown_name_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zipf", "no_such_bench"]) == 2
    assert "no such bench: no_such_bench; there are kernels," in capsys.readouterr().out


def test_results_become_a_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    monkeypatch.setattr("bench.record.RESULTS", tmp_path)
    page = "text\n<!-- bench:kernels -->\nold\n<!-- end -->\n<!-- aims -->\n<!-- end -->\nmore\n"
    assert "Not measured yet: `python -m bench.kernels`." in render.rendered(page)
    table = Table("systems", {"p99_us": ""})
    table.add("ours", p99_us=Figure((3.0, np.float64(1.0), 2.0)))
    save(
        "kernels", "Kernels", [table], targets=[Target("p99", 2.0, at_most=1.0, reach=0.5)], notes=["A note."]
    )
    made = render.rendered(page)
    assert "| ours | 2 (3) |" in made and "- A note." in made and "old" not in made
    assert made.count("| p99 | ≤ 1 | 0.5 | 2 | **missed** |") == 2  # at the bench, and among all aims
    assert made.startswith("text\n") and made.endswith("more\n")
    assert render.rendered(made) == made


def test_a_smoke_test_keeps_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.record.RESULTS", tmp_path)
    monkeypatch.setattr("bench.record.SMOKE", True)
    save("kernels", "Kernels", [Table("systems", {})])
    assert not list(tmp_path.iterdir())


def test_cpu_and_connections_of_another_process() -> None:
    code = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "sum(range(3_000_000))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "accepted = server.accept()\n"
        "print('accepted', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        import socket

        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            process.stdout.readline()
            ours = client.getsockname()[1]
            assert holder(port, ours, [os.getpid(), process.pid]) == process.pid
            assert holder(port, ours + 1, [process.pid]) == 0
        assert process.pid in children(os.getpid())
        assert 0.01 < cpu_s(process.pid) < 60
        process.stdin.close()
