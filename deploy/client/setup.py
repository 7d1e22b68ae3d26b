"""Build fastserve-client from the tree it stands in: the files the client needs, copied, and its one native module.

The copy keeps one source of truth, and lets the client be packaged by itself:
    pip wheel --no-deps ./deploy/client
Without libnghttp2, or with FASTSERVE_NO_EXTENSIONS=1, it is pure Python on the h2 library.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = HERE / "build" / "src"
FILES = [
    "fastserve/__init__.py",
    "fastserve/display.py",
    "fastserve/errors.py",
    "fastserve/py.typed",
    "fastserve/timeutil.py",
    "fastserve/types.py",
    "fastserve/version.py",
    "fastserve/_native/__init__.py",
    "fastserve/_native/h2_client.pyi",
    "fastserve/client/*.py",
    "fastserve/definitions/*.py",
    "_ext/h2_client.pyx",
    "_ext/*.pxd",
]


def copy() -> None:
    shutil.rmtree(SOURCE, ignore_errors=True)
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            target = SOURCE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def has_nghttp2() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <nghttp2/nghttp2.h>\nint main(void){return nghttp2_version(0)==0;}\n")
        command = [os.environ.get("CC", "cc"), str(source), "-lnghttp2", "-o", f"{folder}/probe"]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def modules() -> list[Extension]:
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1" or not has_nghttp2():
        return []
    from Cython.Build import cythonize  # noqa: PLC0415  (a pure-Python build needs no Cython)

    source = "build/src/_ext/h2_client.pyx"
    extension = Extension("fastserve._native.h2_client", [source], libraries=["nghttp2"])
    return cythonize(
        [extension], include_path=["build/src/_ext"], compiler_directives={"language_level": "3"}
    )


if ROOT.joinpath("_ext", "h2_client.pyx").exists():
    copy()
setup(ext_modules=modules())
