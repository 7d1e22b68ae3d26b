"""A plan says what a backfill then does, and does nothing itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import redis as redis_py

from fastserve.errors import RequestError
from materializer.backfill import BackfillRequest, make_plan
from materializer.backfill import plan as plan_module
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo
from tests.integration.materializer.test_backfill import N_DAYS, NOW, fill, rows_of, run
from tests.servers import start_redis

ASKED = BackfillRequest(view="stats", now_us=NOW)


def test_a_plan_is_what_happens_and_changes_nothing(repo: Repo) -> None:
    fill(repo, rows_of())
    process = repo.start("stats", "--plan", "--json", "--now", "2013-04-11", command="backfill")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    plan = json.loads(out)
    assert (plan["dates"], plan["rows"], plan["keys"], plan["keys_exact"]) == (N_DAYS, N_DAYS * 24, 40, True)
    assert plan["todo"] == {"offline": N_DAYS, "online": N_DAYS} and plan["lost"] == []
    assert plan["seconds_from"] == "sample" and plan["seconds"] > 0
    assert not repo.online_rows() and not repo.offline_table().num_rows
    summary = run(repo)
    assert (summary.dates, summary.rows_online_written) == (plan["dates"], plan["keys"])
    after = make_plan(repo.config, ASKED)
    assert after.todo == {"offline": 0, "online": 0} and not after.seconds_from
    assert "nothing to do" in str(after)


def test_a_plan_notices_a_store_that_lost_its_rows(repo: Repo) -> None:
    fill(repo, rows_of())
    run(repo)
    shutil.rmtree(repo.path / ".fastserve" / "online")
    plan = make_plan(repo.config, ASKED)
    assert plan.lost == ("online",) and plan.todo == {"offline": 0, "online": N_DAYS}
    assert plan.seconds_from == "ledger" and "lost its rows" in str(plan)


def test_memory_is_what_redis_takes(applied: Path, tmp_path: Path) -> None:
    rows = [
        {"user": f"user-{n}", "event_timestamp": T0 + n % 48 * HOUR, "created": T0 + 2 * DAY, "amount": 1.0}
        for n in range(20_000)
    ]
    server = start_redis(tmp_path)
    try:
        repo = Repo.at(applied / "forever").copy(tmp_path / "repo", server.url)
        repo.write(rows)
        with redis_py.Redis.from_url(server.url) as client:
            plan = make_plan(repo.config, ASKED)
            before = client.info("memory")["used_memory"]
            run(repo, target="online")
            took = client.info("memory")["used_memory"] - before
    finally:
        server.stop()
    assert plan.online_store == "redis" and plan.keys == 20_000
    assert plan.online_bytes == pytest.approx(took, rel=0.1)


def test_keys_of_large_sources_are_estimated(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(repo, rows_of())
    monkeypatch.setattr(plan_module, "SAMPLE_ROWS", 100)
    plan = make_plan(repo.config, ASKED)
    assert not plan.keys_exact and plan.keys == pytest.approx(40, abs=8)


def test_a_window_without_rows_is_named(repo: Repo) -> None:
    fill(repo, rows_of())
    with pytest.raises(RequestError, match="no row in the window"):
        make_plan(repo.config, BackfillRequest(view="stats", start_us=T0 + 50 * DAY, now_us=NOW))
