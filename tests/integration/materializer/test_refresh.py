"""A view's rows built anew: complete, nothing lost at a switch or a rollback, nothing left over, never half of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore
from fastserve.errors import (
    IncompleteHistoryError,
    MaterializeError,
    RegistryError,
    RequestError,
    StoreTimeoutError,
    UnknownObjectError,
)
from fastserve.online import OnlineStore, open_store
from fastserve.online.live import MIN_KEEP_US, RowSets, look, move
from fastserve.timeutil import now_us
from materializer.cli import main
from materializer.reclaim import BATCH_KEYS, count, prefix_of
from materializer.refresh import RefreshRequest, SetsSummary, reclaim, refresh, rollback
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo, stats_view
from tests.servers import start_redis

NOW = T0 + 30 * DAY
USERS = [f"u{n}" for n in range(50)]


def row(user: str, event: int, amount: float, **more: Any) -> dict[str, Any]:
    return {"user": user, "event_timestamp": event, "created": event, "amount": amount, **more}


def fill(repo: Repo, days: int = 3) -> None:
    repo.write(
        [row(user, T0 + day * DAY + n, day + n / 100) for day in range(days) for n, user in enumerate(USERS)]
    )


@pytest.fixture(params=["lmdb", "redis"])
def filled(request: pytest.FixtureRequest, applied: Path, tmp_path: Path) -> Iterator[Repo]:
    """A repo whose view `stats` is materialized into both stores."""
    server = start_redis(tmp_path) if request.param == "redis" else None
    repo = Repo.at(applied / "forever").copy(tmp_path / "repo", server.url if server else "")
    fill(repo)
    repo.materialize(NOW, incremental=True)
    yield repo
    if server:
        server.stop()


def done(repo: Repo, **options: Any) -> SetsSummary:
    """A refresh that must succeed."""
    summary = refresh(repo.config, RefreshRequest(view="stats", now_us=NOW, **options))
    assert summary.status == "ok", summary.error
    return summary


def in_store(repo: Repo, work: Any) -> Any:
    async def run() -> Any:
        store = open_store(repo.config.online_store)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def sets_of(repo: Repo) -> RowSets:
    rv = repo.view()
    found = in_store(repo, lambda store: look(store, {rv.view_id: rv.online_id}))
    sets: RowSets = found[rv.view_id]
    return sets


def rows_in(repo: Repo, online_id: int) -> int:
    return int(in_store(repo, lambda store: count(store, online_id)))


def wait_no_longer(repo: Repo) -> None:
    """As if the last switch were long ago."""
    sets = sets_of(repo)
    after = RowSets(
        sets.view_id, sets.live, sets.other, sets.role, sets.since_us - 2 * MIN_KEEP_US, sets.until_us
    )
    in_store(repo, lambda store: move(store, sets, after))


def served(repo: Repo, users: list[str]) -> list[Any]:
    with FeatureStore(repo.path) as store:
        found = store.get_online_features(["stats:amount"], {"user": users}, now=NOW).to_dict()
    return list(found["amount"])


def test_a_refresh_a_rollback_and_what_is_left(filled: Repo) -> None:
    before = filled.online_rows()
    first = sets_of(filled).live
    summary = done(filled)
    second = sets_of(filled)
    assert (second.live, second.other, second.role) == (summary.online_id, first, "kept")
    assert (summary.rows, summary.rows_before, summary.rows_read) == (len(USERS), len(USERS), 3 * len(USERS))
    assert filled.view().online_id == second.live, "the registry knows it too"
    assert {key: r for key, r in filled.online_rows().items() if key in before} == before
    assert served(filled, USERS) == [2 + n / 100 for n in range(50)]
    back = rollback(filled.config, "stats")
    assert back.status == "ok" and sets_of(filled).live == first and filled.view().online_id == first
    assert rollback(filled.config, "stats").online_id == second.live, "and taken back"
    assert reclaim(filled.config).removed.rows == 0, "not yet"
    left = reclaim(filled.config, now_us=now_us() + 2 * HOUR)
    assert left.removed.sets == {first: len(USERS)}
    assert len(filled.online_rows()) == len(USERS) and rows_in(filled, second.live) == len(USERS)
    assert served(filled, USERS[:2]) == [2.0, 2.01]
    with pytest.raises(RequestError, match="no rows to go back to"):
        rollback(filled.config, "stats")


def test_what_the_history_does_not_have_is_gone_and_what_was_lost_is_back(filled: Repo) -> None:
    async def spoil(store: OnlineStore) -> None:
        keys = [key async for key in store.scan(b"1:")]
        await store.delete_many(keys[:10])
        await store.put_many([b"1:ghost"], [bytes(8) + b"\xff" * 16])

    in_store(filled, spoil)
    assert done(filled).rows == len(USERS)
    assert served(filled, USERS) == [2 + n / 100 for n in range(50)]


def test_runs_go_into_both_sets_until_the_old_one_is_given_up(filled: Repo) -> None:
    summary = done(filled)
    assert summary.previous_id is not None and summary.online_id is not None
    filled.write([row("new", T0 + 9 * DAY, 9.0), row("u1", T0 + 9 * DAY, 9.5)], "b.parquet")
    filled.materialize(NOW + 1, incremental=True)
    assert served(filled, ["new", "u1"]) == [9.0, 9.5]
    rollback(filled.config, "stats")
    assert served(filled, ["new", "u1", "u2"]) == [9.0, 9.5, 2.02], "a rollback loses nothing"
    assert rows_in(filled, summary.online_id) == rows_in(filled, summary.previous_id) == len(USERS) + 1
    sets = sets_of(filled)
    over = RowSets(sets.view_id, sets.live, sets.other, "kept", 0, 1)
    in_store(filled, lambda store: move(store, sets, over))
    filled.materialize(NOW + 2, incremental=True)  # tidies
    assert sets_of(filled).ids == (summary.previous_id,) and rows_in(filled, summary.online_id) == 0


def test_a_run_during_the_build_loses_nothing(filled: Repo) -> None:
    """A run that was acknowledged while the new set was built, after the history was read."""

    def during(view: str, phase: str, n: int, total: int | None) -> None:
        if phase == "write" and n == 1:
            filled.write([row("new", T0 + 9 * DAY, 9.0)], "b.parquet")
            filled.materialize(NOW + 1, incremental=True)

    summary = refresh(filled.config, RefreshRequest(view="stats", now_us=NOW), progress=during)
    assert summary.status == "ok" and served(filled, ["new"]) == [9.0]


def test_a_switch_whose_answer_was_lost_is_a_switch(filled: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from materializer.write import OnlineSink

    held = OnlineSink.move

    def lose(sink: OnlineSink, before: RowSets, after: RowSets) -> RowSets:
        made = held(sink, before, after)
        if after.role == "kept":
            raise StoreTimeoutError("it did not answer in time")
        return made

    monkeypatch.setattr(OnlineSink, "move", lose)
    summary = done(filled)
    assert sets_of(filled).live == summary.online_id == filled.view().online_id


def test_a_switch_that_the_registry_did_not_hear_of_is_told_by_the_next_run(
    filled: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise RegistryError("it is down")

    with monkeypatch.context() as patch:
        patch.setattr("fastserve.registry.online_ids.OnlineIds.set_live", down)
        summary = done(filled)
    assert filled.view().online_id == summary.previous_id
    assert served(filled, USERS[:1]) == [2.0]
    filled.materialize(NOW + 1, incremental=True)
    assert filled.view().online_id == summary.online_id == sets_of(filled).live


@pytest.mark.parametrize("moment", ["scan", "write"])
def test_one_that_fails_leaves_the_old_rows_served_and_nothing_else(filled: Repo, moment: str) -> None:
    before = filled.online_rows()

    def fail(view: str, phase: str, n: int, total: int | None) -> None:
        if phase == moment:
            raise MaterializeError("the disk is full")

    summary = refresh(filled.config, RefreshRequest(view="stats", now_us=NOW), progress=fail)
    assert (summary.status, summary.exit_code) == ("failed", 1) and "disk" in str(summary.error)
    assert filled.online_rows() == before and sets_of(filled).other is None
    assert done(filled).rows == len(USERS)


def test_suddenly_few_rows_are_not_switched_to(filled: Repo) -> None:
    async def more(store: OnlineStore) -> None:
        await store.put_many([b"1:x%d" % n for n in range(60)], [bytes(24)] * 60)

    in_store(filled, more)
    summary = refresh(filled.config, RefreshRequest(view="stats", now_us=NOW))
    assert summary.status == "failed" and "50 rows, the served one 110" in str(summary.error)
    assert sets_of(filled).ids == (1,)
    assert done(filled, allow_fewer=True).rows == 50


def test_rows_that_vanish_during_the_build_are_noticed(filled: Repo) -> None:
    def evict(view: str, phase: str, n: int, total: int | None) -> None:
        if phase == "write" and n == total:
            building = sets_of(filled).other
            assert building is not None

            async def drop(store: OnlineStore) -> None:
                await store.delete_many([prefix_of(building) + b"u7"])

            in_store(filled, drop)

    summary = refresh(filled.config, RefreshRequest(view="stats", now_us=NOW), progress=evict)
    assert summary.status == "failed" and "1 of 50 rows" in str(summary.error)
    assert sets_of(filled).ids == (1,)


def test_a_second_refresh_takes_the_place_of_the_kept_set_but_not_at_once(filled: Repo) -> None:
    first = done(filled)
    with pytest.raises(RequestError, match="s ago"):
        done(filled)
    wait_no_longer(filled)
    second = done(filled)
    assert second.previous_id == first.online_id and second.removed.sets == {1: len(USERS)}
    assert len(filled.online_rows()) == 2 * len(USERS)


def test_rows_of_retired_views_go(filled: Repo) -> None:
    first = done(filled)
    with filled.registry() as registry:
        other = stats_view("other")
        retired = registry.snapshot().view("stats")
        registry.apply([other], prune=False)
        registry.apply([*(o for o in registry.snapshot().definitions() if o.name != "stats")], prune=True)
    assert reclaim(filled.config).removed.rows == 0, "not yet"
    left = reclaim(filled.config, now_us=now_us() + 2 * HOUR)
    assert left.removed.retired == {"stats": 2 * len(USERS)} and filled.online_rows() == {}
    found = in_store(filled, lambda store: look(store, {retired.view_id: first.online_id}))
    assert found[retired.view_id].ids == ()
    assert reclaim(filled.config, now_us=now_us() + 2 * HOUR).removed.rows == 0
    with pytest.raises(UnknownObjectError):
        done(filled)


def test_more_rows_than_a_batch_are_removed(filled: Repo) -> None:
    n = 2 * BATCH_KEYS + 7
    filled.write([row(f"m{i}", T0 + 9 * DAY + i, 1.0) for i in range(n)], "b.parquet")
    filled.materialize(NOW + 1, incremental=True)
    summary = done(filled)
    assert summary.rows == n + len(USERS)
    assert reclaim(filled.config, now_us=now_us() + 2 * HOUR).removed.rows == n + len(USERS)


def test_history_that_lacks_what_is_online_is_no_history(repo: Repo) -> None:
    fill(repo)
    repo.materialize(NOW, start_us=T0, end_us=T0 + DAY - 1)
    repo.materialize(NOW, start_us=T0, end_us=T0 + 3 * DAY, target="online")
    summary = refresh(repo.config, RefreshRequest(view="stats", now_us=NOW))
    assert isinstance(summary.error, IncompleteHistoryError) and "--target offline" in summary.error.hint


def test_rows_with_a_ttl_keep_their_lifetimes(repo_with_ttl: Repo) -> None:
    repo = repo_with_ttl
    start = now_us() - 3 * DAY
    repo.write([row(user, start + day * DAY, float(day)) for day in range(3) for user in USERS[:3]])
    repo.write([row("old", start - 30 * DAY, 0.0)], "b.parquet")
    repo.materialize(now_us(), incremental=True)
    summary = refresh(repo.config, RefreshRequest(view="stats"))
    assert summary.status == "ok" and (summary.rows, summary.rows_before) == (3, 3)


def test_a_source_without_history_is_read(applied: Path, tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", stats_view(offline=False))
    fill(repo)
    repo.materialize(NOW, incremental=True)
    summary = done(repo)
    assert (summary.rows, summary.history_version) == (len(USERS), None)


@pytest.mark.parametrize("keep", [0, MIN_KEEP_US - 1])
def test_too_short_a_time_to_keep(repo: Repo, keep: int) -> None:
    for act in (
        lambda: refresh(repo.config, RefreshRequest(view="stats", keep_us=keep)),
        lambda: rollback(repo.config, "stats", keep_us=keep),
        lambda: reclaim(repo.config, keep_us=keep),
    ):
        with pytest.raises(RequestError, match="at least"):
            act()


Cli = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def cli(repo: Repo, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command in this process: its exit code, and its one line."""

    def run(*args: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main([*args, "--repo", str(repo.path)])
        [line] = capsys.readouterr().out.splitlines()
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(line)

    return run


def test_the_commands(repo: Repo, cli: Cli) -> None:
    fill(repo)
    repo.materialize(NOW, incremental=True)
    code, told = cli("refresh", "stats", "--now", "2013-01-31")
    assert (code, told["status"], told["rows"], told["previous_id"]) == (0, "ok", len(USERS), 1)
    code, told = cli("rollback", "stats", "--keep", "2h")
    assert (code, told["status"], told["online_id"]) == (0, "ok", 1)
    with repo.registry() as registry, registry.lock_sets(1):
        code, told = cli("rollback", "stats")
    assert (code, told["status"]) == (3, "already_running") and "pid" in told["error"]["message"]
    code, told = cli("reclaim", "--now", "2999-01-01")
    assert (code, told["rows_removed"], told["busy"]) == (0, len(USERS), [])
    for words in (["refresh", "nope"], ["rollback", "stats"], ["refresh", "stats", "--keep", "1s"]):
        code, told = cli(*words)
        assert (code, told["status"]) == (2, "failed"), words
