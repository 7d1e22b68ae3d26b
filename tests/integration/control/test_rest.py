"""The control plane over REST: definitions, jobs, metrics, health."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from tests.integration.control.conftest import USER, VIEWS, Plane, make_repo, running
from tests.servers import start_redis

SHOP = {"kind": "entity", "name": "shop", "dtypes": ["int64"], "join_keys": ["shop_id"]}
SALES = {
    "name": "sales",
    "entities": ["shop"],
    "schema": [{"name": "total", "dtype": "float64"}],
    "ttl": "2h",
}


def wait_for(plane: Plane, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while job["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = plane.ask("GET", f"/jobs/{job['id']}")[1]
    return job


def test_lists_and_gets(plane: Plane) -> None:
    status, found = plane.ask("GET", "/entities")
    assert status == 200 and found["revision"] == 1
    assert found["items"][0] == {
        "kind": "entity",
        "name": "user",
        "join_keys": ["user_id"],
        "dtypes": ["int64"],
        "description": "somebody who buys",
        "owner": "ana",
    }
    assert plane.ask("GET", "/entities/user")[1]["name"] == USER.name
    assert len(plane.ask("GET", "/feature-views")[1]["items"]) == VIEWS + 1
    view = plane.ask("GET", "/feature-views/v3@v1")[1]
    assert view["source"]["path"] == "data/v3.parquet" and view["versions"] == [1]
    assert view["join_keys"] == {"user_id": "int64"} and view["view_id"] > 0
    assert view["materialized"] == {"offline": [], "online": []}
    service = plane.ask("GET", "/feature-services/ranking")[1]
    assert [part["view"] for part in service["features"]] == ["v0", "v1"]
    assert plane.ask("GET", "/push-sources")[1]["items"][0]["name"] == "clicks"
    status, problem = plane.ask("GET", "/feature-views/v33")
    assert status == 404 and "did you mean" in problem["error"]["hint"]


def test_search_ranks_names_before_descriptions(plane: Plane) -> None:
    found = plane.ask("GET", "/search?q=clicks")[1]["items"]
    assert found[0]["kind"] == "push_source" and found[0]["matched"] == ["name"]
    assert {hit["name"] for hit in found} >= {"v0", "ranking"}
    assert plane.ask("GET", "/search?q=ana")[1]["items"][0]["name"] == "user"
    assert [h["name"] for h in plane.ask("GET", "/search?q=ads%20V7")[1]["items"]] == ["v7"]
    assert plane.ask("GET", "/search?q=team:ads&limit=3")[1]["items"][2]["kind"] == "feature_view"
    assert plane.ask("GET", "/search?q=nothing+like+it")[1]["items"] == []


def test_plan_and_apply(tmp_path: Path) -> None:
    with running(make_repo(tmp_path / "repo"), "control", "--max-jobs", "0") as plane:
        body = {"definitions": [SHOP, {"kind": "feature_view", **SALES}]}
        status, plan = plane.ask("POST", "/plan", body)
        made = [c["name"] for c in plan["changes"] if c["action"] == "create"]
        assert (status, plan["revision"], made) == (200, 1, ["shop", "sales"])
        assert plane.ask("GET", "/entities/shop")[0] == 404  # a plan changes nothing
        status, problem = plane.ask("POST", "/apply", {**body, "expect_revision": 0})
        assert (status, problem["error"]["code"]) == (409, "conflict")
        status, applied = plane.ask("POST", "/apply", {**body, "expect_revision": 1, "author": "ci"})
        assert (status, applied["revision"]) == (200, 2)
        newest = plane.ask("GET", "/revisions?limit=1")[1]["items"][0]
        assert (newest["revision"], newest["author"], newest["summary"][:11]) == (2, "ci", "2 to create")
        view = plane.ask("GET", "/feature-views/sales")[1]
        assert view["ttl_us"] == 7_200_000_000
        again = plane.ask(
            "POST", "/feature-views", {k: view[k] for k in ("kind", "name", "entities", "schema", "ttl_us")}
        )
        assert again[0] == 200 and again[1]["empty"]  # what is read can be sent back
        changed = {**SALES, "schema": [{"name": "total", "dtype": "string"}]}
        status, problem = plane.ask("POST", "/feature-views", changed)
        assert (status, problem["error"]["code"]) == (409, "breaking_change")
        assert "version=2" in problem["error"]["problems"][0]["fix"]
        service = {
            "kind": "feature_service",
            "name": "s",
            "features": ["sales:total", "v0:spend", "v0:clicks"],
        }
        assert plane.ask("POST", "/apply", {"definitions": [service]})[0] == 200
        parts = plane.ask("GET", "/feature-services/s")[1]["features"]
        assert [(part["view"], part["features"]) for part in parts] == [
            ("sales", ["total"]),
            ("v0", ["spend", "clicks"]),
        ]


def test_all_problems_are_told_at_once(plane: Plane) -> None:
    bad_shapes = [{"kind": "entity"}, {**SALES, "kind": "feature_view", "schema": "x", "ttl": 5}]
    status, found = plane.ask("POST", "/apply", {"definitions": bad_shapes})
    assert status == 422
    assert [p["where"] for p in found["error"]["problems"]] == [
        "$.definitions[0]",
        "$.definitions[1].schema",
        "$.definitions[1].ttl",
    ]
    view = {"kind": "feature_view", "name": "9x", "entities": ["nobody"], "schema": []}
    status, found = plane.ask("POST", "/plan", {"definitions": [view]})
    assert status == 422 and len(found["error"]["problems"]) == 3
    assert plane.ask("GET", "/revisions")[1]["revision"] == 1


def test_jobs_over_rest(plane: Plane, repo: Path) -> None:
    headers = {"Idempotency-Key": "once"}
    status, job = plane.ask("POST", "/feature-views/v0/materialize", {"end": "2024-01-01"}, headers)
    assert (status, job["kind"], job["args"]["views"]) == (202, "materialize", ["v0"])
    assert (
        plane.ask("POST", "/feature-views/v0/materialize", {"end": "2024-01-01"}, headers)[1]["id"]
        == job["id"]
    )
    assert plane.ask("POST", "/feature-views/v1/materialize", {}, headers)[0] == 409
    done = wait_for(plane, job)
    assert (done["status"], done["rows"], done["error"]) == ("complete", 3, None)
    assert done["result"]["totals"]["rows_online_written"] == 3 and done["seconds"] > 0
    with FeatureStore(repo) as store:
        answer = store.get_online_features(["v0:clicks"], {"user_id": [2]}, now="2023-11-20")
        assert answer.to_dict()["clicks"] == [2]
    held = plane.ask("GET", "/feature-views/v0")[1]["materialized"]["online"]
    assert held[0]["rows"] == 3 and held[0]["start"] is None
    status, job = plane.ask(
        "POST", "/materialize", {"views": ["v1", "v2@v1"], "incremental": True, "target": "offline"}
    )
    assert status == 202 and wait_for(plane, job)["rows"] == 6
    ids = [j["id"] for j in plane.ask("GET", "/jobs?status=complete&kind=materialize")[1]["items"]]
    assert ids == sorted(ids, reverse=True) and job["id"] in ids
    assert plane.ask("GET", f"/jobs?before={ids[0]}&limit=1")[1]["items"][0]["id"] == ids[1]
    status, again = plane.ask("POST", f"/jobs/{job['id']}/cancel")
    assert (status, again["status"]) == (200, "complete")


def test_a_backfill_is_a_job_and_again_does_nothing(plane: Plane) -> None:
    body = {"start": "2023-01-01", "workers": 2, "target": None}
    status, job = plane.ask("POST", "/feature-views/v3/backfill", body)
    assert (status, job["kind"]) == (202, "backfill") and job["args"]["workers"] == 2
    job = wait_for(plane, job)
    assert (job["status"], job["error"], job["result"]["rows_read"]) == ("complete", None, 6), job
    assert job["rows"] == 6 and job["progress"]["partitions"] == job["progress"]["partitions_total"]
    job = wait_for(plane, plane.ask("POST", "/feature-views/v3/backfill", {"start": "2023-01-01"})[1])
    assert job["result"]["dates_done"] == 0 < job["result"]["dates_skipped"]
    job = wait_for(plane, plane.ask("POST", "/feature-views/v3/backfill", {"again": True})[1])
    assert job["result"]["dates_done"] > 0 == job["result"]["rows_offline_new"]


def test_rows_built_anew_and_back(plane: Plane, repo: Path) -> None:
    wait_for(plane, plane.ask("POST", "/feature-views/v4/materialize", {"end": "2024-01-01"})[1])
    status, job = plane.ask("POST", "/feature-views/v4/refresh", {"keep_s": 120, "carry": None})
    assert (status, job["kind"]) == (202, "refresh") and job["args"]["keep_us"] == 120_000_000
    job = wait_for(plane, job)
    assert (job["status"], job["error"], job["result"]["rows"]) == ("complete", None, 3)
    status, back = plane.ask("POST", "/feature-views/v4/rollback", {})
    back = wait_for(plane, back)
    assert back["result"]["online_id"] == job["result"]["previous_id"], back
    assert wait_for(plane, plane.ask("POST", "/feature-views/pushed/rollback", {})[1])["error"]["message"]
    with FeatureStore(repo) as store:
        answer = store.get_online_features(["v4:clicks"], {"user_id": [2]}, now="2023-11-20")
        assert answer.to_dict()["clicks"] == [2]


def test_online_rows_beside_their_history(plane: Plane, repo: Path) -> None:
    wait_for(plane, plane.ask("POST", "/feature-views/v6/materialize", {"end": "2024-01-01"})[1])
    with FeatureStore(repo) as store:
        rows = {"user_id": [2], "clicks": [9], "spend": [1.0], "event_timestamp": ["2024-01-02"]}
        store.write_to_online_store("v6", rows)
        assert store.reconcile(["v6"], now="2024-02-01").status == "different"
    status, job = plane.ask("POST", "/feature-views/v6/reconcile", {"all": True, "grace_s": 60})
    assert (status, job["kind"], job["args"]["sample"]) == (202, "reconcile", None)
    job = wait_for(plane, job)
    [view] = job["result"]["views"]
    assert (job["status"], job["error"], view["status"]) == ("complete", None, "different"), job
    assert view["counts"]["newer"] == 1
    asked = {"views": ["v6@v1"], "sample": 50, "repair": True, "prune": True, "ignore": ["filled"]}
    job = wait_for(plane, plane.ask("POST", "/reconcile", asked)[1])
    assert job["result"]["status"] == "repaired"
    job = wait_for(plane, plane.ask("POST", "/feature-views/pushed/reconcile", {})[1])
    assert job["status"] == "failed" and "no history" in job["error"]["message"]
    text = plane.raw("GET", "/metrics")[2].decode()
    assert 'fastserve_reconcile_differences{view="v6"} 0.0' in text


def test_a_queued_job_is_cancelled_at_once(queueing: Plane) -> None:
    _, headers, text = queueing.raw("POST", "/training-datasets", {"name": "set", "spine": "labels.csv"})
    job = json.loads(text)
    assert headers["location"] == f"/jobs/{job['id']}" and job["kind"] == "training_dataset"
    assert job["args"] == {"name": "set", "spine": "labels.csv"}
    status, job = queueing.ask("POST", f"{headers['location']}/cancel")
    assert (status, job["status"], job["eta_s"]) == (200, "cancelled", None)


def test_a_training_data_set(plane: Plane, repo: Path) -> None:
    (repo / "labels.csv").write_text("user_id,event_timestamp,label\n1,2023-11-17,0\n2,2023-11-18,1\n")
    wait_for(plane, plane.ask("POST", "/materialize", {"views": ["v0", "v1"]})[1])
    body = {"name": "shoppers", "spine": "labels.csv", "service": "ranking", "full_feature_names": True}
    status, job = plane.ask("POST", "/training-datasets", body)
    assert status == 202
    job = wait_for(plane, job)
    assert (job["status"], job["error"], job["rows"]) == ("complete", None, 2)
    made = plane.ask("GET", f"/training-datasets/{job['result']['id']}")[1]
    assert (made["name"], made["rows"], made["feature_service"]) == ("shoppers", 2, "ranking")
    assert made["manifest"] and plane.ask("GET", "/training-datasets/shoppers")[1] == made
    listed = plane.ask("GET", "/training-datasets?service=ranking")[1]["items"]
    assert [one["id"] for one in listed] == [made["id"]]
    _, job = plane.ask("POST", "/training-datasets", {**body, "spine": "nowhere.csv"})
    job = wait_for(plane, job)
    assert job["status"] == "failed" and "nowhere.csv" in json.dumps(job["error"])


def test_metrics(plane: Plane) -> None:
    wait_for(plane, plane.ask("POST", "/feature-views/v5/materialize", {"end": "2024-01-01"})[1])
    status, headers, body = plane.raw("GET", "/metrics")
    text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/plain")
    samples = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    assert samples["fastserve_registry_up"] == "1.0" and samples["fastserve_registry_revision"] == "1.0"
    assert float(samples['fastserve_jobs{status="complete"}']) >= 1
    assert float(samples['fastserve_view_freshness_seconds{target="online",view="v5"}']) > 1e7
    assert samples['fastserve_last_run_rows{target="online",view="v5"}'] == "3.0"
    assert samples['fastserve_last_run_failed{view="v5"}'] == "0.0"
    assert "process_resident_memory_bytes" in samples
    route = 'fastserve_control_requests_total{method="POST",route="/feature-views/{name}/materialize",status="202"}'
    assert float(samples[route]) >= 1


def test_health_says_what_is_missing(tmp_path: Path) -> None:
    redis = start_redis(tmp_path)
    repo = make_repo(tmp_path / "repo")
    (repo / "fastserve.toml").write_text(f'project = "shop"\nonline_store = "{redis.url}"\n')
    try:
        with running(repo, "control", "--max-jobs", "0") as plane:
            assert plane.ask("GET", "/health/live") == (200, {"status": "ok"})
            status, found = plane.ask("GET", "/health/ready")
            assert (status, found) == (
                200,
                {"ready": True, "checks": {"registry": "ok", "online_store": "ok"}},
            )
            redis.kill()
            status, found = plane.ask("GET", "/health/ready")
            assert (status, found["ready"], found["checks"]["registry"]) == (503, False, "ok")
            assert found["checks"]["online_store"] != "ok"
            (repo / ".fastserve" / "registry.db").write_bytes(b"gone")
            for name in ("-wal", "-shm"):
                (repo / ".fastserve" / f"registry.db{name}").unlink(missing_ok=True)
            assert plane.ask("GET", "/health/live")[0] == 200
    finally:
        redis.stop()


def test_a_graceful_end(tmp_path: Path) -> None:
    with running(make_repo(tmp_path / "repo")) as plane:
        plane.process.terminate()
        assert plane.process.wait(20) == 0


BIG = json.dumps({"definitions": [{"kind": "entity", "name": "x" * (5 << 20)}]}).encode()
VIEW = {"kind": "feature_view", "name": "n", "schema": [{"name": "a", "dtype": "int64"}]}
DEEP = b"[" * 900 + b"]" * 900
BAD: list[tuple[str, str, Any, int]] = [
    ("GET", "/nowhere", None, 404),
    ("DELETE", "/jobs", None, 405),
    ("PUT", "/apply", {}, 405),
    ("GET", "/entities/nobody", None, 404),
    ("GET", "/entities/%00", None, 404),
    ("GET", "/entities?x=1", None, 400),
    ("GET", "/feature-views/v0@v9", None, 404),
    ("GET", "/feature-views/v0@v0", None, 400),
    ("GET", f"/feature-views/v0@v{'9' * 5000}", None, 400),
    ("GET", "/feature-views/a%20b", None, 400),
    ("GET", "/search", None, 400),
    ("GET", "/search?q=%20", None, 400),
    ("GET", f"/search?q={'x' * 501}", None, 400),
    ("GET", "/search?q=a&q=b", None, 400),
    ("GET", "/search?q=a&limit=0", None, 400),
    ("GET", "/revisions?limit=-1", None, 400),
    ("GET", "/revisions?limit=%D9%A1", None, 400),
    ("GET", "/jobs?status=done", None, 400),
    ("GET", "/jobs?kind=rm", None, 400),
    ("GET", f"/jobs?before={2**31}", None, 400),
    ("GET", "/jobs/0", None, 404),
    ("GET", "/jobs/abc", None, 400),
    ("GET", f"/jobs/{'9' * 5000}", None, 400),
    ("POST", "/jobs/999999/cancel", None, 404),
    ("POST", "/plan", b"", 400),
    ("POST", "/plan", b"{", 400),
    ("POST", "/plan", b"\xff\xfe", 400),
    ("POST", "/plan", DEEP, 400),
    ("POST", "/plan", [], 400),
    ("POST", "/plan", {}, 400),
    ("POST", "/plan", {"definitions": {}}, 400),
    ("POST", "/plan", {"definitions": [1]}, 400),
    ("POST", "/plan", {"definitions": [{}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": "table", "name": "x"}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": ["entity"], "name": "x"}]}, 422),
    ("POST", "/plan", {"definitions": [], "colour": "red"}, 400),
    ("POST", "/plan", {"definitions": [], "prune": 1}, 400),
    ("POST", "/plan", {"definitions": [{"kind": "entity", "name": "a\0"}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": "entity", "name": "a", "dtypes": ["float64"]}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": "entity", "name": "a", "tags": {"a": 1}}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "ttl": "soon"}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "ttl": f"{'9' * 5000}d"}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "ttl_us": 2**62}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "version": 2**40}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "version": 0}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "source": {"kind": "sql"}}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "source": {"kind": "file_source"}}]}, 422),
    ("POST", "/plan", {"definitions": [{**VIEW, "schema": [{"name": "a", "dtype": "int128"}]}]}, 422),
    (
        "POST",
        "/plan",
        {"definitions": [{**VIEW, "schema": [{"name": "a", "dtype": "int64", "default": "x"}]}]},
        422,
    ),
    (
        "POST",
        "/plan",
        {"definitions": [{**VIEW, "schema": [{"name": "a", "dtype": "bytes", "default": {"$bytes": "?"}}]}]},
        422,
    ),
    ("POST", "/plan", {"definitions": [{"kind": "feature_service", "name": "s", "features": ["nope"]}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": "feature_service", "name": "s", "features": ["no:x"]}]}, 422),
    ("POST", "/plan", {"definitions": [{"kind": "feature_service", "name": "s", "features": [[]]}]}, 422),
    ("POST", "/plan", BIG, 413),
    ("POST", "/apply", {"definitions": [], "expect_revision": "1"}, 400),
    ("POST", "/apply", {"definitions": [], "expect_revision": 7}, 409),
    ("POST", "/apply", {"definitions": [], "author": "a\0"}, 400),
    ("POST", "/feature-views", {"kind": "entity", "name": "x"}, 400),
    ("POST", "/feature-views", {"name": "v0", "schema": [{"name": "spend", "dtype": "int64"}]}, 409),
    ("POST", "/materialize", {"views": ["nope"]}, 404),
    ("POST", "/materialize", {"views": ["pushed"]}, 400),
    ("POST", "/materialize", {"views": "v0"}, 400),
    ("POST", "/materialize", {"start": "yesterday"}, 400),
    ("POST", "/materialize", {"start": "2024-01-02", "end": "2024-01-01"}, 400),
    ("POST", "/materialize", {"start": "2024-01-02", "incremental": True}, 400),
    ("POST", "/materialize", {"target": "moon"}, 400),
    ("POST", "/feature-views/nope/materialize", {}, 404),
    ("POST", "/feature-views/nope/backfill", {}, 404),
    ("POST", "/feature-views/pushed/backfill", {}, 400),
    ("POST", "/feature-views/v0/backfill", {"workers": 0}, 400),
    ("POST", "/feature-views/v0/backfill", {"incremental": True}, 400),
    ("POST", "/feature-views/v0/backfill", {"start": "2024-01-02", "end": "2024-01-01"}, 400),
    ("POST", "/feature-views/nope/refresh", {}, 404),
    ("POST", "/feature-views/v0/refresh", {"keep_s": 59}, 400),
    ("POST", "/feature-views/nope/reconcile", {}, 404),
    ("POST", "/reconcile", {"views": ["nope"]}, 404),
    ("POST", "/reconcile", {"sample": 0}, 400),
    ("POST", "/reconcile", {"sample": 5, "all": True}, 400),
    ("POST", "/reconcile", {"prune": True}, 400),
    ("POST", "/reconcile", {"ignore": ["sorrow"]}, 400),
    ("POST", "/feature-views/v0/reconcile", {"views": ["v1"]}, 400),
    ("POST", "/feature-views/v0/refresh", {"keep": "1h"}, 400),
    ("POST", "/feature-views/v0/rollback", {"carry": True}, 400),
    ("POST", "/feature-views/v0/materialize", {"views": ["v1"]}, 400),
    ("POST", "/training-datasets", [], 400),
    ("POST", "/training-datasets", {}, 400),
    ("POST", "/training-datasets", {"name": "a", "spine": "x.csv", "colour": "red"}, 400),
    ("POST", "/training-datasets", {"name": "a", "spine": "x.csv", "features": "v0:clicks"}, 400),
    ("GET", "/training-datasets/nothing", None, 404),
    ("GET", "/training-datasets/%00", None, 404),
    ("GET", "/training-datasets?view=%00", None, 400),
    ("POST", "/training-datasets", b'{"a":' + DEEP + b"}", 400),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), BAD)
def test_bad_input_changes_nothing(queueing: Plane, method: str, path: str, body: Any, expected: int) -> None:
    before = (queueing.ask("GET", "/revisions"), queueing.ask("GET", "/jobs"))
    status, found = queueing.ask(method, path, body)
    assert status == expected, found
    assert found["error"]["code"] and found["error"]["message"]
    assert "Traceback" not in json.dumps(found)
    assert (queueing.ask("GET", "/revisions"), queueing.ask("GET", "/jobs")) == before


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"Idempotency-Key": ""}, 400),
        ({"Idempotency-Key": "x" * 201}, 400),
        ({"Idempotency-Key": "ł".encode().decode("latin-1")}, 400),
    ],
)
def test_bad_headers(queueing: Plane, headers: dict[str, str], expected: int) -> None:
    before = queueing.ask("GET", "/jobs")
    assert queueing.ask("POST", "/materialize", {}, headers)[0] == expected
    assert queueing.ask("GET", "/jobs") == before


def test_statistics_of_a_materialized_view(tmp_path: Path) -> None:
    with running(make_repo(tmp_path / "repo"), "control") as plane:
        assert plane.ask("GET", "/feature-views/v0/statistics") == (
            200,
            {"view": "v0", "version": 1, "statistics": None},
        )
        wait_for(plane, plane.ask("POST", "/feature-views/v0/materialize", {"incremental": True})[1])
        status, found = plane.ask("GET", "/feature-views/v0@v1/statistics")
        assert status == 200 and found["statistics"]["rows"] > 0 and found["statistics"]["runs"] == 1
        first = found["statistics"]["start"]
        path = f"/feature-views/v0/statistics?start={first}&end={first}"
        assert plane.ask("GET", path)[1]["statistics"] in (None, found["statistics"])
        status, problem = plane.ask("GET", "/feature-views/v0/statistics?start=noon")
        assert status == 400 and problem["error"]["where"] == "?start"
        assert plane.ask("GET", "/feature-views/v77/statistics")[0] == 404
