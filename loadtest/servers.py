"""A Redis and a fastserve server of a load test's own: on free ports, on the cores they are given, ended by pid."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loadtest.data import tool_environ

_START_S: Final = 20.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@contextmanager
def online_store(kind: str, folder: Path, core: int) -> Iterator[str]:
    """The URL of an empty online store.

    Args:
        kind: "redis", "lmdb", or "auto": Redis where there is a redis-server.
    """
    if kind == "lmdb" or (kind == "auto" and shutil.which("redis-server") is None):
        if kind == "auto":
            print("there is no redis-server here: the store is LMDB, within the server's process")
        shutil.rmtree(folder / "online", ignore_errors=True)
        yield f"lmdb://{folder.resolve()}/online"
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = f"redis-server --bind 127.0.0.1 --port {port} --appendonly no --logfile redis.log --dir {folder.resolve()}"
    with _process([*words.split(), "--save", ""], core) as process:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"redis-server did not start; {folder}/redis.log says why") from None
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def server(repo: Path, core: int = -1) -> Iterator[tuple[str, int]]:
    """A `fastserve serve` of one worker over a repo: (URL, pid)."""
    command = [
        sys.executable,
        "-m",
        "fastserve.cli.main",
        "serve",
        "--repo",
        str(repo),
        "--port",
        "0",
        "--json",
    ]
    with (repo / "server.log").open("wb") as log, _process(command, core, log.fileno()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start:\n{(repo / 'server.log').read_text()}")
        yield f"http://127.0.0.1:{json.loads(line)['port']}", process.pid


@contextmanager
def _process(
    command: list[str], core: int, log: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=tool_environ()) as process:
        if core >= 0:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_START_S)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far; 0.0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
