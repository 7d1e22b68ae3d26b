"""The tree itself: sizes, exports, import weight, layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastserve

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fastserve", "materializer", "loadtest", "bench")


def python_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def test_files_stay_readable() -> None:
    sources = [*python_files(), *(ROOT / "_ext").glob("*.pyx")]
    long = {str(p.relative_to(ROOT)): n for p in sources if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_functions_stay_readable() -> None:
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > 40:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert not long


def test_two_modules_know_spark() -> None:
    """import-linter would have to be told of all external packages, and takes native modules for their package then."""
    knowing = {path.relative_to(ROOT) for path in python_files() if "from pyspark" in path.read_text()}
    assert knowing == {Path("materializer/engine/spark.py"), Path("materializer/streams/source.py")}


def test_exports_are_sorted_and_complete() -> None:
    assert fastserve.__all__ == sorted(fastserve.__all__)
    for name in fastserve.__all__:
        assert hasattr(fastserve, name), name


def loaded_by(statement: str) -> set[str]:
    """Top-level modules and subpackages in memory after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import fastserve", {"pyarrow", "numpy", "sqlalchemy", "uvloop", "redis", "deltalake"}),
        ("import fastserve.cli.main", {"pyarrow", "numpy", "sqlalchemy", "uvloop", "redis", "deltalake"}),
        (
            "from fastserve.online import open_store; open_store('redis://')",
            {"redis", "pyarrow", "sqlalchemy"},
        ),
        ("import fastserve.client", {"asyncio", "ssl", "orjson", "numpy", "pyarrow", "aiohttp", "h2"}),
        (
            "from fastserve.client import AsyncClient, Client; Client().close()",
            {
                "numpy",
                "pyarrow",
                "pandas",
                "polars",
                "aiohttp",
                "h2",
                "sqlalchemy",
                "uvloop",
                "fastserve.serving",
            },
        ),
        ("import materializer.cli", {"pyarrow", "sqlalchemy", "deltalake", "redis", "aiohttp"}),
        ("import materializer.engine", {"pyspark", "pyarrow", "numpy"}),
        ("import materializer.run", {"fastserve.serving", "fastserve.http", "fastserve.api", "aiohttp"}),
        (
            "import fastserve.app",
            {"materializer", "deltalake", "pandas", "polars", "alembic", "pyarrow.parquet"},
        ),
    ],
)
def test_imports_stay_light(statement: str, unwanted: set[str]) -> None:
    assert not loaded_by(statement) & unwanted


def test_no_generated_c_is_tracked() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "_ext"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.split()
    assert not [name for name in tracked if name.endswith((".c", ".html", ".so"))]
