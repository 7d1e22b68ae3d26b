"""Run libFuzzer, see `make fuzz`:  python -m tests.fuzz [--keep] [--seconds 60 | --runs 1000000] [target …]

Each target begins with the kept corpus. With --keep what it found is minimised and becomes the kept corpus. An input
that something was wrong with is left in build/fuzz/, and its path printed; `python -m tests.fuzz TARGET --replay PATH`
runs it again, under the same sanitizers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

BUILD = Path("build/fuzz").absolute()
MAX_LEN = {
    "tokens": 512,
    "resp": 200,
    "h2_server": 256,
    "h2_client": 256,
    "rows": 800,
    "answers": 600,
    "tiles": 700,
}
MAX_LEN_OF_OTHERS = 400


def environment(target: str) -> dict[str, str]:
    """What driver.c and the sanitizers want to know."""
    return os.environ | {
        "FASTSERVE_FUZZ_TARGET": target,
        "FASTSERVE_FUZZ_NATIVES": str(BUILD / "natives"),
        "FASTSERVE_FUZZ_PYTHON": sys.executable,
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONMALLOC": "malloc"
        if target in ("rows", "answers", "shapes", "tiles")
        else "pymalloc",  # malloc: what bytes objects hold is watched too
        "PYTHONHASHSEED": "0",
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=2:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def fuzz(target: str, *arguments: str) -> str:
    """libFuzzer's words; they are shown as they come."""
    command = [
        str(BUILD / "driver"),
        f"-max_len={MAX_LEN.get(target, MAX_LEN_OF_OTHERS)}",
        "-timeout=20",
        "-rss_limit_mb=3000",
    ]
    command += ["-print_final_stats=1", f"-artifact_prefix={BUILD}/{target}-", *arguments]
    process = subprocess.Popen(command, env=environment(target), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if not line.startswith("#") or "pulse" in line or "DONE" in line:
            print(line, end="", flush=True)
    if process.wait():
        raise SystemExit(f"{target}: something is wrong, see above")
    return "".join(said)


def run(target: str, limit: list[str], keep: bool) -> str:
    folder = BUILD / "corpus" / target
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    corpus.unpack(target, folder)
    words = fuzz(target, *limit, str(folder))
    if keep:
        minimise(target, folder)
    executed = re.findall(r"stat::number_of_executed_units: (\d+)", words)
    edges = re.findall(r"cov: (\d+)", words)
    of = sum(int(n) for n in re.findall(r"Loaded \d+ modules? +\((\d+) inline", words)[:1])
    loaded = re.findall(r"\((\d+) inline 8-bit counters\)", words)
    return f"{target}: {executed[-1]} inputs, {edges[-1]} of {of or loaded[-1]} edges, nothing wrong"


def minimise(target: str, folder: Path) -> None:
    small = folder.with_name(f"{target}.small")
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    fuzz(target, "-merge=1", str(small), str(folder))
    n = corpus.pack(target, small)
    size = sum(path.stat().st_size for path in small.iterdir())
    print(f"{target}: {n} inputs of {size} bytes are kept")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--runs", type=int, help="inputs for each target, instead of a time")
    parser.add_argument("--keep", action="store_true", help="minimise what was found, and keep it")
    parser.add_argument("--replay", help="one input again")
    given = parser.parse_args()
    if given.replay:
        fuzz(given.targets[0], given.replay)
        return
    limit = [f"-runs={given.runs}"] if given.runs else [f"-max_total_time={given.seconds}"]
    print("\n" + "\n".join([run(target, limit, given.keep) for target in given.targets]))


if __name__ == "__main__":
    main()
