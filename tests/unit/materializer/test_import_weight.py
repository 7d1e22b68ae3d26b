"""Cron starts it every few minutes: the command must not load Arrow to say what it can do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = ("pyarrow", "numpy", "deltalake", "sqlalchemy", "redis", "lmdb", "uvloop", "rich.progress", "asyncio")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy modules a fresh interpreter holds after the code."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    return set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize("args", ["['--help']", "['run', '--help']"])
def test_help_is_light(args: str) -> None:
    code = f"from materializer.cli import main\ntry:\n    main({args})\nexcept SystemExit as e:\n    assert not e.code"
    assert loaded_after(code) == set()


def test_importing_the_command_is_light() -> None:
    assert loaded_after("import materializer.cli") == set()


def test_the_online_store_path_stays_clear_of_serving() -> None:
    script = "import materializer.run, sys; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    names = done.stdout.split()
    assert not [n for n in names if n.startswith(("fastserve.serving", "fastserve.http", "aiohttp"))]
