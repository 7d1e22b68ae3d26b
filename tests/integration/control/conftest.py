"""Both planes as processes of their own, over a repo with twenty views that each have a file."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastserve import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource
from tests import servers
from tests.servers import PG_BIN, PostgresServer, start_postgres

ROOT = Path(__file__).parents[3]
VIEWS = 20
DAY_US = 86_400_000_000
USER = Entity("user", join_keys="user_id", dtype="int64", description="somebody who buys", owner="ana")


@dataclass
class Plane:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of one request."""
        status, _, text = self.raw(method, path, body, headers)
        try:
            return status, json.loads(text)
        except json.JSONDecodeError:
            return status, text.decode()

    def raw(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        given = {"content-type": "application/json"} if data is not None else {}
        connection.request(method, path, data, given | (headers or {}))
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(repo: Path, command: str = "control", *options: str) -> Iterator[Plane]:
    """`fastserve control` or `fastserve serve`; killed if it does not end by itself."""
    with (
        (repo / f"{command}.log").open("a") as log,
        servers.serving(repo, "--json", *options, command=command, stderr=log) as (port, process),
    ):
        yield Plane(process, port)


def definitions() -> list[Any]:
    made: list[Any] = [USER, PushSource("clicks", FileSource("data/v0.parquet"))]
    for i in range(VIEWS):
        schema = [Field("spend", "float64", description="money spent"), Field("clicks", "int64", default=0)]
        source = FileSource(f"data/v{i}.parquet", created_timestamp_column="created")
        made.append(FeatureView(f"v{i}", entities=[USER], schema=schema, source=source, tags={"team": "ads"}))
    made.append(FeatureView("pushed", entities=[USER], schema=[Field("x", "int64")]))
    made.append(FeatureService("ranking", [made[2], made[3][["clicks"]].with_name("other")]))
    return made


def make_repo(folder: Path, registry: str = "", days: int = 3) -> Path:
    """The repo, applied; `days` dates in each view's file."""
    (folder / "data").mkdir(parents=True)
    lines = ['project = "shop"', *([f'registry = "{registry}"'] if registry else [])]
    (folder / "fastserve.toml").write_text("\n".join(lines) + "\n")
    times = pa.array([1_700_000_000_000_000 + day * DAY_US for day in range(days)], pa.timestamp("us", "UTC"))
    columns = {"user_id": pa.array(range(days), pa.int64()), "event_timestamp": times, "created": times}
    columns |= {"spend": pa.array([1.5] * days), "clicks": pa.array(range(days), pa.int64())}
    for i in range(VIEWS):
        pq.write_table(pa.table(columns), folder / "data" / f"v{i}.parquet")
    with FeatureStore(folder) as store:
        store.apply(definitions())
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if not PG_BIN.exists():
        pytest.skip(f"no PostgreSQL in {PG_BIN}")
    with start_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def registry_url(request: pytest.FixtureRequest) -> str:
    """'' for the repo's own SQLite file, or the URL of an empty PostgreSQL database."""
    if request.param == "sqlite":
        return ""
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.make_database()


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repo(tmp_path_factory.mktemp("control") / "repo")


@pytest.fixture(scope="module")
def plane(repo: Path) -> Iterator[Plane]:
    """A control plane that runs two jobs at a time."""
    with running(repo) as made:
        yield made


@pytest.fixture(scope="module")
def queueing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane over a repo of its own that only queues jobs."""
    with running(
        make_repo(tmp_path_factory.mktemp("queueing") / "repo"), "control", "--max-jobs", "0"
    ) as made:
        yield made
