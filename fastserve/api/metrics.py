"""`GET /metrics` of the data plane, in Prometheus' text format: every worker's figures, by whichever is asked.

Workers share a port, so a scrape reaches any one of them. Each writes its figures to a folder of theirs once a second,
and adds what the others wrote last to its own; `worker` tells them apart. One that wrote nothing for a while is not
told of: it is gone, or hangs. A worker alone writes nothing. docs/metrics.md says what each figure means.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import orjson

from fastserve.api.router import Routes
from fastserve.http.message import Request, Response

Figures: TypeAlias = Mapping[str, float]
Groups: TypeAlias = Mapping[str, Callable[[], Figures]]

EVERY_S: Final = 1.0
GONE_S: Final = 10.0
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
STARTED: Final = time.time()
# What is a state; everything else only grows.
GAUGES: Final = frozenset(
    (
        "process_rss_bytes", "process_start_time_seconds", "workers_configured", "http_open_connections",
        "cache_entries", "cache_bytes_used", "cache_feed_up", "admission_queued", "admission_queued_ms",
        "admission_waiting_keys", "admission_standing", "store_breaker_open",
    )
)  # fmt: skip


class Metrics:
    """See the module's docstring.

    Args:
        worker: this one's number.
        groups: name of a group -> its figures now; a figure is fastserve_<group>_<name>, its name perhaps with labels:
            ``calls{view="spend@v1"}``.
        folder: shared by the workers; '' for a worker alone.
    """

    def __init__(self, worker: int, groups: Groups, folder: str = "") -> None:
        self._worker = worker
        self._groups = groups
        self._folder = Path(folder) if folder else None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {"/metrics": ("GET", self._get)}

    def start(self) -> None:
        """Share the figures from now on."""
        if self._folder is None:
            return
        target = self._folder / f"{self._worker}.json"
        fresh = target.with_suffix(f".{os.getpid()}")  # the one that this worker replaces may still write
        fresh.write_bytes(orjson.dumps(self._own()))
        fresh.replace(target)
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.start)

    def close(self) -> None:
        """Stop sharing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _get(self, request: Request) -> Response:
        workers = {self._worker: self._own()}
        oldest = time.time() - GONE_S
        for path in self._folder.glob("*.json") if self._folder else ():
            if path.stem != str(self._worker) and path.stat().st_mtime > oldest:
                workers[int(path.stem)] = orjson.loads(path.read_bytes())
        return Response(200, TEXT, render(workers))

    def _own(self) -> dict[str, float]:
        found = {f"process_{name}": value for name, value in process_figures().items()}
        for group, figures in self._groups.items():
            found |= {f"{group}_{name}": value for name, value in figures().items()}
        return found


def process_figures() -> dict[str, float]:
    """CPU seconds so far, user and system, resident bytes and start of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "cpu_user_seconds": used.ru_utime,
        "cpu_system_seconds": used.ru_stime,
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "start_time_seconds": STARTED,
    }


def render(workers: Mapping[int, Figures]) -> bytes:
    """The text: every figure once, a line a worker and labels."""
    lines: list[str] = []
    told: set[str] = set()
    for name in sorted({name for figures in workers.values() for name in figures}):
        bare, _, labels = name.partition("{")
        kind = "gauge" if bare in GAUGES else "counter"
        full = f"fastserve_{bare}{'' if kind == 'gauge' else '_total'}"
        if bare not in told:
            told.add(bare)
            lines.append(f"# TYPE {full} {kind}")
        for worker, figures in sorted(workers.items()):
            if name in figures:
                also = f",{labels[:-1]}" if labels else ""
                lines.append(f'{full}{{worker="{worker}"{also}}} {float(figures[name]):.17g}')
    return ("\n".join(lines) + "\n").encode()
