"""Which HTTP/2 session is taken, and what importing the seam costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def python(code, **environ):
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_no_extensions_takes_the_twin():
    code = "from fastserve.http.h2 import Session; print(Session.__module__)"
    assert python(code, FASTSERVE_NO_EXTENSIONS="1") == "fastserve.http.h2_py"


def test_native_is_the_default():
    pytest.importorskip("fastserve._native.h2", reason="libnghttp2 is missing, or a pure install")
    code = "from fastserve.http.h2 import Session; print(Session.__module__)"
    assert python(code, FASTSERVE_NO_EXTENSIONS="0") == "fastserve._native.h2"


def test_the_seam_imports_no_server():
    code = (
        "import sys, fastserve.http.message;"
        "print([m for m in ('asyncio', 'h2', 'httptools', 'uvloop', 'ssl') if m in sys.modules])"
    )
    assert python(code) == "[]"
