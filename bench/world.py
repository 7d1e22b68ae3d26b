"""What the serving benchmarks read: one view of 50 float32 in a Redis of our own, and servers before it.

The value of a feature is a function of entity and feature, so that any answer can be checked by anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from bench.processes import CLIENT_CORE, SERVER_CORE, running
from fastserve import FeatureStore
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowEncoder
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.timeutil import now_us

ROOT: Final = Path(__file__).parents[1]
FEATURES: Final = 50
NAMES: Final = tuple(f"f{i:02}" for i in range(FEATURES))
JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
TENSOR: Final = "application/vnd.fastserve.tensor"
_DEFINITIONS: Final = """
from fastserve import Entity, FeatureService, FeatureView, Field

user = Entity("user", join_keys="user_id", dtype="int64")
load = FeatureView("load", entities=[user], schema=[Field(f"f{i:02}", "float32") for i in range(50)],
                   max_staleness=MAX_STALENESS)
model = FeatureService("model", [load])
"""


def values(ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """float32[n, FEATURES]: what the features of these entities are."""
    mixed = np.asarray(ids, np.int64)[:, None] * 7_919 + np.arange(FEATURES) * 104_729
    return (mixed % 1_000_003 / 997).astype(np.float32)


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class World:
    """A repo and its Redis.

    Attributes:
        entities: ids 0 … entities - 1 have rows.
    """

    repo: Path
    redis_port: int
    redis_pid: int
    entities: int

    @contextlib.contextmanager
    def serving(self, *options: str, core: int = SERVER_CORE) -> Iterator[Server]:
        """A server of one worker, or as the options say."""
        command = [sys.executable, "-m", "fastserve.cli.main", "serve", "--port", "0", "--json", *options]
        env = {"PYTHONPATH": str(ROOT)}
        with running(command, core=core, ready=b'"ready"', env=env, cwd=str(self.repo)) as started:
            yield Server(started.port, started.process.pid)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, and the process whose CPU is counted."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """The batch endpoint."""
        return f"http://127.0.0.1:{self.port}/online-features/batch"


@contextlib.contextmanager
def world(entities: int = 10_000, *, max_staleness: str = "60s") -> Iterator[World]:
    """A Redis on the clients' core with rows of so many entities, and a repo that reads it.

    Args:
        max_staleness: of the view; the default is the servers' own.
    """
    with tempfile.TemporaryDirectory(prefix="fastserve-bench-") as folder, redis(folder) as (port, pid):
        repo = Path(folder, "repo")
        repo.mkdir()
        (repo / "features.py").write_text(f"MAX_STALENESS = {max_staleness!r}\n{_DEFINITIONS}")
        (repo / "fastserve.toml").write_text(
            f'project = "bench"\nonline_store = "redis://127.0.0.1:{port}"\n'
        )
        with FeatureStore(repo) as store:
            store.apply()
            snapshot = store.snapshot
        asyncio.run(_fill(port, snapshot, entities))
        yield World(repo, port, pid, entities)


@dataclass(frozen=True, slots=True)
class Pair:
    """A world and two servers before it.

    Attributes:
        hit: has a cache that holds every row.
        miss: has none, and asks Redis for each.
    """

    made: World
    hit: Server
    miss: Server

    def drawn(self, n: int, lists: int) -> list[list[int]]:
        """So many lists of n entities, the same in every run."""
        draw = np.random.default_rng(n)
        return [draw.choice(self.made.entities, n, replace=False).tolist() for _ in range(lists)]

    def warm(self, n: int, lists: int) -> list[list[int]]:
        """`drawn`, once all of them are in the cache of `hit`."""
        found = self.drawn(n, lists)
        for ids in found:
            until_cached(self.hit, ids)
        return found


@contextlib.contextmanager
def hit_and_miss() -> Iterator[Pair]:
    """The default world, one server that answers from its cache, and one that never does."""
    with (
        world() as made,
        made.serving("--cache-mb", "64") as hit,
        made.serving("--cache-mb", "0") as miss,
    ):
        yield Pair(made, hit, miss)


@contextlib.contextmanager
def redis(folder: str, *options: str, core: int = CLIENT_CORE) -> Iterator[tuple[int, int]]:
    """A redis-server that keeps nothing on disk: (port, pid)."""
    port = free_port()
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        folder,
        *options,
    ]
    with running(command, core=core, ready=b"Ready to accept") as started:
        yield port, started.process.pid


class Rows:
    """Keys and rows of the view, for the store.

    Args:
        view: the registered view `load`.
    """

    def __init__(self, view: Any) -> None:
        self._keys = KeyEncoder(view.view_id, ["int64"])
        self._rows = RowEncoder(view.layouts[-1])

    def encode(
        self, ids: npt.NDArray[np.int64], block: npt.NDArray[np.float32], age_us: int = 0
    ) -> tuple[list[bytes], list[bytes]]:
        """Of events that are so old.

        Args:
            ids: int64[n].
            block: float32[n, FEATURES].
        """
        keys = self._keys.encode([ids], len(ids))
        stamps = np.full(len(ids), now_us() - age_us, np.int64)
        columns = [pa.array(np.ascontiguousarray(block[:, f])) for f in range(FEATURES)]
        return keys, self._rows.encode(keys, columns, stamps, stamps)


async def _fill(port: int, snapshot: Any, entities: int) -> None:
    rows = Rows(snapshot.view("load"))
    store = open_store(f"redis://127.0.0.1:{port}")
    await claim(store, snapshot.registry_id)
    for start in range(0, entities, 5_000):
        ids = np.arange(start, min(start + 5_000, entities))
        await store.put_many(*rows.encode(ids, values(ids), age_us=60_000_000))
    await store.close()


def body_of(ids: Sequence[int]) -> bytes:
    """A request for the service `model`."""
    return orjson.dumps({"feature_service": "model", "entities": {"user_id": list(map(int, ids))}})


def ask(url: str, body: bytes, accept: str = JSON, *options: str) -> bytes:
    """One answer, by curl over HTTP/2 with prior knowledge.

    Raises:
        RuntimeError: the answer is no 200.
    """
    command = [
        "curl",
        "-s",
        "--http2-prior-knowledge",
        "--fail-with-body",
        "-H",
        f"accept: {accept}",
        *options,
    ]
    command += ["-H", "content-type: application/json", "--data-binary", "@-", url]
    done = subprocess.run(command, input=body, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{url}: {done.stdout[:500]!r} {done.stderr!r}")
    return done.stdout


def check(answer: bytes, accept: str, ids: Sequence[int]) -> None:
    """Raise AssertionError unless the answer has these entities' values, all PRESENT."""
    wanted = values(ids)
    if accept == JSON:
        data = json.loads(answer)
        assert np.array_equal(np.array(data["values"], np.float32).T, wanted)
        assert all(status == 1 for column in data["statuses"] for status in column)
    elif accept == ARROW:
        table = pa.ipc.open_stream(answer).read_all()
        assert np.array_equal(np.stack([table[name].to_numpy() for name in NAMES], axis=1), wanted)
    else:
        statuses = answer[-len(ids) :]
        assert statuses == bytes([1]) * len(ids), f"statuses of {ids}: {list(statuses)}"
        matrix = np.frombuffer(answer, "<f4", wanted.size).reshape(wanted.shape)
        assert np.array_equal(matrix, wanted), f"values of {ids}: {matrix}"


def until_cached(server: Server, ids: Sequence[int]) -> None:
    """Ask until the server's cache answers, which it may once its change feed stands.

    Raises:
        RuntimeError: it does not within ten seconds.
    """
    body = body_of(ids)
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        before = metric(server, "cache_hits_total")
        ask(server.url, body, TENSOR)
        if metric(server, "cache_hits_total") - before == len(set(ids)):
            return
        time.sleep(0.05)
    raise RuntimeError("the cache does not answer: is the change feed up?")


def metric(server: Server, name: str) -> float:
    """The sum of a figure of GET /metrics over workers."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    text = subprocess.run(["curl", "-s", url], capture_output=True, text=True, check=True).stdout
    found = [
        line for line in text.splitlines() if line.startswith((f"fastserve_{name} ", f"fastserve_{name}{{"))
    ]
    return sum(float(line.rpartition(" ")[2]) for line in found)
