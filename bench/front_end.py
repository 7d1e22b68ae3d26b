"""One entity x 50 from the cache over HTTP/2, eight connections of ten streams, against Granian.

Granian (RSGI, one worker, uvloop) reads the request and answers the same bytes, ready made; the server here reads
features. F1 is our front end doing as little as Granian.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Figure, alternate
from bench.processes import SERVER_CORE, children, running
from bench.read_path import FORMS, loaded
from bench.record import Table, Target, save
from bench.world import ROOT, Server, ask, body_of, check, free_port, until_cached, world

Measure = Callable[[], Mapping[str, float]]


def main(seconds: float = 2.0) -> int:
    """Measure and write bench/results/front_end.json."""
    ready = [sys.executable, "-m", "bench.floors", "ready"]
    env = {"PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryDirectory() as folder,
        world(1_000) as made,
        made.serving() as own,
        running(ready, core=SERVER_CORE, ready=b'"ready"', env=env) as started,
    ):
        floor = Server(started.port, started.process.pid)
        body = Path(folder, "request.json")
        body.write_bytes(body_of([7]))
        until_cached(own, [7])
        found: dict[str, dict[str, list[float]]] = {}
        for form, accept in FORMS.items():
            answer = ask(own.url, body.read_bytes(), accept)
            check(answer, accept, [7])
            Path(folder, form).write_bytes(answer)
            with granian(Path(folder, form)) as peer:
                url = f"http://127.0.0.1:{peer.port}/"
                assert ask(url, body.read_bytes()) == answer
                f1 = f"http://127.0.0.1:{floor.port}/{len(answer)}"
                systems: dict[str, Measure] = {
                    f"{form}: fastserve, read": loaded(own, own.url, body, accept, seconds),
                    f"{form}: F1, ready bytes": loaded(floor, f1, body, accept, seconds),
                    f"{form}: Granian, ready bytes": loaded(peer, url, body, accept, seconds),
                }
                found |= alternate(systems)
        report(found)
    return 0


@contextmanager
def granian(answer: Path) -> Iterator[Server]:
    """Granian with one worker on the servers' core."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "rsgi", "--http", "2", "--workers", "1"]
    command += [
        "--loop",
        "uvloop",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ws",
        "bench.granian_app:app",
    ]
    env = {"BENCH_BODY": str(answer), "PYTHONPATH": str(ROOT)}
    with running(command, core=SERVER_CORE, ready=b"Started worker", env=env) as started:
        pid = started.process.pid
        yield Server(port, _worker(pid, port))


def _worker(pid: int, port: int) -> int:
    """The worker's pid, once it answers."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        try:
            ask(f"http://127.0.0.1:{port}/", b"{}")
        except RuntimeError:
            time.sleep(0.05)
            continue
        return [pid, *children(pid)][-1]
    raise RuntimeError("Granian does not answer")


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Tables, targets, file."""

    def rate(name: str) -> Figure:
        return Figure(tuple(found[name]["requests_per_s"]), smaller_is_better=False)

    table = Table(
        "1 x 50, HTTP/2, 8 x 10",
        {"requests_per_s": "", "cpu_us": "", "p50_us": "", "p99_us": "", "over_Granian": "x"},
    )
    for name, rounds in found.items():
        figures = {q: Figure(tuple(rounds[q])) for q in ("cpu_us", "p50_us", "p99_us")}
        over = rate(name).over(rate(f"{name.partition(':')[0]}: Granian, ready bytes"))
        table.add(name, requests_per_s=rate(name), over_Granian=over, **figures)
    targets = [
        Target(f"1 x 50 {form}, hit, over Granian's ready bytes, requests/s",
               rate(f"{form}: fastserve, read").over(rate(f"{form}: Granian, ready bytes")).median,
               at_least=1.5, reach=3)
        for form in FORMS
    ]  # fmt: skip
    save("front_end", "The front end", [table], targets=targets)


if __name__ == "__main__":
    sys.exit(main())
