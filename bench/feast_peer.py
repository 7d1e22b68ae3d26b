"""The real Feast as a peer: an environment of its own (FASTSERVE_FEAST_VENV; `make feast-conformance` makes one)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from bench.suite import FEAST

VENV: Final = FEAST.parents[1].absolute()
ENV: Final = {"FEAST_USAGE": "False", "PATH": f"{VENV}/bin:{os.environ['PATH']}"}


def is_there() -> bool:
    """Whether it is; where it is not, that is said."""
    if not FEAST.exists():
        print(f"left out, there is no {FEAST}: Feast's side")
    return FEAST.exists()


def apply(folder: Path) -> None:
    """`feast apply` in a repo.

    Raises:
        SystemExit: it failed; with what it said.
    """
    _run([f"{VENV}/bin/feast", "apply"], folder)


def python(script: str, folder: Path, *arguments: str) -> str:
    """Run a script with Feast's Python in a repo; what it prints.

    Raises:
        SystemExit: it failed; with what it said.
    """
    return _run([f"{VENV}/bin/python", "-c", script, *arguments], folder)


def versions() -> dict[str, str]:
    """For the results' stamp."""
    shown = subprocess.run([f"{VENV}/bin/pip", "show", "feast"], capture_output=True, text=True, check=True)
    return {"feast": shown.stdout.splitlines()[1].split()[1]}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | ENV, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[:2]}: {done.stderr}")
    return done.stdout
