"""Against Feast's own feature server, on the same Redis, in turns of one run: requests answered a second.

One worker each, on the same core; the store and the clients on the other. The Feast that is asked lives in an
environment of its own (FASTSERVE_FEAST_VENV; `make feast-conformance` makes one), one worker without access log.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from bench import feast_peer
from bench.measure import Figure, alternate
from bench.processes import SERVER_CORE, h2load, running
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import (
    ARROW,
    FEATURES,
    JSON,
    NAMES,
    TENSOR,
    Server,
    World,
    ask,
    body_of,
    check,
    free_port,
    values,
    world,
)

ENTITIES: Final = scaled(1_000, 100)
SIZES: Final = scaled((1, 10, 100), (100,))
FEAST_PATH: Final = "/get-online-features"
CONNECTIONS: Final = 8

_LOAD: Final = """
import sys
import pandas as pd
from feast import FeatureStore
frame = pd.read_parquet("data.parquet")
store = FeatureStore(".")
for start in range(0, len(frame), 100):
    store.write_to_online_store("load", frame.iloc[start:start + 100])
"""

Measure = Callable[[], Mapping[str, float]]


def main(seconds: float = 4.0) -> int:
    """Measure and write bench/results/vs_feast.json."""
    with tempfile.TemporaryDirectory() as folder, world(ENTITIES) as made, feast(made, Path(folder)) as peer:
        with made.serving() as server:
            systems: dict[str, Measure] = {}
            for n in SIZES:
                ids = np.random.default_rng(n).choice(ENTITIES, n, replace=False).tolist()
                body, feast_body = Path(folder, f"{n}.json"), Path(folder, f"{n}.feast.json")
                body.write_bytes(body_of(ids))
                feast_body.write_bytes(
                    json.dumps({"feature_service": "model", "entities": {"user_id": ids}}).encode()
                )
                check_feast(peer, server, feast_body.read_bytes(), ids)
                for form, accept in (("JSON", JSON), ("Arrow", ARROW), ("tensor", TENSOR)):
                    check(ask(server.url, body.read_bytes(), accept), accept, ids)
                    systems[f"{n} {form}"] = loaded(server, server.url, body, accept, seconds)
                own = f"http://127.0.0.1:{server.port}{FEAST_PATH}"
                systems[f"{n} as Feast"] = loaded(server, own, feast_body, JSON, seconds)
                url = f"http://127.0.0.1:{peer.port}{FEAST_PATH}"
                systems[f"{n} Feast"] = loaded(peer, url, feast_body, JSON, seconds, http1=True)
            report(alternate(systems))
    return 0


@contextmanager
def feast(made: World, folder: Path) -> Iterator[Server]:
    """Feast's feature server of the same rows, in the same Redis."""
    import pandas as pd  # noqa: PLC0415  (the data's form; only here)

    frame = pd.DataFrame(values(np.arange(ENTITIES)), columns=list(NAMES))
    frame.insert(0, "user_id", np.arange(ENTITIES))
    frame.insert(1, "event_timestamp", pd.Timestamp.now(tz="UTC") - pd.Timedelta(minutes=1))
    frame.to_parquet(folder / "data.parquet")
    feast_peer.make_repo(
        folder, f'{{type: redis, connection_string: "127.0.0.1:{made.redis_port}"}}', feast_peer.LOAD
    )
    feast_peer.python(_LOAD, folder)
    port = free_port()
    command = [
        f"{feast_peer.VENV}/bin/feast",
        "serve",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "--workers",
        "1",
        "--no-access-log",
    ]
    command += ["--registry_ttl_sec", "3600"]
    with running(
        command, core=SERVER_CORE, ready=b"startup complete", env=feast_peer.ENV, cwd=str(folder)
    ) as started:
        yield Server(port, started.process.pid)


def check_feast(peer: Server, own: Server, body: bytes, ids: Sequence[int]) -> None:
    """Both answer the same values, and these are right."""
    answers = []
    for server, how in ((peer, ["--http1.1"]), (own, [])):
        url = f"http://127.0.0.1:{server.port}{FEAST_PATH}"
        answers.append(json.loads(ask(url, body, JSON, *how)))
    for answer in answers:
        names = answer["metadata"]["feature_names"]
        got = {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}
        assert got["user_id"] == list(ids)
        assert np.array_equal(np.array([got[name] for name in NAMES], np.float32).T, values(ids))
    assert len(answers[0]["results"]) == FEATURES + 1


def loaded(
    server: Server, url: str, body: Path, accept: str, seconds: float, *, http1: bool = False
) -> Measure:
    """Eight connections; over HTTP/2 of ten streams each."""

    def once() -> Mapping[str, float]:
        headers = [f"accept: {accept}", "content-type: application/json"]
        streams = 1 if http1 else 10
        connections = 2 * CONNECTIONS if http1 else CONNECTIONS
        load = h2load(url, server.pid, connections=connections, streams=streams, seconds=seconds, body=body,
                      headers=headers, http1=http1)  # fmt: skip
        assert not load.failed, f"{url}: {load.failed} failed"
        return load.quantities()

    return once


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Tables, targets, file."""

    def rate(name: str) -> Figure:
        return Figure(tuple(found[name]["requests_per_s"]), smaller_is_better=False)

    table = Table(
        "entities x 50 float32", {"requests_per_s": "", "p50_us": "", "p99_us": "", "over_Feast": "x"}
    )
    for n in SIZES:
        for form in ("Feast", "as Feast", "JSON", "Arrow", "tensor"):
            row = f"{n} {form}"
            times = {q: Figure(tuple(found[row][q])) for q in ("p50_us", "p99_us")}
            table.add(row, requests_per_s=rate(row), **times, over_Feast=rate(row).over(rate(f"{n} Feast")))
    targets = [
        Target(f"100 x 50 {what} over Feast, requests/s", rate(f"100 {form}").over(rate("100 Feast")).median,
               at_least=least, reach=reach)
        for what, form, least, reach in (
            ("native JSON", "JSON", 100, 300), ("/get-online-features", "as Feast", 40, 100),
            ("Arrow", "Arrow", 300, 700), ("tensor", "tensor", 300, 700),
        )
    ]  # fmt: skip
    save(
        "vs_feast",
        "Against Feast's feature server",
        [table],
        targets=targets,
        versions=feast_peer.versions(),
    )


if __name__ == "__main__":
    sys.exit(main())
