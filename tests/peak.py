"""Run a module as `python -m` does and note its peak memory: `python -m tests.peak NOTE MODULE ARGUMENT…`.

VmHWM, not ru_maxrss: the latter begins with what the process held that started it, before it was this program.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most that this process has held, bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main(note: str, module: str, *arguments: str) -> None:
    """Run it; NOTE is written however it ends."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(note).write_text(str(peak_bytes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
