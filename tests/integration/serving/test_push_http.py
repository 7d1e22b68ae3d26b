"""POST /push and /write-to-online-store of a real server: Feast's bodies, bad input, kill -9, readers meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from tests.integration.serving.push_kit import ago, history, make, online, rows, table_of
from tests.servers import RedisServer, serving, start_redis

ROOT = Path(__file__).resolve().parents[3]
READ = {"features": ["stats:n"], "entities": {"user_id": [1, 2]}}


def ask(
    port: int, path: str, body: Any, content_type: str = "application/json"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"content-type": content_type})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def push(port: int, df: Any, to: str = "online", source: str = "clicks") -> tuple[int, dict[str, str], bytes]:
    return ask(port, "/push", {"push_source_name": source, "df": df, "to": to})


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("push"))


@pytest.fixture(scope="module")
def port(repo: Path) -> Iterator[int]:
    with serving(repo) as (port, _):
        yield port


def test_feasts_bodies(port: int, repo: Path) -> None:
    body = {
        "push_source_name": "clicks",
        "df": rows([1], 3),
        "to": "online_and_offline",
        "allow_registry_cache": True,
        "transform_on_write": True,
    }
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        status, headers, data = ask(port, "/push", body, content_type)
        assert (status, data) == (200, b"") and headers["content-length"] == "0"
    df = {
        "user_id": [2],
        "n": [4],
        "x": [0.5],
        "event_timestamp": ["2026-01-01T00:00:00"],
        "created": [ago(3)],
    }
    df["event_timestamp"] = [ago(4).removesuffix("Z")]
    status, headers, data = ask(port, "/write-to-online-store", {"feature_view_name": "stats", "df": df})
    assert (status, headers["content-type"], data) == (200, "application/json", b"null")
    assert json.loads(ask(port, "/online-features/batch", READ)[2])["values"] == [[3, 4]]
    with FeatureStore(repo) as store:
        assert [(r["user_id"], r["n"]) for r in history(store)] == [(1, 3)]


def test_every_type_in_its_json_form(port: int, repo: Path) -> None:
    df = {
        "city": ["x"] * 2,
        "country": ["1", "2"],
        "flag": [True, None],
        "small": [-5, None],
        "single": ["NaN", 1.5],
        "moment": ["2026-01-02T03:04:05.678901Z", None],
        "text": ["zażółć", None],
        "blob": ["AP8=", None],
        "vector": [[1.0, "Infinity"], None],
        "names": [["a", ""], None],
        "blobs": [["AA==", ""], None],
        "event_timestamp": [ago(1)] * 2,
    }
    assert push(port, df, "both", "places")[0] == 200
    with FeatureStore(repo) as store:
        [one] = [row for row in history(store, "kinds") if row["country"] == "1"]
        assert repr(one["single"]) == "nan" and one["vector"] == [1.0, float("inf")]
        assert (one["blob"], one["blobs"], one["names"]) == (b"\x00\xff", [b"\x00", b""], ["a", ""])
        assert one["moment"].microsecond == 678901
    names = [name for name in df if name not in ("city", "country", "event_timestamp")]
    asked = {
        "features": [f"kinds:{n}" for n in names],
        "entities": {"city": df["city"], "country": df["country"]},
    }
    answer = json.loads(ask(port, "/online-features/batch", asked)[2])
    assert dict(zip(answer["names"], answer["values"], strict=True)) == {n: df[n] for n in names}


def test_nan_as_feasts_client_writes_it(port: int, repo: Path) -> None:
    body = json.dumps({"push_source_name": "clicks", "df": {**rows([50], 1), "x": [float("nan")]}}).encode()
    assert b"NaN" in body and ask(port, "/push", body)[0] == 200
    with FeatureStore(repo) as store:
        assert repr(store.get_online_features(["stats:x"], {"user_id": [50]}).to_dict()["x"]) == "[nan]"


OK: dict[str, Any] = {**rows([1], at="2026-01-01T00:00:00Z")}
P, W = "/push", "/write-to-online-store"


def pushed(**change: Any) -> dict[str, Any]:
    return {"push_source_name": "clicks", "df": OK, "to": "both", **change}


def df_with(**change: Any) -> dict[str, Any]:
    return pushed(df={name: values for name, values in {**OK, **change}.items() if values is not ...})


# (path, body, status, what it must say)
BAD: list[tuple[str, Any, int, str]] = [
    (P, b"", 422, "not valid JSON"),
    (P, b"{", 422, "not valid JSON"),
    (P, b'{"push_source_name": "clicks", "df": {"x": [NaN}', 422, "not valid JSON"),
    (P, b"\xff\xfeNaN", 422, "not valid JSON"),
    (P, b'{"df": NaN' + b"[" * 20_000, 422, "not valid JSON"),
    (P, b"[" * 5_000 + b"]" * 5_000, 422, "JSON"),
    (P, b"null", 422, "not a JSON object"),
    (P, [], 422, "not a JSON object"),
    (P, {}, 422, "$.push_source_name"),
    (P, pushed(push_source_name=None), 422, "$.push_source_name"),
    (P, pushed(push_source_name=""), 422, "$.push_source_name"),
    (P, pushed(push_source_name=["clicks"]), 422, "$.push_source_name"),
    (P, pushed(push_source_name="click"), 422, "did you mean 'clicks'"),
    (P, pushed(push_source_name="lonely"), 422, "no feature view"),
    (P, pushed(to="nowhere"), 422, "$.to"),
    (P, pushed(to=None), 422, "$.to"),
    (P, pushed(to=["online"]), 422, "$.to"),
    (P, pushed(df=None), 422, "$.df"),
    (P, pushed(df=[OK]), 422, "$.df"),
    (P, pushed(df="rows"), 422, "$.df"),
    (P, pushed(df={}), 422, "event_timestamp"),
    (P, df_with(user_id=1), 422, "column 'user_id'"),
    (P, df_with(user_id={"0": 1}), 422, "column 'user_id'"),
    (P, df_with(user_id=[None]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=[1, 2]), 422, "has 1 values"),
    (P, df_with(user_id=[{"a": 1}]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=[[1]]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=[2**63]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=[10**40]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=[1.5]), 422, "column 'user_id', row 0"),
    (P, df_with(user_id=...), 422, "'user_id'"),
    (P, df_with(n=...), 422, "'n'"),
    (P, df_with(n=["x"]), 422, "column 'n', row 0"),
    (P, df_with(x=["x"]), 422, "column 'x', row 0"),
    (P, df_with(x=[[1.0]]), 422, "column 'x', row 0"),
    (P, df_with(extra=[1]), 422, "unknown column 'extra'"),
    (P, df_with(event_timestamp=...), 422, "event_timestamp"),
    (P, df_with(event_timestamp=[None]), 422, "column 'event_timestamp', row 0"),
    (P, df_with(event_timestamp=[1_700_000_000]), 422, "column 'event_timestamp', row 0"),
    (P, df_with(event_timestamp=["yesterday"]), 422, "column 'event_timestamp', row 0"),
    (P, df_with(event_timestamp=["2999-01-01T00:00:00Z"]), 422, "in the future"),
    (P, df_with(event_timestamp=["0000-01-01T00:00:00Z"]), 422, "column 'event_timestamp', row 0"),
    (P, df_with(created=["2999-01-01T00:00:00Z"]), 422, "in the future"),
    (P, pushed(push_source_name="places", df={"blob": ["%%"], "event_timestamp": [""]}), 422, "base64"),
    (P, pushed(push_source_name="places", df={"blob": [5], "event_timestamp": [""]}), 422, "base64"),
    (P, pushed(df={name: values * 10_001 for name, values in OK.items()}), 413, "10,001 rows"),
    (W, {"df": OK}, 422, "$.feature_view_name"),
    (W, {"feature_view_name": "stat", "df": OK}, 404, "did you mean 'stats'"),
    (W, {"feature_view_name": "stats@v9", "df": OK}, 404, "no version 9"),
    (W, {"feature_view_name": "stats@vx", "df": OK}, 422, "not a view"),
    (W, {"feature_view_name": "stats@v" + "9" * 5000, "df": OK}, 422, "not a view"),
    (W, {"feature_view_name": "totals", "df": OK}, 422, "unknown column 'x'"),
    (W, {"feature_view_name": "stats"}, 422, "$.df"),
]


@pytest.mark.parametrize("case", BAD, ids=[f"{i} {case[3]}" for i, case in enumerate(BAD)])
def test_bad_input_is_told_in_feasts_way_and_changes_nothing(port: int, repo: Path, case: Any) -> None:
    path, body, status, says = case
    with FeatureStore(repo) as store:
        before = table_of(store, "stats").version, online(store, [1])
        got, headers, data = ask(port, path, body)
        assert got == status, data
        assert headers["content-type"] == "application/json"
        error = json.loads(json.loads(data))
        assert set(error) == {"module", "class", "message"} and error["module"] == "feast.errors"
        assert says in error["message"], error
        assert (table_of(store, "stats").version, online(store, [1])) == before


def test_too_many_at_once_are_told_to_come_again(port: int, repo: Path) -> None:
    """20 pushes of 5 MB each at once are beyond the bytes that may wait."""
    df = rows(range(9_000), 1)
    df["event_timestamp"] = [text.ljust(500) for text in df["event_timestamp"]]  # long, and not a time
    body = json.dumps({"push_source_name": "clicks", "df": df}).encode()
    found: list[tuple[int, dict[str, str], bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(ask(port, "/push", body))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {status for status, _, _ in found} <= {422, 429} and len(found) == 20
    refused = [headers for status, headers, _ in found if status == 429]
    assert refused and all(int(headers["retry-after"]) > 0 for headers in refused)
    assert ask(port, "/online-features/batch", READ)[0] == 200


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


class Producer(threading.Thread):
    """Pushes one row after another until its server is gone; notes what was acknowledged."""

    def __init__(self, port: int, first: int, enough: threading.Event) -> None:
        super().__init__()
        self.port, self.first, self.enough = port, first, enough
        self.tried: list[int] = []
        self.acknowledged: list[int] = []

    def run(self) -> None:
        i = self.first
        while True:
            self.tried.append(i)
            try:
                status, _, _ = push(self.port, rows([i], i), "online_and_offline")
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                self.acknowledged.append(i)
                if len(self.acknowledged) == 5:
                    self.enough.set()
            i += 1


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_what_was_acknowledged_survives_kill_9(kind: str, tmp_path: Path, redis: RedisServer) -> None:
    repo = make(tmp_path, redis.url if kind == "redis" else "")
    tried: list[int] = []
    acknowledged: list[int] = []
    for round in range(3):
        enough = threading.Event()
        with serving(repo, "--workers", "2") as (port, process):
            producers = [Producer(port, round * 100_000 + k * 10_000, enough) for k in range(4)]
            for producer in producers:
                producer.start()
            assert enough.wait(60)
            os.killpg(process.pid, signal.SIGKILL)  # the workers too
            for producer in producers:
                producer.join(60)
        tried += [i for producer in producers for i in producer.tried]
        acknowledged += [i for producer in producers for i in producer.acknowledged]
    with FeatureStore(repo) as store:
        assert len(acknowledged) >= 15
        held = {row["user_id"]: row["n"] for row in history(store)}
        assert [held.get(i) for i in acknowledged] == acknowledged
        assert online(store, acknowledged) == acknowledged
        served = {i for i, n in zip(tried, online(store, tried), strict=True) if n is not None}
        assert served <= set(held), "nothing is online that history lacks"


def test_readers_meanwhile_see_values_that_were_pushed_in_their_order(tmp_path: Path) -> None:
    repo = make(tmp_path)
    with serving(repo) as (port, _):
        assert push(port, rows([1, 2], 0), "both")[0] == 200
        done = threading.Event()
        seen: list[list[int]] = []

        def read() -> None:
            while not done.is_set():
                status, _, data = ask(port, "/online-features/batch", READ)
                assert status == 200
                seen.append(json.loads(data)["values"][0])

        reader = threading.Thread(target=read)
        reader.start()
        for n in range(1, 15):
            assert push(port, rows([1, 2], n, at=ago(0.001)), "both")[0] == 200
            assert json.loads(ask(port, "/online-features/batch", READ)[2])["values"] == [[n, n]]
        done.set()
        reader.join(30)
    assert seen and all(len(values) == 2 for values in seen)
    for column in zip(*seen, strict=True):
        assert list(column) == sorted(column), "newer rows only"


@pytest.mark.parametrize("to", ["online", "offline", "online_and_offline"])
def test_no_rows_are_a_push_too(port: int, to: str) -> None:
    assert push(port, {"user_id": [], "n": [], "x": [], "event_timestamp": []}, to)[0] == 200
