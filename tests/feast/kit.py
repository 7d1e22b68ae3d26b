"""Imported repos behind real servers, and a Feast in an environment of its own."""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path
from typing import Any

from fastserve import FeatureStore
from fastserve.feast_import.importer import write_repo
from tests.feast.data import NOW, write_data

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "feast"
RECORDED = FIXTURES / "requests.jsonl"
REPOS = ("rides", "odd")


def recorded() -> list[dict[str, Any]]:
    """Every recorded line: {repo, request, answer}."""
    return [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def dump_of(name: str) -> dict[str, Any]:
    """The recorded dump of a repo."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.dump.json").read_text(encoding="utf-8"))
    return found


def make_feast_repo(folder: Path, name: str) -> Path:
    """A copy of a test repo, with its data."""
    repo = folder / name
    shutil.copytree(HERE / "repos" / name, repo)
    write_data(repo, name)
    return repo


def import_recorded(folder: Path, name: str) -> Path:
    """A fastserve repo from the recorded dump of a test repo: applied and materialized. No Feast is needed."""
    target = folder / f"{name}-fastserve"
    write_repo(dump_of(name), make_feast_repo(folder, name), target)
    fill(target)
    return target


def fill(repo: Path, now: str | None = None) -> None:
    """Apply and materialize."""
    with FeatureStore(repo) as store:
        store.apply()
        store.materialize_incremental(now=now or NOW)


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, parsed body)."""
        self._connection.request("POST", path, json.dumps(body).encode())
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()
