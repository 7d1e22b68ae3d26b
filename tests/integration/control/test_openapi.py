"""Both planes say in OpenAPI what they do, and do what they say: schemathesis asks real servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastserve.app import App, ServeOptions
from fastserve.config import Config
from fastserve.control.app import make_app
from fastserve.control.plane import ControlPlane
from tests.integration.control.conftest import ROOT, Plane, make_repo, running


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    methods = ("get", "post", "put", "delete", "patch")
    return {(m.upper(), path) for path, item in document["paths"].items() for m in item if m in methods}


def checked_in(package: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "fastserve" / package / "openapi.json").read_text())
    assert found["openapi"].startswith("3.1")
    return found


async def test_every_route_of_the_control_plane_is_in_its_document(repo: Path) -> None:
    plane = ControlPlane(Config.from_repo(repo), max_jobs=0)
    routes = make_app(plane).router.routes()
    found = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    assert {one for one in found if one[0] != "HEAD"} == operations(checked_in("control"))
    await plane.close()


async def test_every_route_of_the_data_plane_is_in_its_document(repo: Path) -> None:
    app = App(ServeOptions(repo=str(repo)))
    found = {(method, path) for path, method in app.server.handler.table.items()}  # type: ignore[attr-defined]
    assert found == operations(checked_in("api"))
    await app.stop()


async def test_the_documents_are_served(plane: Plane, repo: Path) -> None:
    assert plane.ask("GET", "/openapi.json") == (200, checked_in("control"))
    with running(repo, "serve") as serving:
        status, found = await asyncio.to_thread(serving.ask, "GET", "/openapi.json")
        assert (status, found) == (200, checked_in("api"))


@pytest.mark.parametrize(
    ("command", "options"), [("control", ("--max-jobs", "0")), ("serve", ())], ids=["control", "data"]
)
def test_schemathesis_finds_nothing(tmp_path: Path, command: str, options: tuple[str, ...]) -> None:
    with running(make_repo(tmp_path / "repo"), command, *options) as plane:
        words = [sys.executable, "-m", "schemathesis.cli"]
        words += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
        words += ["run", f"http://127.0.0.1:{plane.port}/openapi.json", "--max-examples", "3", "--no-color"]
        words += ["--seed", "1"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-6_000:]
        assert plane.process.poll() is None
        log = (tmp_path / "repo" / f"{command}.log").read_text()
    assert "Traceback" not in log
