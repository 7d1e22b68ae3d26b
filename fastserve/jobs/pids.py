"""Telling a process from a later one of the same pid."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from fastserve.registry import Job


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None when there is none (or no /proc)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return int(fields[19])


def send(job: Job, number: signal.Signals) -> bool:
    """Signal a running job's process, if it is on this machine and still the same one."""
    if job.pid is None or job.host != socket.gethostname() or start_of(job.pid) != job.pid_start:
        return False
    try:
        os.kill(job.pid, number)
    except ProcessLookupError:
        return False
    return True
