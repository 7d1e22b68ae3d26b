"""p50 and p99 at 60 % of saturation, open loop: 1, 10, 100, 500 entities x JSON, Arrow, tensor, from the cache; misses.

Saturation is what a closed loop of 80 requests on 8 connections gets, in the same round. A latency counts from when the
request was due. Arrivals at equal distances show what the server adds by itself; at random (Poisson) they also queue,
before any server: `ideal` is p99 over p50 of one that takes as long for every request as this one does at saturation,
and is asked at the same instants. In the same round, at the same rate and at equal distances, the yardsticks are asked
(bench/yardsticks.py): what they need, no server here does without. At the end one server is asked at one rate by this
generator, h2load and Locust.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from bench.arrivals import PATH, Ask, Outcome, Times, closed_loop, evenly, features, open_loop, poisson
from bench.measure import Figure, alternate
from bench.processes import CLIENT_CORE, SERVER_CORE, pinned
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from bench.world import ARROW, JSON, ROOT, TENSOR, Pair, Server, hit_and_miss
from bench.yardsticks import NGHTTPD, pauses, same, size_of, yardsticks
from loadtest.data import DataSet
from loadtest.servers import online_store, server

FORMS: Final = {"JSON": JSON, "Arrow": ARROW, "tensor": TENSOR}
SIZES: Final = (1, 10, 100, 500)
MISSES: Final = ((100, "JSON"), (100, "tensor"))
SHARE: Final = 0.6
SECONDS: Final = scaled(1.2, 0.1)
BODIES: Final = scaled(64, 8)
SAME_RATE: Final = 300.0  # that Locust can ask for from one core, and check
SAME_S: Final = scaled(8.0, 1.0)
PATIENT: Final = {"deadline_s": 5.0, "room_s": 5.0}  # whoever waits is counted with all of it
GENERATORS: Final = ("this one", "h2load", "Locust")
NOTES: Final = (
    "Saturation is of 80 requests in flight: one turn of the server's loop, with its system calls, then serves many. "
    "At equal distances it serves one or two, and each costs more: `busy` is how much of its core the server used at "
    "60 %. Near 1 it is saturated, and requests queue.",
    "Pauses: the kernel's and the hypervisor's. `met`: how long the clock stands still at least for the unluckiest 1 % "
    "(0.1 %) of all instants; no server's p99 is less.",
    "h2load counts from when a request left; the others from when it was due. Locust's part is Python, and checks "
    "every answer on the core it asks from: what it adds is its own.",
    "At random: `ideal` is what a server without any jitter would have, asked at the same instants.",
    *(() if NGHTTPD else ("nghttpd is not installed: its rows are missing.",)),
)


def main() -> int:
    """Measure and write bench/results/open_loop.json."""
    with hit_and_miss() as servers:
        asks = dict(asked(servers))
        sizes = {name: size_of(ask.server, ask.accept, ids) for name, (ask, ids) in asks.items()}
        with yardsticks(sorted(set(sizes.values()))) as others:
            systems: dict[str, Callable[[], Mapping[str, float]]] = {"pauses": partial(pauses, SECONDS)}
            for name, (ask, _) in asks.items():
                floors = {which: same(ask, other, sizes[name]) for which, other in others.items()}
                systems[name] = partial(once, ask, floors)
            found = alternate(systems, rounds=ROUNDS)
    report(found, agreement())
    return 0


def asked(servers: Pair) -> Iterator[tuple[str, tuple[Ask, list[int]]]]:
    """What is asked of fastserve, by name, and the first list of entities."""
    for n in SIZES:
        ids = servers.warm(n, BODIES)
        for form, accept in FORMS.items():
            yield f"{n} {form} hit", (features(servers.hit, accept, ids, connections=8, **PATIENT), ids[0])
            if (n, form) in MISSES:
                yield (
                    f"{n} {form} miss",
                    (features(servers.miss, accept, ids, connections=8, **PATIENT), ids[0]),
                )


def once(ask: Ask, floors: Mapping[str, Ask]) -> Mapping[str, float]:
    """Saturation, then both kinds of arrivals at a share of it, and the yardsticks."""
    peak = closed_loop(ask, 80, SECONDS / 2).good_per_s()
    rate = SHARE * peak
    due = poisson([(rate, SECONDS)])
    even, random = open_loop(ask, evenly(rate, SECONDS)), open_loop(ask, due)
    late = bool(even.late or random.late)
    found: dict[str, float] = {"peak": peak, "errors": errors(even) + errors(random), "late": late}
    found |= quantities("even", even) | quantities("random", random)
    for name, floor in floors.items():
        outcome = open_loop(floor, evenly(rate, SECONDS))
        assert not errors(outcome), f"{name}: {errors(outcome):g} errors"
        found |= quantities(name, outcome)
    return found | {"ideal p99/p50": ideal(due, 1e9 / peak)}


def quantities(name: str, outcome: Outcome) -> dict[str, float]:
    """Latency, how much of its core the server used, how late the generator was."""
    p50, p99 = np.percentile(latencies_ms(outcome), [50, 99]).tolist()
    return {
        f"{name} p50_ms": p50,
        f"{name} p99_ms": p99,
        f"{name} p99/p50": p99 / p50,
        f"{name} busy": outcome.cpu_us * len(outcome.attempts) / outcome.seconds / 1e6,
        f"{name} lag_p99_us": float(np.percentile(outcome.lag_us, 99)),
    }


def latencies_ms(outcome: Outcome) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of the requests that were answered, from when they were due."""
    final = outcome.final()
    final = final[final["status"] == 200]
    return np.asarray((final["done"] - final["due"]) / 1e6)


def errors(outcome: Outcome) -> float:
    """Requests without the right answer."""
    return float(np.count_nonzero(outcome.final()["status"] != 200))


def ideal(due: Times, service_ns: float) -> float:
    """p99 over p50 of a queue before one server that takes `service_ns` for each request (Lindley's recursion)."""
    begins = np.maximum.accumulate(due - np.arange(len(due)) * service_ns) + np.arange(len(due)) * service_ns
    p50, p99 = np.percentile(begins + service_ns - due, [50, 99])
    return float(p99 / p50)


# ---- three generators, one server, one rate ----


def agreement() -> dict[str, tuple[float, float, float]]:
    """Generator -> (p50 ms, p99 ms, errors) of 100 x 50 JSON, evenly spaced."""
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as name:
        folder = Path(name)
        data = DataSet(scaled(100_000, 1_000))
        with online_store("redis", folder, CLIENT_CORE) as url:
            repo = folder / "repo"
            repo.mkdir()
            data.write_repo(repo, url)
            data.load(repo)
            with server(repo, SERVER_CORE) as (host, pid):
                asked = Server(int(host.rpartition(":")[2]), pid)
                return dict(zip(GENERATORS, three(asked, data, folder), strict=True))


def three(asked: Server, data: DataSet, folder: Path) -> Iterator[tuple[float, float, float]]:
    """Each in its turn."""
    bodies = [
        json.dumps({"feature_service": data.view, "entities": {data.key: ids.tolist()}}).encode()
        for ids in np.random.default_rng(1).integers(0, data.entities, (BODIES, 100))
    ]
    ask = Ask(asked, JSON, bodies, connections=8)
    closed_loop(ask, 8, scaled(1.0, 0.1))  # warm
    own = open_loop(ask, evenly(SAME_RATE, SAME_S))
    yield (*np.percentile(latencies_ms(own), [50, 99]).tolist(), errors(own))
    yield by_h2load(asked, bodies[0], folder)
    yield by_locust(asked, data, folder)


def by_h2load(asked: Server, body: bytes, folder: Path) -> tuple[float, float, float]:
    """One connection and a script of instants: --rps would send in bursts, ten milliseconds apart."""
    script, posted, log = folder / "script", folder / "body", folder / "log"
    instants = evenly(SAME_RATE, SAME_S) / 1e6
    script.write_text("".join(f"{at:.3f}\thttp://127.0.0.1:{asked.port}{PATH}\n" for at in instants.tolist()))
    posted.write_bytes(body)
    command = [
        "h2load",
        "-c",
        "1",
        "-m",
        "100",
        "-t",
        "1",
        f"--timing-script-file={script}",
        "-d",
        str(posted),
    ]
    command += ["-H", f"accept: {JSON}", "-H", f"content-type: {JSON}", f"--log-file={log}"]
    subprocess.run(pinned(CLIENT_CORE, command), check=True, capture_output=True)
    rows = np.loadtxt(log, dtype=np.int64)
    p50, p99 = np.percentile(rows[:, 2] / 1e3, [50, 99]).tolist()
    return p50, p99, float(np.count_nonzero(rows[:, 1] != 200))


def by_locust(asked: Server, data: DataSet, folder: Path) -> tuple[float, float, float]:
    """`python -m loadtest`, which checks every value."""
    command = [sys.executable, "-m", "loadtest", "--host", f"http://127.0.0.1:{asked.port}"]
    command += ["--rate", str(SAME_RATE), "--arrivals", "constant", "--seconds", str(SAME_S), "--zipf", "0"]
    command += ["--entities", str(data.entities), "--batch", "100", "--report-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, text=True)
    path = folder / "report.json"
    if not path.exists():
        raise RuntimeError(done.stderr)
    found = json.loads(path.read_text())
    wrong = sum(kind["count"] for kind in found["errors"].values())
    return found["latency_ms"]["p50"], found["latency_ms"]["p99"], float(wrong)


# ---- what it comes to ----


def report(found: dict[str, dict[str, list[float]]], agreed: dict[str, tuple[float, float, float]]) -> None:
    """Tables, targets, file."""
    idle = found.pop("pauses")
    columns = {
        "peak": "1/s",
        "even_p50_ms": "",
        "even_p99_ms": "",
        "even_over": "p99/p50",
        "random_p50_ms": "",
    }
    columns |= {"random_p99_ms": "", "random_over": "p99/p50", "ideal_over": "p99/p50", "errors": ""}
    table = Table("entities x 50 float32, at 60 % of saturation", columns)
    notes = []
    for name, rounds in found.items():
        row = {
            q.replace("p99/p50", "over").replace(" ", "_"): Figure(tuple(v), q != "peak")
            for q, v in rounds.items()
        }
        table.add(name, **{column: row[column] for column in columns})
        if row["late"].median:
            notes.append(
                f"{name}: the generator was late in most rounds; this row says nothing of the server."
            )
    clock = Table(
        "a thread that only looks at the clock, on the server's core",
        {"share": "of the time away", "p99_ms": "met", "p999_ms": "met", "longest_ms": ""},
    )
    clock.add("pauses", **{q: Figure(tuple(v)) for q, v in idle.items()})
    one_rate = Table(
        f"100 x 50 JSON, {SAME_RATE:g}/s at equal distances", {"p50_ms": "", "p99_ms": "", "errors": ""}
    )
    for name, (p50, p99, wrong) in agreed.items():
        one_rate.add(name, p50_ms=p50, p99_ms=p99, errors=wrong)
    save(
        "open_loop",
        "Open loop",
        [table, beside(found), clock, one_rate],
        targets=list(aims(found, agreed)),
        notes=[*notes, *NOTES],
    )


def beside(found: dict[str, dict[str, list[float]]]) -> Table:
    """Each row with its yardsticks, at equal distances."""
    columns = {"p50_ms": "", "p99_ms": "", "over": "p99/p50", "busy": "of a core", "lag_p99_us": "generator"}
    table = Table("the same rate, at equal distances", columns)
    for name, rounds in found.items():
        for label, prefix in (("", "even"), (": F1, ready bytes", "F1"), (": nghttpd", "nghttpd")):
            if f"{prefix} busy" in rounds:
                figures = {c: rounds[f"{prefix} {'p99/p50' if c == 'over' else c}"] for c in columns}
                table.add(name + label, **{c: Figure(tuple(v)) for c, v in figures.items()})
    return table


def aims(
    found: dict[str, dict[str, list[float]]], agreed: dict[str, tuple[float, float, float]]
) -> Iterator[Target]:
    """What was hoped for."""
    medians = {
        name: {q: Figure(tuple(v)).median for q, v in rounds.items()} for name, rounds in found.items()
    }
    hits = {name: of for name, of in medians.items() if name.endswith("hit")}
    for name, of in hits.items():
        yield Target(
            f"{name}: p99 over p50 at 60 %, equal distances", of["even p99/p50"], at_most=2.0, reach=1.6
        )
    for arrivals in ("even", "random"):
        worst = max(of[f"{arrivals} p99_ms"] for of in medians.values())
        yield Target(f"SLO: the longest p99 of all at 60 %, {arrivals}, ms", worst, at_most=10, reach=3)
    yield Target("SLO: errors of all", sum(sum(of["errors"]) for of in found.values()), at_most=0)
    p99s = [p99 for _, p99, _ in agreed.values()]
    yield Target("three generators, one server: longest p99 over shortest", max(p99s) / min(p99s), at_most=2)
    yield Target("three generators: errors", sum(wrong for _, _, wrong in agreed.values()), at_most=0)


if __name__ == "__main__":
    sys.exit(main())
