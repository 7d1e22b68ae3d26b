"""The read path: L1 hit and miss x 1, 10, 100, 500 entities x JSON, Arrow, tensor, against its floors.

F1: the same front end answering as many ready bytes to the same request. F2: the same MGET by a bare protocol, no HTTP.
Eight connections of ten streams, from the other core. CPU is the server's, per request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import orjson

from bench.measure import Figure, alternate, ns_per_call
from bench.processes import SERVER_CORE, h2load, pinned, running
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import (
    ARROW,
    JSON,
    ROOT,
    TENSOR,
    Server,
    World,
    ask,
    body_of,
    check,
    until_cached,
    values,
    world,
)

FORMS = {"JSON": JSON, "Arrow": ARROW, "tensor": TENSOR}
SIZES = (1, 10, 100, 500)
SECONDS = 1.2

Measure = Callable[[], Mapping[str, float]]


def main(seconds: float = SECONDS) -> int:
    """Measure and write bench/results/read_path.json."""
    with (
        tempfile.TemporaryDirectory() as folder,
        world() as made,
        made.serving("--cache-mb", "64") as hit,
        made.serving("--cache-mb", "0") as miss,
        running([sys.executable, "-m", "bench.floors", "ready"], core=SERVER_CORE, ready=b'"ready"',
                env={"PYTHONPATH": str(ROOT)}) as ready,
    ):  # fmt: skip
        floor = Server(ready.port, ready.process.pid)
        systems: dict[str, Measure] = {}
        for n in SIZES:
            ids = np.random.default_rng(n).choice(made.entities, n, replace=False).tolist()
            until_cached(hit, ids)
            body = Path(folder, f"{n}.json")
            body.write_bytes(body_of(ids))
            for form, accept in FORMS.items():
                answers = [ask(server.url, body.read_bytes(), accept) for server in (hit, miss)]
                for answer in answers:
                    check(answer, accept, ids)
                size = len(answers[0])
                for name, server in (("hit", hit), ("miss", miss)):
                    systems[f"{n} {form} {name}"] = loaded(server, server.url, body, accept, seconds)
                url = f"http://127.0.0.1:{floor.port}/{size}"
                systems[f"{n} {form} F1"] = loaded(floor, url, body, accept, seconds)
            systems[f"{n} F2"] = bare_mget(made, n, seconds)
            systems[f"{n} orjson"] = numbers(ids)
        report(alternate(systems))
    return 0


def loaded(server: Server, url: str, body: Path, accept: str, seconds: float) -> Measure:
    """Eight connections of ten streams."""

    def once() -> Mapping[str, float]:
        headers = [f"accept: {accept}", "content-type: application/json"]
        load = h2load(url, server.pid, seconds=seconds, body=body, headers=headers)
        assert not load.failed, f"{url}: {load.failed} failed"
        return load.quantities()

    return once


def bare_mget(made: World, n: int, seconds: float) -> Measure:
    """F2."""
    prefix = _prefix(made)

    def once() -> Mapping[str, float]:
        command = [sys.executable, "-m", "bench.floors", "mget", str(made.redis_port), str(n)]
        command = pinned(SERVER_CORE, [*command, str(scaled(seconds, 0.1)), prefix, str(made.entities)])
        done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
        return {"cpu_us": json.loads(done.stdout)["cpu_us"]}

    return once


def _prefix(made: World) -> str:
    command = ["redis-cli", "-p", str(made.redis_port), "--scan", "--pattern", "*:1"]
    return (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(":")[0].strip() + ":"
    )


def numbers(ids: list[int]) -> Measure:
    """What orjson takes for the values alone, as one block."""
    block = np.ascontiguousarray(values(ids).T)

    def dump() -> bytes:
        return orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)

    return lambda: {"cpu_us": ns_per_call(dump, clock=time.process_time_ns) / 1e3}


def aims(over: Callable[..., Figure]) -> list[Target]:
    """What was aimed at; `over` is a system's CPU over that of others."""
    return [
        Target("100 x 50 tensor, miss: CPU over F1 + F2", over("100 tensor miss", "100 tensor F1", "100 F2").median,
               at_most=1.4, reach=1.1),
        Target("100 x 50 tensor, hit: CPU over F1", over("100 tensor hit", "100 tensor F1").median,
               at_most=2.0, reach=1.4),
        Target("100 x 50 JSON, hit: CPU over F1 + orjson of the same numbers",
               over("100 JSON hit", "100 JSON F1", "100 orjson").median, at_most=1.3, reach=1.1),
    ]  # fmt: skip


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Tables, targets, file."""

    def cpu(name: str) -> Figure:
        return Figure(tuple(found[name]["cpu_us"]))

    def both(name: str, *others: str) -> Figure:
        rounds = zip(cpu(name).rounds, *(cpu(other).rounds for other in others), strict=True)
        return Figure(tuple(mine / sum(floors) for mine, *floors in rounds))

    table = Table(
        "entities x 50 float32",
        {
            "requests_per_s": "",
            "cpu_us": "",
            "p50_us": "",
            "p99_us": "",
            "F1_cpu_us": "",
            "cpu_over_floor": "x",
        },
    )
    for n in SIZES:
        for form in FORMS:
            for name in ("hit", "miss"):
                row = f"{n} {form} {name}"
                floors = [f"{n} {form} F1"]
                floors += [f"{n} F2"] if name == "miss" else []
                floors += [f"{n} orjson"] if form == "JSON" else []
                figures = {
                    q: Figure(tuple(v), q != "requests_per_s") for q, v in found[row].items() if q != "failed"
                }
                table.add(row, **figures, F1_cpu_us=cpu(f"{n} {form} F1"), cpu_over_floor=both(row, *floors))
    floors_table = Table("floors", {"cpu_us": "per request"})
    for n in SIZES:
        floors_table.add(f"F2: MGET of {n}", cpu_us=cpu(f"{n} F2"))
        floors_table.add(f"orjson: {n} x 50", cpu_us=cpu(f"{n} orjson"))
    targets = aims(both)
    notes = ["CPU over floor: over F1; of a miss over F1 + F2; of JSON also over orjson of the numbers."]
    save("read_path", "The read path and its floors", [table, floors_table], targets=targets, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
