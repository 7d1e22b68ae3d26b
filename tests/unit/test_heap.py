"""The server's heap."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

BURSTS: Final = """
import resource, sys
from fastserve.app import keep_heap
if sys.argv[1] == "kept":
    keep_heap()
def burst():
    answers = [b"x" * (1 << 18) for _ in range(24)]
burst()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    burst()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages faulted in by ten bursts of answers of 6 MiB together, after a first one."""
    done = subprocess.run([sys.executable, "-c", BURSTS, how], capture_output=True, check=True, env={})
    return int(done.stdout)


def test_what_a_burst_of_answers_took_is_kept_for_the_next() -> None:
    assert faults("kept") < 1_000 < faults("given back")
