"""What a server is held against at the same rate: F1, a plain C server, and the machine's own pauses.

F1 is our front end with ready bytes (bench/floors.py), nghttpd the nghttp2 project's server with a file of that size.
A pause is time that a thread which only looks at the clock, on the servers' core, did not run: none of them is faster.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from bench.arrivals import Ask
from bench.processes import SERVER_CORE, pinned, running
from bench.world import ROOT, Server, ask, body_of, free_port

NGHTTPD: Final = shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/sbin")


@contextmanager
def yardsticks(sizes: Sequence[int]) -> Iterator[Mapping[str, Server]]:
    """Name -> a server that answers a POST of /<size> with so many bytes."""
    command = [sys.executable, "-m", "bench.floors", "ready"]
    with ExitStack() as stack:
        f1 = stack.enter_context(
            running(command, core=SERVER_CORE, ready=b'"ready"', env={"PYTHONPATH": str(ROOT)})
        )
        found = {"F1": Server(f1.port, f1.process.pid)}
        if NGHTTPD:
            folder = stack.enter_context(TemporaryDirectory(prefix="fastserve-bench-"))
            for size in sizes:
                Path(folder, str(size)).write_bytes(bytes(size))
            port = free_port()
            plain = [NGHTTPD, "--no-tls", "--address=127.0.0.1", f"--htdocs={folder}", str(port)]
            started = stack.enter_context(running(plain, core=SERVER_CORE))
            found["nghttpd"] = Server(port, started.process.pid)
        for server in found.values():
            _until_it_answers(server, sizes[0])
        yield found


def same(asked: Ask, server: Server, size: int) -> Ask:
    """The same requests to a yardstick, whose answers have no values to check."""
    return replace(asked, server=server, path=f"/{size}", check=None)


def size_of(server: Server, accept: str, ids: Sequence[int]) -> int:
    """Bytes of an answer."""
    return len(ask(server.url, body_of(ids), accept))


def pauses(seconds: float) -> Mapping[str, float]:
    """Of the servers' core: how long a request that comes at any instant waits for the pause it falls into."""
    command = pinned(SERVER_CORE, [sys.executable, "-m", "bench.floors", "pauses", str(seconds)])
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    gaps = np.array(json.loads(done.stdout)["gaps_us"], float)
    return {
        "share": float(gaps.sum()) / (seconds * 1e6),
        "p99_ms": _met(gaps, seconds * 1e6, 0.01) / 1e3,
        "p999_ms": _met(gaps, seconds * 1e6, 0.001) / 1e3,
        "longest_ms": float(gaps.max(initial=0)) / 1e3,
    }


def _met(gaps: np.ndarray[tuple[int], np.dtype[np.float64]], whole: float, share: float) -> float:
    """The wait that this share of all instants exceeds: by bisection of sum(max(gap - wait, 0)) = share x whole."""
    low, high = 0.0, float(gaps.max(initial=0))
    for _ in range(60):
        middle = (low + high) / 2
        if np.maximum(gaps - middle, 0).sum() > share * whole:
            low = middle
        else:
            high = middle
    return high


def _until_it_answers(server: Server, size: int) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            answer = ask(f"http://127.0.0.1:{server.port}/{size}", b"{}")
        except RuntimeError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            assert len(answer) == size
            return
