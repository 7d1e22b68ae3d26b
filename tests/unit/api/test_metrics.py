"""/metrics: every worker's figures, grouped as Prometheus wants them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import prometheus_client.parser

from fastserve.api.metrics import Metrics, render
from fastserve.http.message import Request, Response

GET = Request("GET", "/metrics")


def samples(response: Response) -> dict[tuple[str, str], float]:
    text = bytes(response.body).decode()
    families = list(prometheus_client.parser.text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "all lines of a figure stand together"
    return {(s.name, s.labels["worker"]): s.value for family in families for s in family.samples}


def answer(metrics: Metrics) -> Response:
    handle = metrics.routes["/metrics"][1]
    response = handle(GET)
    assert isinstance(response, Response)
    return response


def test_a_worker_alone_tells_its_own() -> None:
    found = samples(answer(Metrics(0, {"cache": lambda: {"hits": 3, "entries": 2}})))
    assert found[("fastserve_cache_hits_total", "0")] == 3
    assert found[("fastserve_cache_entries", "0")] == 2
    assert found[("fastserve_process_rss_bytes", "0")] > 1e6
    assert found[("fastserve_process_cpu_user_seconds_total", "0")] > 0


async def test_whoever_is_asked_tells_of_all(tmp_path: Path) -> None:
    workers = [Metrics(i, {"http": lambda i=i: {"requests": 10 * i}}, str(tmp_path)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        found = samples(answer(worker))
        assert [found[("fastserve_http_requests_total", str(i))] for i in range(3)] == [0, 10, 20]
        worker.close()


async def test_a_worker_that_tells_nothing_any_more_is_gone(tmp_path: Path) -> None:
    workers = [Metrics(i, {}, str(tmp_path)) for i in range(2)]
    for worker in workers:
        worker.start()
        worker.close()
    assert {worker for _, worker in samples(answer(workers[0]))} == {"0", "1"}
    long_ago = time.time() - 60
    os.utime(tmp_path / "1.json", (long_ago, long_ago))
    assert {worker for _, worker in samples(answer(workers[0]))} == {"0"}


def test_large_counts_are_exact() -> None:
    assert b'fastserve_x_total{worker="0"} 9007199254740991\n' in render({0: {"x": 2**53 - 1}})
