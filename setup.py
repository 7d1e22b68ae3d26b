"""Native modules only; everything else is in pyproject.toml.

FASTSERVE_DEBUG=1          -O0 -g and line tracing, as a debugger and Cython.Coverage want them (make debug)
FASTSERVE_SANITIZE=1       AddressSanitizer and UBSan, any finding ends the process (make sanitize)
FASTSERVE_SANITIZE=fuzzer  the same with the coverage that libFuzzer is guided by; needs CC=clang (make fuzz)
FASTSERVE_NO_EXTENSIONS=1  a pure-Python install: the twins and the `h2` library serve instead
libnghttp2 is optional: without its header the native HTTP/2 session is left out and `h2` takes its place.

Each kind has a folder of its own under build/, so that going from one to the other and back compiles nothing again.
The C of Cython is the same for all but the debug build, which has it beside the .pyx, where Cython.Coverage looks.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup

DEBUG = os.environ.get("FASTSERVE_DEBUG") == "1"
MACROS = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if DEBUG else []
SANITIZERS = {"1": "address,undefined", "fuzzer": "address,undefined,fuzzer-no-link"}
SANITIZE = SANITIZERS.get(os.environ.get("FASTSERVE_SANITIZE", ""))
CFLAGS = ["-O0", "-g"] if DEBUG else ["-O3", "-Wall", "-Wsign-compare"]
LDFLAGS = []
KIND = "debug" if DEBUG else "release"
if SANITIZE:
    KIND = "sanitize"
    CFLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    LDFLAGS = [f"-fsanitize={SANITIZE}"]


def has_nghttp2() -> bool:
    """Compile one line against libnghttp2: finds a missing header and a missing library alike."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <nghttp2/nghttp2.h>\nint main(void){return nghttp2_version(0)==0;}\n")
        command = [os.environ.get("CC", "cc"), str(source), "-lnghttp2", "-o", f"{folder}/probe"]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def extensions() -> list[Extension]:
    """One extension a concept: _ext/<name>.pyx becomes fastserve._native.<name>."""
    found = []
    paths = [(path, f"fastserve._native.{path.stem}") for path in sorted(Path("_ext").glob("*.pyx"))]
    if SANITIZE:
        paths.append((Path("tests/fuzz/tokens.pyx"), "tests.fuzz.tokens"))
    for path, name in paths:
        libraries = []
        if path.stem in ("h2", "h2_client"):
            if not has_nghttp2():
                print(
                    "fastserve: libnghttp2 was not found, so HTTP/2 will be served by the slower"
                    " `h2` library. For the native one: apt-get install libnghttp2-dev, then"
                    " reinstall.",
                    file=sys.stderr,
                )
                continue
            libraries = ["nghttp2"]
        found.append(
            Extension(
                name,
                [str(path)],
                include_dirs=["_ext"],
                define_macros=MACROS,
                extra_compile_args=CFLAGS,
                extra_link_args=LDFLAGS,
                libraries=libraries,
            )
        )
    return found


def modules() -> list[Extension]:
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        return []
    from Cython.Build import cythonize  # noqa: PLC0415  (a pure-Python install needs no Cython)

    return cythonize(
        extensions(),
        include_path=["_ext"],
        build_dir=None if DEBUG else "build/c",
        annotate=DEBUG,
        nthreads=os.cpu_count() or 1,
        force=DEBUG,  # other C may be there from before
        compiler_directives={"language_level": "3", "linetrace": DEBUG},
    )


setup(
    ext_modules=modules(),
    options={"build": {"build_base": f"build/{KIND}"}, "build_ext": {"parallel": os.cpu_count() or 1}},
)
