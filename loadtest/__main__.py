"""`python -m loadtest`: one load test from nothing to the report. Exit codes: 0 the SLO is met; 1 it is missed, or an
answer was wrong; 2 a mistake in the command; 3 the client was saturated, so nothing is known of the server."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from locust.env import Environment

from loadtest.report import save
from loadtest.servers import cpu_s, online_store, server
from loadtest.settings import Settings, add_options
from loadtest.users import ClosedLoopUser, OpenLoopUser, attach


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser("python -m loadtest", description=__doc__)
    parser.add_argument(
        "--host", default="", help="URL of a server with the data; default: a server of its own"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is measured")
    parser.add_argument("--users", type=int, default=8, help="of a closed loop")
    parser.add_argument(
        "--store", choices=("auto", "redis", "lmdb"), default="auto", help="of its own server"
    )
    add_options(parser)
    options = parser.parse_args(argv)
    if options.seconds <= 0 or options.users <= 0:
        parser.error("--seconds and --users are positive")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    folder = Path(options.report_dir)
    with ExitStack() as stack:
        pid, cores = 0, _cores()
        if not options.host:
            options.host, pid = stack.enter_context(_own_server(options, folder, cores))
        os.sched_setaffinity(0, {cores[1]})
        settings = Settings.from_options(options, core=cores[1])
        report = run(settings, pid)
    save(report, folder)
    return int(report["exit_code"])


def run(settings: Settings, server_pid: int = 0) -> dict[str, Any]:
    """One test against a server that has the data; the report."""
    environment = Environment(user_classes=[OpenLoopUser if settings.rate else ClosedLoopUser])
    begun = attach(environment, lambda: settings)
    runner = environment.create_local_runner()
    before = cpu_s(server_pid) if server_pid else 0.0
    users = 1 if settings.rate else settings.users
    runner.start(users, spawn_rate=users)
    load_run = begun.get()
    load_run.heard.wait()
    print(f"asking {settings.host} for {settings.warmup_s + settings.seconds:g} s", flush=True)
    load_run.finished.wait()
    known: dict[str, Any] = {}
    if server_pid:
        used = cpu_s(server_pid) - before
        known = {
            "CPU_s": round(used, 2),
            "CPU_us_per_request": round(used * 1e6 / max(load_run.recorder.seen, 1)),
        }
    runner.quit()
    report: dict[str, Any] = load_run.recorder.report(load_run.end, known)
    return report


def _cores() -> tuple[int, int]:
    """(the server's, everybody else's)."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) == 1:
        print("there is one core: the client takes time from the server it measures")
    return usable[0], usable[-1]


@contextmanager
def _own_server(
    options: argparse.Namespace, folder: Path, cores: tuple[int, int]
) -> Iterator[tuple[str, int]]:
    """Data, a store with the data, a server over the store."""
    repo = folder / "repo"
    repo.mkdir(parents=True, exist_ok=True)
    data = Settings.from_options(options).data
    with online_store(options.store, folder, cores[1]) as url:
        print(f"loading {data.entities:,} rows of {data.features} features into {url}", flush=True)
        for old in (repo / ".fastserve").glob("registry.db*"):
            old.unlink()
        data.write_repo(repo, url)
        data.load(repo)
        with server(repo, cores[0]) as started:
            yield started


if __name__ == "__main__":
    sys.exit(main())
