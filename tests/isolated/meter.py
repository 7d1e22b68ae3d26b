"""What a function leaves behind: of Python's objects, of malloc's bytes, of the process's pages."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

ITERATIONS = int(os.environ.get("FASTSERVE_LEAK_ITERATIONS", "100000"))
WARM_UP = ITERATIONS // 10
PAGE = os.sysconf("SC_PAGE_SIZE")


class Mallinfo2(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = Mallinfo2


@dataclass(frozen=True)
class Held:
    """What the process holds; the bounds are of what 100,000 iterations may add."""

    blocks: int  # of Python's own allocator: objects and what they hold, up to 512 bytes each
    containers: int  # that the garbage collector follows
    malloc_bytes: int
    rss_bytes: int


BOUNDS = Held(blocks=500, containers=100, malloc_bytes=128 * 1024, rss_bytes=1024 * 1024)


def held() -> Held:
    gc.collect()
    info = _mallinfo2()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return Held(sys.getallocatedblocks(), len(gc.get_objects()), info.uordblks + info.hblkhd, pages * PAGE)


def run(once: Callable[[int], object]) -> None:
    """Ends the process with what grew, if anything did."""
    for i in range(WARM_UP):
        once(i)
    before = held()
    for i in range(ITERATIONS):
        once(i)
    report(before, held())


def report(before: Held, after: Held) -> None:
    grown = {one.name: getattr(after, one.name) - getattr(before, one.name) for one in fields(Held)}
    print(" ".join(f"{name}={value}" for name, value in grown.items()))
    too_much = [f"{name}: {value} more" for name, value in grown.items() if value > getattr(BOUNDS, name)]
    if too_much:
        sys.exit(f"after {ITERATIONS} iterations {', '.join(too_much)}")
