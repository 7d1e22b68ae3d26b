"""Record what Feast answers:  FASTSERVE_FEAST_VENV=.venv-feast python -m tests.feast.record

Writes tests/fixtures/feast: the dumps of the test repos and of the quick start, and every request with Feast's answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from fastserve.feast_import.importer import read_feast
from tests.feast.cases import requests
from tests.feast.data import NOW
from tests.feast.kit import FIXTURES, HERE, RECORDED, REPOS, make_feast_repo

WORKER = HERE / "worker.py"


def interpreter() -> Path | None:
    """The Python that has Feast, by FASTSERVE_FEAST_VENV; None without one."""
    folder = os.environ.get("FASTSERVE_FEAST_VENV")
    path = Path(os.path.abspath(folder)) / "bin" / "python" if folder else None
    return path if path is not None and path.exists() else None


def run_worker(python: Path, *args: str | Path) -> None:
    """Run the worker; its errors are ours."""
    done = subprocess.run(
        [python, WORKER, *args], capture_output=True, text=True, check=False, timeout=300, env=quiet()
    )
    assert done.returncode == 0, done.stderr


def quiet() -> dict[str, str]:
    """An environment in which Feast neither finds our modules nor reports its use."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"FEAST_USAGE": "False"}


def ask(python: Path, repo: Path, asked: list[dict[str, Any]], url: str = "") -> list[dict[str, Any]]:
    """The answers of Feast itself, or of its SDK with the server at `url` as online store."""
    source, target = repo.parent / "asked.jsonl", repo.parent / "answers.jsonl"
    source.write_text("".join(json.dumps(each) + "\n" for each in asked))
    run_worker(python, "ask", repo, source, target, *([url] if url else []))
    return [json.loads(line) for line in target.read_text().splitlines()]


def main() -> None:
    """Entry point."""
    python = interpreter()
    assert python is not None, "set FASTSERVE_FEAST_VENV"
    asked = requests()
    lines: list[dict[str, Any]] = [{"repo": repo, "request": request} for repo, request in asked]
    FIXTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in REPOS:
            repo = make_feast_repo(Path(folder), name)
            write_dump(name, read_feast(repo, str(python)))
            run_worker(python, "prepare", repo, NOW.isoformat())
            mine = [line for line in lines if line["repo"] == name]
            for line, found in zip(mine, ask(python, repo, [each["request"] for each in mine]), strict=True):
                line["answer"] = found["answer"]
        write_dump("quick_start", read_feast(init_quick_start(python, Path(folder)), str(python)))
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    RECORDED.write_text(text, encoding="utf-8")


def init_quick_start(python: Path, folder: Path) -> Path:
    """What `feast init` writes."""
    subprocess.run(
        [python.parent / "feast", "init", "quick_start"],
        cwd=folder,
        check=True,
        capture_output=True,
        env=quiet(),
    )
    return folder / "quick_start" / "feature_repo"


def write_dump(name: str, dump: dict[str, Any]) -> None:
    """A dump, as it is recorded."""
    path = FIXTURES / f"{name}.dump.json"
    path.write_text(json.dumps(dump, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
