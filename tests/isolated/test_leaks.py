"""Nothing is left behind by 100,000 iterations of what the native modules do, also of what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import start_redis

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = sorted(path.stem for path in HERE.glob("leak_*.py"))

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1", reason="a pure-Python install"
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_left_behind(script: str, tmp_path: Path) -> None:
    pytest.importorskip(f"tests.isolated.{script}", reason="libnghttp2 missing")
    redis = start_redis(tmp_path) if script == "leak_redis" else None
    try:
        done = run("-m", f"tests.isolated.{script}", *([redis.url] if redis else []))
    finally:
        if redis:
            redis.stop()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


LEAKS = {
    "blocks": "kept = []\ndef once(i): kept.append(str(i) + 'x')",
    "containers": "kept = {}\ndef once(i): kept[i % 500] = kept.setdefault(i, [])",
    "malloc_bytes": "import ctypes\nmalloc = ctypes.CDLL(None).malloc\ndef once(i): malloc(8)",
}


@pytest.mark.parametrize("what", LEAKS)
def test_the_meter_sees_a_few_bytes_of_each_iteration(what: str) -> None:
    code = f"from tests.isolated.meter import run\n{LEAKS[what]}\nrun(once)"
    done = run("-c", code, FASTSERVE_LEAK_ITERATIONS="20000")
    assert done.returncode == 1 and f"{what}: " in done.stderr


def test_each_native_module_has_a_script() -> None:
    """A new one fails here until tests/isolated has a leak_<name>.py whose NATIVES name it."""
    modules = [
        pytest.importorskip(f"tests.isolated.{script}", reason="libnghttp2 missing") for script in SCRIPTS
    ]
    covered = {name for module in modules for name in module.NATIVES}
    assert covered == {path.stem for path in (ROOT / "_ext").glob("*.pyx")}
