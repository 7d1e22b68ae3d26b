"""`materializer optimize`: fewer files, the same rows; what is pinned stays, what is too old goes and stays away."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from fastserve import FeatureStore
from fastserve.definitions import merge_refs
from fastserve.errors import IncompleteHistoryError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.inventory import inventory
from fastserve.offline.rewrite import Rewrite
from fastserve.registry import Interval
from fastserve.registry.upkeep import missing_before
from materializer.backfill.run import backfill
from materializer.backfill.values import BackfillRequest
from materializer.optimize import plan as plans
from materializer.optimize.report import Report, ViewReport
from materializer.optimize.run import Request, optimize, pinned_versions
from materializer.reconcile.request import Request as ReconcileRequest
from materializer.reconcile.run import reconcile
from materializer.refresh import RefreshRequest, refresh
from materializer.stop import Stop
from materializer.training import build_training_set
from tests.integration.materializer.repo import DAY, HOUR, T0, USER, Repo, stats_view

N_DAYS = 12
NOW = T0 + N_DAYS * DAY


def row(day: int, user: int, amount: float = 1.0) -> dict[str, Any]:
    """A row of the noon of a day."""
    event = T0 + day * DAY + 12 * HOUR
    return {"user": f"u{user}", "event_timestamp": event, "created": event, "amount": amount}


def fill(repo: Repo, parts: int = 3) -> None:
    """A row a day of each of so many users, and as many commits."""
    for part in range(parts):
        repo.write([row(day, part) for day in range(N_DAYS)], f"{part}.parquet")
        repo.materialize(NOW, start_us=T0, end_us=NOW)


@pytest.fixture
def filled(repo: Repo) -> Repo:
    fill(repo)
    return repo


@pytest.fixture(scope="module")
def keeping(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repo whose view keeps 5 days."""
    made = Repo.at(applied / "forever").copy(tmp_path_factory.mktemp("keeping") / "repo")
    define(made, ttl="2d", retention="5d")
    return made


@pytest.fixture
def kept(keeping: Repo, tmp_path: Path) -> Repo:
    """The same, filled before its retention was declared."""
    repo = keeping.copy(tmp_path / "kept")
    define(repo, ttl="2d")
    fill(repo)
    define(repo, ttl="2d", retention="5d")
    return repo


def define(repo: Repo, **options: Any) -> None:
    with repo.registry() as registry:
        registry.apply([USER, stats_view(**options)])


def table(repo: Repo) -> OfflineTable:
    return OfflineTable(repo.config.offline_store, repo.config.project, repo.view())


def days(repo: Repo) -> list[int]:
    """The days that have rows."""
    return sorted({(event - T0) // DAY for _, event, _ in repo.offline_rows()})


def done(repo: Repo, **options: Any) -> ViewReport:
    """An optimization at NOW; it must succeed."""
    report = optimize(repo.config, Request(**{"now_us": NOW, **options}))
    assert report.status == "ok", report.views[0].error
    return report.views[0]


def files(repo: Repo) -> set[str]:
    """The data files on disk."""
    return {str(path) for path in Path(table(repo).uri).glob("event_date=*/*.parquet")}


def age(repo: Repo, days: int = 30) -> None:
    """Have all that was ever replaced, replaced so long ago: the log says when."""
    for path in Path(table(repo).uri).rglob("*.*"):
        stat = path.stat()
        os.utime(path, (stat.st_atime - days * 86_400, stat.st_mtime - days * 86_400))
    for path in Path(table(repo).uri, "_delta_log").glob("*.json"):
        text, stat = path.read_text(), path.stat()
        for stamp in {line.split(":")[1].split(",")[0] for line in text.split('"deletionTimestamp"')[1:]}:
            text = text.replace(stamp, str(int(stamp) - days * 86_400_000))
        path.write_text(text)
        os.utime(path, (stat.st_atime, stat.st_mtime))


# ---- joining and ordering -----------------------------------------------------------------------


def test_files_are_joined_and_rows_stay(filled: Repo) -> None:
    before, version = filled.offline_table(), table(filled).version
    planned = optimize(filled.config, Request(dry_run=True, now_us=NOW)).views[0]
    assert (planned.files_before, planned.files_after, planned.dates_joined) == (
        3 * N_DAYS,
        3 * N_DAYS,
        N_DAYS,
    )
    assert table(filled).version == version, "a dry run changes nothing"
    with filled.registry() as registry:
        assert registry.upkeep(filled.view().view_id).optimized_us is None
    view = done(filled)
    assert (view.files_before, view.files_after, view.dates_joined) == (3 * N_DAYS, N_DAYS, N_DAYS)
    assert filled.offline_table() == before
    with filled.registry() as registry:
        assert registry.upkeep(filled.view().view_id).optimized_us is not None
    version = table(filled).version
    assert done(filled).dates_joined == 0 and table(filled).version == version, (
        "again, there is nothing to do"
    )
    assert filled.materialize(NOW, start_us=T0, end_us=NOW).views[0].rows_offline_new == 0


def test_large_dates_are_ordered_by_entity_once(filled: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "ORDER_ROWS", 20)
    filled.write([row(3, user % 40) for user in range(200, 0, -7)], "9.parquet")
    filled.materialize(NOW, start_us=T0, end_us=NOW)
    before = filled.offline_table()
    dry = {"dry_run": True}
    assert (done(filled, order=False, **dry).dates_ordered, done(filled, **dry).dates_ordered) == (0, 1)
    view = done(filled)
    assert (view.dates_ordered, view.dates_joined) == (1, N_DAYS - 1)
    assert filled.offline_table() == before
    users = [u for b in table(filled).read([], T0 + 3 * DAY, T0 + 4 * DAY) for u in b["user"].to_pylist()]
    assert users == sorted(users) and len(users) > 20
    assert done(filled).dates_ordered == 0
    filled.write([row(3, 77)], "a.parquet")
    filled.materialize(NOW, start_us=T0, end_us=NOW)
    assert done(filled).dates_ordered == 0, "one new row is joined, not ordered"
    filled.write([row(3, user) for user in range(90, 99)], "b.parquet")
    filled.materialize(NOW, start_us=T0, end_us=NOW)
    assert done(filled).dates_ordered == 1
    today = done(filled, now_us=T0 + 3 * DAY + HOUR)
    assert today.dates_ordered == 0, "a date that still grows is not ordered"


def test_a_view_whose_files_are_held_is_busy_and_others_are_done(repo: Repo) -> None:
    with repo.registry() as registry:
        registry.apply([USER, stats_view("other"), stats_view("stats")])
    fill(repo, 2)
    with repo.registry() as registry, registry.lock_rewrite(repo.view().view_id):
        code, shown, err = repo.cli("--json", command="optimize")
    assert code == 3 and shown["status"] == "already_running"
    assert {view["view"]: view["status"] for view in shown["views"]} == {
        "other": "ok",
        "stats": "already_running",
    }
    assert "another run holds the rewrite's lock" in err


def test_the_command(filled: Repo) -> None:
    process = filled.start("--dry-run", command="optimize")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "would be done" in out and "stats" in out and "12 dates" in out
    code, shown, err = filled.cli("stats", "--json", command="optimize")
    assert code == 0, err
    assert (shown["totals"]["files_after"], shown["dry_run"]) == (N_DAYS, False)
    code, shown, _ = filled.cli("stat", "--json", command="optimize")
    assert code == 2 and "did you mean 'stats'" in shown["error"]["hint"]
    code, shown, _ = filled.cli("--vacuum-after", "1m", command="optimize")
    assert code == 2 and shown["error"]["where"] == "--vacuum-after"


def test_a_stopped_optimization_ends_between_two_commits(
    filled: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "COMMIT_DAYS", 5)
    stop = _StopAfter(2)
    [view] = optimize(filled.config, Request(now_us=NOW), stop=stop).views
    assert (view.status, view.dates_joined) == ("stopped", 10)
    assert sum(len(day.sizes) for day in inventory(table(filled).open())) == 10 + 2 * 3
    assert optimize(filled.config, Request(now_us=NOW), stop=stop).views[0].status == "not_run"
    assert done(filled).dates_joined == 2


class _StopAfter(Stop):
    """Asked to stop by SIGTERM at the n-th look after the first."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def check(self) -> None:
        self._looks -= 1
        if self._looks < 0:
            self.signum = 15
        super().check()


def test_the_status_is_that_of_the_worst_view() -> None:
    def of(*statuses: Any) -> Report:
        return Report([ViewReport("v", status) for status in statuses])

    assert [(of(*s).status, of(*s).exit_code) for s in ((), ("ok",), ("ok", "already_running"))] == [
        ("ok", 0), ("ok", 0), ("already_running", 3)]  # fmt: skip
    assert of("failed", "already_running", "ok").exit_code == 1


# ---- vacuum -------------------------------------------------------------------------------------


def test_vacuum_keeps_what_readers_and_training_sets_may_need(filled: Repo) -> None:
    features = (
        "from fastserve import *\n"
        'user = Entity("user")\n'
        'stats = FeatureView("stats", entities=[user], source=FileSource("data", '
        'created_timestamp_column="created"), schema=[Field("amount", "float64"), Field("visits", "int64", '
        'default=-1), Field("city", "string")])\n'
    )
    (filled.path / "features.py").write_text(features)
    before = files(filled)
    with FeatureStore(filled.path) as store:
        made = store.create_training_dataset(labels(5, 11), "pinned", features=["stats:amount"])
        version = table(filled).version
        assert done(filled).pinned == [version] and files(filled) >= before, "replaced a moment ago"
        age(filled)
        Path(table(filled).uri, "event_date=2013-01-05", "orphan.parquet").write_bytes(b"of a killed writer")
        age(filled)
        repeat = optimize(filled.config, Request(dry_run=True, now_us=NOW)).views[0]
        assert (repeat.files_deleted, repeat.bytes_deleted) == (1, 18)
        assert done(filled).files_deleted == 1
        assert store.verify_training_dataset(made.id).ok
        forgotten = done(filled, keep_datasets=False)
        assert forgotten.files_deleted == len(before) and files(filled).isdisjoint(before)
        assert "vacuumed" in store.verify_training_dataset(made.id).findings[0].message


def labels(*days: int) -> pa.Table:
    """A label of u0 at noon of each day."""
    times = pa.array([T0 + day * DAY + 12 * HOUR for day in days]).cast(pa.timestamp("us", "UTC"))
    return pa.table({"user": ["u0"] * len(days), "event_timestamp": times})


def test_the_log_is_kept_as_long_as_a_version_is_pinned(filled: Repo) -> None:
    held = Rewrite(table(filled))
    pinned = table(filled).version

    def kept() -> str:
        return DeltaTable(table(filled).uri).metadata().configuration["delta.logRetentionDuration"]

    version = table(filled).version
    held.keep_log([])
    assert table(filled).version == version, "30 days is what it is"
    log = Path(table(filled).uri, "_delta_log", f"{pinned:020}.json")
    text = log.read_text()
    stamp = text.split('"timestamp":')[1].split(",")[0]
    log.write_text(text.replace(stamp, str(int(stamp) - 45 * 86_400_000)))
    held.keep_log([pinned, 9_999])
    assert kept() == "interval 120 days"
    held.keep_log([])
    assert kept() == "interval 30 days"


# ---- retention ----------------------------------------------------------------------------------


def test_dates_beyond_the_retention_are_removed(kept: Repo) -> None:
    planned = optimize(kept.config, Request(dry_run=True, now_us=NOW)).views[0]
    assert (planned.dates_removed, planned.rows_removed) == (7, 21) and days(kept) == list(range(N_DAYS))
    view = done(kept, now_us=NOW + HOUR)
    assert (view.dates_removed, view.rows_removed, view.kept_from_us) == (7, 21, T0 + 7 * DAY)
    assert days(kept) == [7, 8, 9, 10, 11]
    with kept.registry() as registry:
        [interval] = registry.intervals(kept.view().view_id, "offline")
    assert (interval.start_us, interval.end_us) == (T0 + 7 * DAY, NOW + 1)


@pytest.mark.parametrize("options", [{"incremental": True}, {"start_us": T0, "end_us": NOW}])
def test_nothing_is_written_back(kept: Repo, options: dict[str, Any]) -> None:
    done(kept)
    late = row(2, 5) | {"created": NOW + HOUR}
    kept.write([late, row(9, 6) | {"created": NOW + HOUR}], "late.parquet")
    assert kept.materialize(NOW + 2 * HOUR, **options).views[0].rows_offline_new == 1
    assert days(kept) == [7, 8, 9, 10, 11]
    replay = {"start_us": T0, "end_us": T0 + 3 * DAY}
    assert kept.materialize(T0 + 3 * DAY, **replay).views[0].rows_read == 0, "not in the past either"
    assert days(kept) == [7, 8, 9, 10, 11]


def test_a_view_that_keeps_longer_again_may_be_filled_again(kept: Repo) -> None:
    done(kept)
    define(kept, ttl="2d", retention="9d")
    kept.materialize(NOW, start_us=T0, end_us=NOW)
    assert days(kept) == list(range(3, N_DAYS))
    check_labels(kept, first=5)


def check_labels(repo: Repo, first: int) -> None:
    """Labels from noon of a day on have all the history that their ttl of 2 days wants; earlier ones are told."""
    with repo.registry() as registry:
        parts = registry.snapshot().resolve(merge_refs(["stats:amount"]))
        made = build_training_set(labels(first), parts, config=repo.config, registry=registry)
        assert made.to_arrow()["amount"].to_pylist() == [1.0]
        with pytest.raises(IncompleteHistoryError, match="retention removed what is before") as caught:
            build_training_set(labels(first, first - 2), parts, config=repo.config, registry=registry)
        assert "leave out the labels before" in caught.value.hint
        build_training_set(
            labels(first - 2), parts, config=repo.config, registry=registry, allow_incomplete=True
        )


def test_labels_that_need_what_was_removed_are_told(kept: Repo) -> None:
    done(kept)
    check_labels(kept, first=9)


def test_labels_are_told_where_a_view_was_never_filled_further_back(keeping: Repo, tmp_path: Path) -> None:
    repo = keeping.copy(tmp_path / "new")
    fill(repo)
    assert days(repo) == [7, 8, 9, 10, 11], "what would be removed at once is not written"
    check_labels(repo, first=9)


def test_a_view_being_materialized_keeps_its_rows_this_time(kept: Repo) -> None:
    with kept.registry() as registry, registry.lock_view(kept.view().view_id):
        [view] = optimize(kept.config, Request(now_us=NOW)).views
    assert (view.status, view.dates_removed, view.files_after) == ("already_running", 0, N_DAYS)
    assert days(kept) == list(range(N_DAYS))
    assert done(kept).dates_removed == 7


def test_a_training_set_goes_on_while_its_files_are_replaced(kept: Repo) -> None:
    expected = kept.offline_table()
    rows = table(kept).read(batch_rows=1)
    first = next(rows)
    done(kept)
    got = pa.Table.from_batches([first, *rows])
    assert got.num_rows == expected.num_rows


def test_a_refresh_does_without_what_was_removed(kept: Repo) -> None:
    define(kept, ttl="2d", retention="3d")
    assert done(kept).dates_removed == 9
    summary = refresh(kept.config, RefreshRequest(view="stats", now_us=NOW))
    assert summary.error is None and kept.read_online(["u1"], NOW)[0][0]


def test_a_backfill_writes_nothing_back(kept: Repo) -> None:
    done(kept)
    request = BackfillRequest(view="stats", start_us=T0, end_us=NOW, now_us=NOW, again=True)
    summary = backfill(kept.config, request)
    assert (summary.status, summary.error) == ("ok", None)
    assert days(kept) == [7, 8, 9, 10, 11]
    check_labels(kept, first=9)


def test_what_was_removed_is_no_difference_of_what_is_served(kept: Repo) -> None:
    define(kept, ttl="2d", retention="3d")
    kept.write([row(4, 9)], "old.parquet")  # online its row answers nothing, and history has it no more
    define(kept, ttl="2d")
    kept.materialize(NOW, start_us=T0, end_us=NOW)
    define(kept, ttl="2d", retention="3d")
    done(kept)
    report = reconcile(kept.config, ReconcileRequest(views=("stats",), sample=None, now_us=NOW))
    assert report.status == "equal", report.to_dict()


# ---- what the registry knows ---------------------------------------------------------------------


def test_what_is_missing_follows_what_is_filled_again(keeping: Repo, tmp_path: Path) -> None:
    repo = keeping.copy(tmp_path / "r")
    view_id = repo.view().view_id

    def span(start: int | None, end: int) -> Interval:
        return Interval(view_id, "offline", start, end)

    with repo.registry() as registry:
        for one in (span(None, 10), span(40, 60), span(90, 100)):
            registry.record_interval(one)
        registry.remove_before(view_id, 50, 7)
        found = registry.intervals(view_id, "offline")
        assert [(i.start_us, i.end_us) for i in found] == [(50, 60), (90, 100)]
        told = registry.upkeep(view_id)
        assert (told.removed_before_us, told.removed_retention_us) == (50, 7)
        registry.note_upkeep(view_id, ordered={"2013-01-01": 3})
        registry.remove_before(view_id, 30, 9)
        assert replace(registry.upkeep(view_id), ordered={}) == told, "it never goes back"
        assert registry.upkeep(view_id).ordered == {"2013-01-01": 3}
        assert missing_before(50, found) == 50 and missing_before(None, found) is None
        registry.record_interval(span(20, 50))
        assert missing_before(50, registry.intervals(view_id, "offline")) == 20
        assert missing_before(50, [span(None, 55)]) is None


def test_an_inventory_is_what_is_there(filled: Repo) -> None:
    found = inventory(table(filled).open())
    assert [day.rows for day in found] == [3] * N_DAYS and all(len(day.sizes) == 3 for day in found)
    assert sum(day.bytes for day in found) == sum(Path(path).stat().st_size for path in files(filled))
    with filled.registry() as registry:
        assert pinned_versions(registry, filled.view(), table(filled).table_id) == []
