"""fastserve-client, built from deploy/client: it holds no server, needs none of its libraries, and works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.serving.test_serve_process import repo, serving

__all__ = ["repo"]  # the fixture
ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
wheel, url = sys.argv[1:]
sys.path.insert(0, wheel)
SERVER = set("numpy pyarrow sqlalchemy alembic click deltalake httptools lmdb redis rich uvloop".split())

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SERVER:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from fastserve.client import Client
import fastserve
assert fastserve.__file__.startswith(wheel), fastserve.__file__
for http in ("2", "1.1", "auto"):
    with Client(url, http=http) as client:
        found = client.get_online_features(service="ranking", entities={"user_id": [1, 9]})
        assert found.to_dict() == {"clicks": [10, None], "name": ["u1", None]}, found
        assert client.get_feature_view_row("stats", user_id=2).values == {"clicks": 20, "name": "u2"}
assert not SERVER & set(sys.modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from a copy of the tree without native modules."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "build")
    for name in ("fastserve", "_ext", "deploy/client"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "./deploy/client", "-w", "out"]
    env = {**os.environ, "FASTSERVE_NO_EXTENSIONS": "1"}
    done = subprocess.run(
        command, cwd=tree, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tree / "out").glob("fastserve_client-*.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tree / "wheel")
    return tree / "wheel"


def test_it_holds_the_client_and_what_that_stands_on(wheel: Path) -> None:
    parts = {path.name for path in (wheel / "fastserve").iterdir() if path.is_dir()}
    assert parts == {"_native", "client", "definitions"}
    missing = {p.name for p in (ROOT / "fastserve" / "client").glob("*.py")} - {
        p.name for p in (wheel / "fastserve" / "client").glob("*.py")
    }
    assert not missing and (wheel / "fastserve" / "py.typed").exists()


def test_it_works_where_no_library_of_the_server_is(wheel: Path, repo: Path) -> None:
    with serving(repo) as (port, _):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(wheel), f"http://127.0.0.1:{port}"],
            cwd=wheel,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
