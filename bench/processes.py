"""Servers and load generators as processes of their own: pinned, timed by the kernel's accounts, stopped by pid."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from bench.scale import SMOKE

_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = _CORES[0]
CLIENT_CORE: Final = _CORES[1 % len(_CORES)]


@dataclass(frozen=True, slots=True)
class Started:
    """A process that runs, and the port it told of in a line of JSON, if it did."""

    process: subprocess.Popen[bytes]
    port: int = 0


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command on one core."""
    return ["taskset", "-c", str(core), *command]


@cache
def prompt() -> tuple[str, ...]:
    """Before a command that keeps a schedule: it goes before all others on its core, if we may ask for that."""
    first = ("chrt", "--fifo", "10")
    may = subprocess.run([*first, "true"], capture_output=True, check=False).returncode == 0
    return first if may else ()


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    ready: bytes = b"",
    env: dict[str, str] | None = None,
    cwd: str = ".",
) -> Iterator[Started]:
    """A process, until the block ends; with `ready` it has said that on its output.

    From here on SIGTERM ends this process in order, so that it leaves nothing running.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with subprocess.Popen(
        pinned(core, command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | (env or {}),
        cwd=cwd,
    ) as process:
        try:
            yield Started(process, _port(_until(process, ready)) if ready else 0)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _port(line: bytes) -> int:
    try:
        return int(json.loads(line)["port"])
    except (ValueError, KeyError, TypeError):
        return 0


def _until(process: subprocess.Popen[bytes], ready: bytes) -> bytes:
    assert process.stdout is not None
    said = b""
    for line in process.stdout:
        said += line
        if ready in line:
            threading.Thread(
                target=process.stdout.read, daemon=True
            ).start()  # so that it never blocks on a full pipe
            return line
    raise RuntimeError(f"{process.args!r} ended: {said.decode(errors='replace')}")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far, all its threads; its children not."""
    return time.clock_gettime(
        (~pid << 3) | 2
    )  # what clock_getcpuclockid(3) gives: exact, where /proc counts ticks


def children(pid: int) -> list[int]:
    """The processes that a process has started, the oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def holder(server_port: int, client_port: int, pids: Sequence[int]) -> int:
    """Which of these processes has accepted a TCP connection over the loopback address; 0 for none."""
    ends = [f"0100007F:{port:04X}" for port in (server_port, client_port)]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1:3] == ends}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(link) in sockets:
                    return pid
            except FileNotFoundError:
                continue  # closed meanwhile
    return 0


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Load:
    """One run of h2load.

    Attributes:
        requests_per_s: finished with 2xx, per second.
        failed: requests without a 2xx answer.
        cpu_us: server CPU per request.
        p50_us, p99_us: of the time of a request, where h2load's log was kept.
    """

    requests_per_s: float
    failed: int
    cpu_us: float
    p50_us: float = 0.0
    p99_us: float = 0.0

    def quantities(self) -> dict[str, float]:
        """For measure.alternate."""
        return {
            "requests_per_s": self.requests_per_s,
            "failed": self.failed,
            "cpu_us": self.cpu_us,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
        }


def h2load(  # noqa: PLR0913  (the generator's own knobs)
    url: str,
    server: int,
    *,
    connections: int = 8,
    streams: int = 10,
    seconds: float = 0,
    requests: int = 0,
    body: Path | None = None,
    headers: Sequence[str] = (),
    http1: bool = False,
    options: Sequence[str] = (),
) -> Load:
    """Load a URL from the client's core for some seconds, or for some requests.

    Args:
        server: pid whose CPU is counted.
        body: a file to POST.
        options: more of h2load's own.
    """
    log = Path(f"/tmp/h2load-{os.getpid()}-{time.monotonic_ns()}.log")
    command = ["h2load", "-c", str(connections), "-m", str(streams), "-t", "1", f"--log-file={log}"]
    if SMOKE and not requests:
        requests = connections * streams
    command += ["-n", str(requests)] if requests else ["-D", f"{seconds * 1_000:.0f}ms"]
    command += ["--h1"] if http1 else []
    command += options
    command += ["-d", str(body)] if body else []
    for header in headers:
        command += ["-H", header]
    before = cpu_s(server)
    done = subprocess.run(pinned(CLIENT_CORE, [*command, url]), capture_output=True, text=True, check=True)
    used = cpu_s(server) - before
    try:
        return _load(done.stdout, used, log)
    finally:
        log.unlink(missing_ok=True)


def _load(text: str, used_s: float, log: Path) -> Load:
    found = re.search(r"finished in ([0-9.]+)(us|ms|s|m).*", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    totals = re.search(r"requests: (\d+) total, .*?(\d+) failed, (\d+) errored, (\d+) timeout", text)
    if found is None or codes is None or totals is None:
        raise RuntimeError(f"h2load said: {text}")
    took = float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[found[2]]
    good, bad = int(codes[1]), sum(int(codes[i]) for i in (2, 3, 4))
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line)
    p50, p99 = (float(times[int(len(times) * q)]) if times else 0.0 for q in (0.5, 0.99))
    return Load(good / took, bad + int(totals[2]), used_s * 1e6 / max(good, 1), p50, p99)
