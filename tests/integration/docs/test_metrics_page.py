"""docs/metrics.md names what both planes really tell, each with its type and labels, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import prometheus_client.parser
import pytest

from fastserve import FeatureStore
from tests.integration.control.conftest import Plane, make_repo, running
from tests.servers import RedisServer, start_redis

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `((?:fastserve|process|python)_\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", re.MULTILINE)
ALERT = re.compile(r"^\| [^|`]+ \| `([^`]+)` \|", re.MULTILINE)

ON_DEMAND = """
from fastserve import FeatureService, Field, RequestSource, on_demand_feature_view

@on_demand_feature_view(sources=[RequestSource("r", [Field("a", "int64")])], schema=[Field("b", "int64")])
def doubled(inputs):
    return {"b": inputs["a"] * 2}

service = FeatureService("doubling", [doubled])
"""


def documented(heading: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> (type, labels) of the table under a heading."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    rows = ROW.findall(section)
    assert len(rows) == section.count("\n| `"), "every row is understood"
    return {name: (kind, frozenset(labels.split(",")) - {""}) for name, labels, kind in rows}


def told(plane: Plane, ignore: str = "") -> dict[str, tuple[str, frozenset[str]]]:
    """The same of a server's answer."""
    status, text = plane.ask("GET", "/metrics")
    assert status == 200
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for family in prometheus_client.parser.text_string_to_metric_families(text):
        assert family.samples, f"{family.name} is told of, so that its labels can be compared"
        for sample in family.samples:
            kind = "gauge" if sample.name.endswith("_created") else family.type
            found[sample.name] = kind, frozenset(sample.labels) - {ignore}
    return found


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Path:
    """A repo with a materialization and a reconciliation behind it, on Redis: with a cache."""
    folder = make_repo(tmp_path_factory.mktemp("metrics") / "repo")
    with (folder / "fastserve.toml").open("a") as settings:
        settings.write(f'online_store = "{redis.url}"\n')
    (folder / "on_demand.py").write_text(ON_DEMAND)
    with FeatureStore(folder) as store:
        store.materialize_incremental(["v0"])
        assert store.reconcile(["v0"]).ok
        store.apply()
    return folder


def test_the_data_plane(repo: Path) -> None:
    with running(repo, "serve", "--workers", "2", "--log-answers", "answers") as plane:
        assert told(plane, ignore="worker") == documented("Data plane")


def test_the_control_plane(repo: Path) -> None:
    with running(repo) as plane:
        assert plane.ask("GET", "/health/live")[0] == 200  # a request that is counted
        assert told(plane) == documented("Control plane")


def test_alerts_name_metrics_that_exist() -> None:
    known = documented("Data plane") | documented("Control plane")
    alerts = ALERT.findall(PAGE.split("\n## What to alert on", 1)[1])
    assert len(alerts) >= 10
    for alert in alerts:
        named = set(re.findall(r"\b(?:fastserve|process)_\w+", alert))
        assert named <= known.keys() and (named or "up{" in alert), alert
