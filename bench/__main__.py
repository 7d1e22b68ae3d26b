"""Run benches one after the other, each in a process of its own: `python -m bench [--smoke] [NAME …]`, or `make bench`.

A bench that fails does not keep the others from running; the exit status tells. The page is rendered at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.render import main as render
from bench.suite import BENCHES, Bench


def main(arguments: Sequence[str]) -> int:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    smoke = "--smoke" in arguments
    names = [argument for argument in arguments if argument != "--smoke"]
    unknown = set(names) - {bench.name for bench in BENCHES}
    if unknown:
        print(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(b.name for b in BENCHES)}")
        return 2
    chosen = [bench for bench in BENCHES if not names or bench.name in names]
    outcomes = {bench.name: run(bench, smoke=smoke) for bench in chosen}
    if not smoke:
        render()
    print("\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def run(bench: Bench, *, smoke: bool) -> str:
    """What became of it, in words."""
    if bench.needs is not None and not bench.needs.exists():
        return f"left out, there is no {bench.needs}"
    print(f"\n== {bench.name}: {bench.measures}", flush=True)
    begun = time.monotonic()
    env = os.environ | ({"BENCH_SMOKE": "1"} if smoke else {})
    with subprocess.Popen([sys.executable, "-m", f"bench.{bench.name}"], env=env) as process:
        try:
            status = process.wait()
        finally:
            process.terminate()  # if this is interrupted; it ends what it has started
    took = f"{time.monotonic() - begun:.0f} s"
    return f"failed with status {status} after {took}" if status else f"done in {took}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
