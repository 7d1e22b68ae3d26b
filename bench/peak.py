"""The most memory a process has held: VmHWM, since ru_maxrss begins with what its parent held.

python -m bench.peak NOTE MODULE ARGUMENT…    run a module as `python -m` does; its peak in bytes goes to the file NOTE
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main(note: str, module: str, *arguments: str) -> None:
    """See the module's docstring."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(note).write_text(str(resident("VmHWM")))


if __name__ == "__main__":
    main(*sys.argv[1:])
