"""Materialization end to end, Parquet to Redis, as a user runs it: beside `redis-cli --pipe` and `feast materialize`.

`materializer run` from the start of its process to its end: an empty store, a new registry, a million entities in ten
files by date. `redis-cli --pipe` sends the same rows as commands that were made before the clock runs. Feast writes
fewer entities, and only its materialize() counts, not the ten seconds that it takes to import.

Redis has core 1; who writes may have both, as a batch job does.
"""

from __future__ import annotations

import asyncio
import compileall
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench import feast_peer
from bench.bulk_writer import CHUNK, flush, sets
from bench.measure import Figure, alternate
from bench.processes import cpu_s
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from bench.world import FEATURES, NAMES, ROOT, redis, values
from fastserve import Entity, FeatureStore, FeatureView, Field, FileSource
from fastserve.codec import keys_py, rows_py
from fastserve.offline.online_rows import OnlineRows
from fastserve.offline.source import scan_source
from fastserve.online import open_store
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US

ENTITIES: Final = scaled(1_000_000, 5_000)
FEAST_ENTITIES: Final = scaled(30_000, 1_000)
DATES: Final = scaled(10, 3)
T0: Final = 1_750_000_000_000_000 // DAY_US * DAY_US
WINDOW: Final = ("--start", "2025-06-01", "--end", "2025-07-31")
RUNS: Final = {  # label, and options
    "online": ("`materializer run`", ("--target", "online")),
    "plain": ("the same, no statistics", ("--target", "online", "--no-statistics")),
    "both": ("the same, into history too", ("--target", "both")),
}
MIB: Final = 1 << 20

_MATERIALIZE: Final = """
import json, re, time
from datetime import datetime, timezone
from feast import FeatureStore
store = FeatureStore(".")
cpu, begun = time.process_time(), time.perf_counter()
store.materialize(datetime(2025, 6, 1, tzinfo=timezone.utc), datetime(2025, 7, 31, tzinfo=timezone.utc))
took, cpu = time.perf_counter() - begun, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"seconds": took, "cpu_s": cpu, "peak": peak}))
"""
_ANSWER: Final = """
import json, sys
from feast import FeatureStore
ids = json.loads(sys.argv[1])
names = [f"load:f{i:02}" for i in range(50)]
print(json.dumps(FeatureStore(".").get_online_features(names, [{"user_id": i} for i in ids]).to_dict()))
"""


def main(rounds: int = ROUNDS) -> int:
    """Measure and write bench/results/materialize.json."""
    for package in ("fastserve", "materializer"):  # as installing does
        compileall.compile_dir(ROOT / package, quiet=1)
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as name, redis(name) as (port, pid):
        folder = Path(name)
        data = write_source(folder / "data")
        repo = make_repo(folder / "repo", port, data)
        ready = write_ready(repo, folder / "ready.resp")
        verify(repo, port, pid, ready)
        systems = {kind: partial(fastserve, repo, port, pid, kind) for kind in RUNS}
        systems["pipe"] = partial(pipe, port, pid, ready)
        if feast_peer.is_there():
            peer = make_feast(folder / "feast", port, data)
            verify_feast(peer, port, pid)
            systems["feast"] = partial(feast, peer, port, pid)
        found = alternate(systems, rounds=rounds)
    report(found)
    return 0


def report(found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Table, aims and file."""
    figures = {
        system: {name: Figure(tuple(values), name != "rows_per_s") for name, values in all_.items()}
        for system, all_ in found.items()
    }
    units = {
        "rows_per_s": "",
        "over_pipe": "x",
        "over_Feast": "x",
        "cpu": "us a row",
        "redis_cpu": "us a row",
    }
    table = Table(f"{ENTITIES:,} entities x {FEATURES} float32", {**units, "peak": "MiB"})
    labels = {kind: label for kind, (label, _) in RUNS.items()}
    labels |= {
        "pipe": "`redis-cli --pipe` of ready bytes",
        "feast": f"`feast materialize`, {FEAST_ENTITIES:,} entities",
    }
    for system, of in figures.items():
        over = {
            f"over_{label}": of["rows_per_s"].over(figures[peer]["rows_per_s"])
            for label, peer in (("pipe", "pipe"), ("Feast", "feast"))
            if peer in figures and peer != system
        }
        table.add(labels[system], **of, **over)
    rate = figures["online"]["rows_per_s"]
    aims = [Target("materialize Parquet -> Redis over `redis-cli --pipe` of ready bytes, rows/s",
                   rate.over(figures["pipe"]["rows_per_s"]).median, at_least=0.4, reach=0.7)]  # fmt: skip
    notes = [
        f"From {DATES} Parquet files by date to Redis, all rows new; the whole process, its start included.",
        "What redis-cli sends was read, encoded and checked before, and compares nothing.",
    ]
    versions: Mapping[str, str] = {}
    if "feast" in figures:
        aims.append(Target("materialize Parquet -> Redis over `feast materialize`, rows/s",
                           rate.over(figures["feast"]["rows_per_s"]).median, at_least=100, reach=200))  # fmt: skip
        notes.append(
            f"Feast: {FEAST_ENTITIES:,} entities, a million take it minutes; without its start, which takes seconds."
        )
        versions = feast_peer.versions()
    save("materialize", "Materialization end to end", [table], targets=aims, notes=notes, versions=versions)


# ---- the systems -----------------------------------------------------------------------------------


def fastserve(repo: Path, port: int, redis_pid: int, kind: str) -> Mapping[str, float]:
    """One run of a fresh copy of the repo into an empty store."""
    flush(port)
    with copied(repo) as work:
        note = work / "peak"
        command = [
            sys.executable,
            "-m",
            "bench.peak",
            str(note),
            "materializer.cli",
            "run",
            "--repo",
            str(work),
        ]
        with accounted(redis_pid, ENTITIES) as took:
            done = subprocess.run(
                [*command, *WINDOW, *RUNS[kind][1]], cwd=ROOT, capture_output=True, check=False
            )
        if done.returncode:
            raise SystemExit(f"{kind}: {done.stderr.decode()}")
        summary = json.loads(done.stdout)["views"][0]
        wanted = {"rows_online_written": ENTITIES, "rows_offline_new": ENTITIES if kind == "both" else 0}
        assert {name: summary[name] for name in wanted} == wanted, summary
        return {**took, "peak": int(note.read_text()) / MIB}


def pipe(port: int, redis_pid: int, ready: Path) -> Mapping[str, float]:
    """The same rows by redis-cli."""
    flush(port)
    command = ["redis-cli", "-p", str(port), "--pipe"]
    with ready.open("rb") as sent, accounted(redis_pid, ENTITIES) as took:
        done = subprocess.run(command, stdin=sent, capture_output=True, text=True, check=True)
    assert f"errors: 0, replies: {ENTITIES}" in done.stdout, done.stdout
    return took


def feast(peer: Path, port: int, redis_pid: int) -> Mapping[str, float]:
    """Feast's run of its entities."""
    flush(port)
    before = cpu_s(redis_pid)
    took: dict[str, float] = json.loads(feast_peer.python(_MATERIALIZE, peer).splitlines()[-1])
    return {
        "rows_per_s": FEAST_ENTITIES / took["seconds"],
        "cpu": took["cpu_s"] * 1e6 / FEAST_ENTITIES,
        "redis_cpu": (cpu_s(redis_pid) - before) * 1e6 / FEAST_ENTITIES,
        "peak": took["peak"] / MIB,
    }


@contextmanager
def accounted(redis_pid: int, rows: int) -> Iterator[dict[str, float]]:
    """What the processes started within took, and Redis meanwhile; filled in at the end."""
    took: dict[str, float] = {}
    before, redis_before, begun = children_s(), cpu_s(redis_pid), time.perf_counter()
    yield took
    took["rows_per_s"] = rows / (time.perf_counter() - begun)
    took["cpu"] = (children_s() - before) * 1e6 / rows
    took["redis_cpu"] = (cpu_s(redis_pid) - redis_before) * 1e6 / rows


def children_s() -> float:
    """Seconds of CPU of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- what they read --------------------------------------------------------------------------------


def write_source(data: Path) -> Path:
    """One row of each entity in files by date, in an order that is not the keys' own."""
    data.mkdir()
    order, times = source_order()
    for i in range(DATES):
        day = slice(i * ENTITIES // DATES, (i + 1) * ENTITIES // DATES)
        pq.write_table(rows_of(order[day], times[day]), data / f"{i:02}.parquet")
    return data


def source_order() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Entities as the source has them, and their event times."""
    order = np.random.default_rng(5).permutation(ENTITIES)
    return order, T0 + np.arange(ENTITIES) * (DATES * DAY_US // ENTITIES)


def rows_of(ids: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> pa.Table:
    """A piece of the source."""
    block = values(ids)
    features = {name: np.ascontiguousarray(block[:, f]) for f, name in enumerate(NAMES)}
    stamps = pa.array(times).cast(pa.timestamp("us", "UTC"))
    return pa.table({"user_id": ids, "event_timestamp": stamps, **features})


def make_repo(repo: Path, port: int, data: Path) -> Path:
    """A repo with the view `load`."""
    repo.mkdir()
    (repo / "fastserve.toml").write_text(f'project = "bench"\nonline_store = "redis://127.0.0.1:{port}"\n')
    user = Entity("user", join_keys="user_id", dtype="int64")
    schema = [Field(name, "float32") for name in NAMES]
    with FeatureStore(repo) as store:
        store.apply([user, FeatureView("load", entities=[user], schema=schema, source=FileSource(str(data)))])
    return repo


@contextmanager
def copied(repo: Path) -> Iterator[Path]:
    """The repo as it was before any run."""
    work = repo.with_name("work")
    shutil.copytree(repo, work)
    try:
        yield work
    finally:
        shutil.rmtree(work)


def registered(repo: Path) -> RegisteredView:
    """The view as the registry has it."""
    with FeatureStore(repo) as store:
        return store.snapshot.view("load")


def write_ready(repo: Path, path: Path) -> Path:
    """What `redis-cli --pipe` sends: a SET for each row."""
    view = registered(repo)
    assert isinstance(view.view.source, FileSource)
    encoder = OnlineRows(view)
    with path.open("wb") as out:
        for chunk in scan_source(view.view.source, view, repo):
            for batch, _ in encoder.encoded(chunk, T0, chunk.num_rows):
                out.write(sets(batch.keys(), batch.rows(), None))
    return path


def make_feast(folder: Path, port: int, data: Path) -> Path:
    """A repo of Feast's with the first entities of the source."""
    folder.mkdir()
    rows = pq.read_table(data)
    pq.write_table(rows.slice(0, FEAST_ENTITIES), folder / "data.parquet")
    feast_peer.make_repo(folder, f'{{type: redis, connection_string: "127.0.0.1:{port}"}}', feast_peer.LOAD)
    return folder


# ---- are they right? -------------------------------------------------------------------------------


def verify(repo: Path, port: int, pid: int, ready: Path) -> None:
    """Every kind of run, and redis-cli, leave the same rows, right to the byte; raises AssertionError where not."""
    view = registered(repo)
    pipe(port, pid, ready)
    asyncio.run(check(view, port))
    for kind in RUNS:
        fastserve(repo, port, pid, kind)
        asyncio.run(check(view, port))


async def check(view: RegisteredView, port: int) -> None:
    """Every entity has a row, and those of a sample are what the readable twins make of the values."""
    store = open_store(f"redis://127.0.0.1:{port}", read_only=True)
    keys, rows = keys_py.KeyEncoder(view.online_id, ["int64"]), rows_py.RowEncoder(view.layout)
    order, times = source_order()
    for start in range(0, ENTITIES, CHUNK):
        ids, stamps = order[start : start + CHUNK], times[start : start + CHUNK]
        asked = store.get_many(keys.encode([ids], len(ids)))
        assert isinstance(asked, asyncio.Future)
        found = await asked
        assert None not in found, f"{found.count(None)} entities have no row"
        picks = np.random.default_rng(start).integers(0, len(ids), 40)
        columns = [pa.array(np.ascontiguousarray(column)) for column in values(ids[picks]).T]
        wanted = rows.encode(keys.encode([ids[picks]], 40), columns, stamps[picks], stamps[picks])
        assert [found[i] for i in picks] == wanted, "a row is wrong"
    await store.close()


def verify_feast(peer: Path, port: int, pid: int) -> None:
    """Feast's run leaves the right values; raises AssertionError where not."""
    feast(peer, port, pid)
    ids = pq.read_table(peer / "data.parquet", columns=["user_id"])["user_id"].to_numpy()[
        :: FEAST_ENTITIES // 50
    ]
    answer: dict[str, Any] = json.loads(
        feast_peer.python(_ANSWER, peer, json.dumps(ids.tolist())).splitlines()[-1]
    )
    assert answer["user_id"] == ids.tolist()
    assert np.array_equal(np.array([answer[name] for name in NAMES], np.float32).T, values(ids))


if __name__ == "__main__":
    sys.exit(main())
