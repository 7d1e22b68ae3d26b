"""The fraud example runs to its end from a fresh copy, and what it serves is verified."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT


def test_fraud(tmp_path: Path) -> None:
    repo = tmp_path / "fraud"
    shutil.copytree(
        ROOT / "examples" / "fraud", repo, ignore=shutil.ignore_patterns(".*", "data", "__pycache__")
    )
    words = [sys.executable, "demo.py", "--cards", "60", "--payments", "40"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=repo, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    declined = re.search(r"^live: (\d+) of 5 frauds declined, and (\d+) of 35 others$", done.stdout, re.M)
    assert declined and int(declined[1]) >= 2 and int(declined[2]) <= 3, done.stdout
    tails = re.findall(r"^(40 reads|decisions).*: p50 [\d.]+ ms, p99 [\d.]+ ms$", done.stdout, re.M)
    assert tails == ["40 reads", "decisions"], done.stdout
    assert re.search(r"^equal: \d+ rows of answers, [\d,]+ values", done.stdout, re.M), done.stdout
    assert re.findall(r"stopped with exit code (\d+)", done.stdout) == ["0", "0"]
