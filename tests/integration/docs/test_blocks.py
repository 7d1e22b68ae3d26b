"""Every code block of the docs, the README included, does what it says.

The `sh` and `python` blocks of a page are one script, run from top to bottom in an empty folder; `json` blocks must be
JSON, one document a block or a line, and `toml` blocks TOML. `text` blocks are not code.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"sh", "python", "json", "toml", "text"}


def blocks(page: Path, *kinds: str) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks, in order."""
    found = BLOCK.findall(page.read_text())
    return [(kind, text) for kind, text in found if not kinds or kind in kinds]


def script(page: Path) -> str:
    """A page as a bash script that stops at the first failure and ends what it started."""
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
    for kind, text in blocks(page, "sh", "python"):
        parts.append(text if kind == "sh" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK")
    # In one go: a free port may itself read like one of those that are replaced.
    ports = {"6566": str(free_port()), "6567": str(free_port())}
    return re.sub("|".join(ports), lambda found: ports[found[0]], "\n".join(parts))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fastserve`, `materializer` and `python` of this environment, whether installed or not."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (
        ("fastserve", "fastserve.cli.main"),
        ("materializer", "materializer.cli"),
        ("python", ""),
    ):
        run = f'-m {module} "$@"' if module else '"$@"'
        (folder / name).write_text(f"#!/bin/sh\nexec {sys.executable} {run}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_blocks_are_of_a_known_kind(page: Path) -> None:
    assert {kind for kind, _ in blocks(page)} <= KINDS


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_data_blocks_parse(page: Path) -> None:
    for kind, text in blocks(page, "json", "toml"):
        if kind == "toml":
            tomllib.loads(text)
            continue
        try:
            json.loads(text)
        except json.JSONDecodeError:
            for line in text.splitlines():
                json.loads(line)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh", "python")], ids=lambda page: page.name)
def test_pages_run(page: Path, tools: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script(page)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
