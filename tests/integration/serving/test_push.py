"""Pushes on real stores: idempotent, newest wins, both stores agree, bounded, safe among other writers."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from fastserve import FeatureStore
from fastserve.errors import (
    ConfigError,
    InvalidDataError,
    MaterializeError,
    OfflineStoreError,
    OverloadedError,
    RequestError,
    StoreError,
    TooLargeError,
    UnknownObjectError,
)
from fastserve.offline.delta import OfflineTable
from fastserve.offline.rewrite import COMPACT_FILES
from fastserve.online import open_store
from fastserve.online.claim import claim
from fastserve.online.live import look
from fastserve.serving import sdk
from fastserve.serving.lane import COMPACT_EVERY
from fastserve.serving.push import PushLimits, view_named, views_of
from fastserve.timeutil import MICROS, format_timestamp, now_us
from tests.integration.serving.push_kit import (
    ago,
    history,
    make,
    online,
    online_bytes,
    pushing,
    rows,
    table_of,
)
from tests.servers import RedisServer, start_redis

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisServer) -> Iterator[FeatureStore]:
    """An applied repo on each store; what a test leaves in Redis is removed."""
    url = redis.url if request.param == "redis" else ""
    with FeatureStore(make(tmp_path, url)) as made:
        yield made
    if url:
        asyncio.run(empty(url))


@pytest.fixture
def lmdb(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(make(tmp_path)) as made:
        yield made


async def empty(url: str) -> None:
    held = open_store(url)
    await held.delete_many([key async for key in held.scan()])
    await held.close()


def test_the_same_push_three_times_is_one(store: FeatureStore) -> None:
    df = rows([1, 2], 5)
    found = [store.push("clicks", df, "online_and_offline") for _ in range(3)]
    assert [(r.offline_new, r.online_new, r.rows) for r in found] == [(4, 4, 2), (0, 0, 2), (0, 0, 2)]
    assert found[0].views == ("stats", "totals")
    assert table_of(store, "stats").row_count() == table_of(store, "totals").row_count() == 2
    assert online(store, [1, 2, 3]) == [5, 5, None]


def test_training_reads_what_serving_reads(store: FeatureStore) -> None:
    at = [ago(10), ago(5), ago(7)]
    store.push("clicks", {**rows([1, 1, 2], at=at), "n": [1, 2, 3], "x": [0.1, float("nan"), None]}, "both")
    asked = ["stats:n", "stats:x", "totals:n"]
    spine = pa.table({"user_id": [2, 1, 9], "event_timestamp": [ago(0)] * 3})
    trained = store.get_historical_features(spine, asked, full_feature_names=True).to_arrow()
    served = store.get_online_features(asked, {"user_id": [2, 1, 9]}, full_feature_names=True).to_arrow()
    assert served["stats__n"].to_pylist() == [3, 2, None]
    for name in ("stats__n", "stats__x", "totals__n"):
        # Compared as bytes, validity too: NaN is not null.
        assert trained[name].combine_chunks().fill_null(77).to_pandas().to_numpy().tobytes() == (
            served[name].combine_chunks().fill_null(77).to_pandas().to_numpy().tobytes()
        )
        assert trained[name].null_count == served[name].null_count


def test_any_order_gives_what_looking_at_all_rows_gives(store: FeatureStore) -> None:
    dice = random.Random(7)
    base = now_us() - 3_600 * MICROS
    pushed: list[tuple[int, int, int, int]] = []  # user, event, created, n
    for n in range(60):
        event = base + dice.randrange(20) * MICROS
        pushed.append((dice.randrange(4), event, event + dice.randrange(3) * MICROS, n))
    kept: dict[tuple[int, int, int], int] = {}
    at = 0
    while at < len(pushed):
        part = pushed[at : at + dice.randrange(1, 9)]
        at += len(part)
        within = {row[:3]: row[3] for row in part}  # within a push the last of equal rows counts
        for key, n in within.items():
            kept.setdefault(key, n)  # between pushes the first one stays
        users, events, created, values = (list(column) for column in zip(*part, strict=True))
        df = {
            "user_id": users,
            "n": values,
            "x": [float(v) for v in values],
            "event_timestamp": [format_timestamp(t) for t in events],
            "created_timestamp": [format_timestamp(t) for t in created],
        }
        store.push("clicks", df, "both")
    found = {
        (
            r["user_id"],
            int(r["event_timestamp"].timestamp() * 1e6),
            int(r["created_timestamp"].timestamp() * 1e6),
        ): r["n"]
        for r in history(store)
    }
    assert found == kept
    newest = {user: max((k, n) for k, n in kept.items() if k[0] == user)[1] for user in {k[0] for k in kept}}
    assert online(store, [0, 1, 2, 3]) == [newest.get(user) for user in range(4)]


def test_online_gets_the_row_that_history_kept(lmdb: FeatureStore) -> None:
    at = ago(3)
    lmdb.write_to_offline_store("stats", rows([1, 2], 5, at=at))
    lmdb.push("clicks", rows([1, 2, 3], 6, at=at), "both")  # equal times: the first one stored stays
    assert online(lmdb, [1, 2, 3]) == [5, 5, 6]
    assert sorted((r["user_id"], r["n"]) for r in history(lmdb)) == [(1, 5), (2, 5), (3, 6)]


def test_a_correction_wins_and_an_older_row_does_not(store: FeatureStore) -> None:
    at = ago(100)
    store.push("clicks", rows([1], 1, at=at))
    store.push("clicks", rows([1], 2, at=at, created=ago(50)))
    store.push("clicks", rows([1], 3, at=at, created=ago(60)))
    store.push("clicks", rows([1], 4, at=ago(101)))
    assert online(store, [1]) == [2]


def test_targets(lmdb: FeatureStore) -> None:
    lmdb.push("clicks", rows([1], 1))
    assert not table_of(lmdb, "stats").exists and online(lmdb, [1]) == [1]
    lmdb.push("clicks", rows([2], 2), "offline")
    assert [r["user_id"] for r in history(lmdb)] == [2] and online(lmdb, [2]) == [None]
    lmdb.write_to_online_store("totals", {k: v for k, v in rows([3], 3).items() if k != "x"})
    assert online(lmdb, [3], "totals") == [3] and online(lmdb, [3]) == [None]
    lmdb.write_to_offline_store("stats@v1", rows([4], 4))
    assert len(history(lmdb)) == 2


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames(lmdb: FeatureStore, kind: Any) -> None:
    assert lmdb.push("clicks", kind(rows([1, 2], 8)), "both").rows == 2
    assert online(lmdb, [1, 2]) == [8, 8]


async def test_a_notebook_pushes_too(lmdb: FeatureStore) -> None:
    assert lmdb.push("clicks", rows([1], 4), "both").online_new == 2
    assert online(lmdb, [1]) == [4]


def test_every_type_both_ways(store: FeatureStore) -> None:
    row = {
        "city": ["a|b", "ü"],
        "country": ["%", ""],
        "flag": [True, None],
        "small": [-(2**31), None],
        "single": [0.1, float("-inf")],
        "moment": ["1969-07-20T20:17:40.000001Z", None],
        "text": ["zażółć", None],
        "blob": [b"\x00\xff", None],
        "vector": [[1.0, float("nan")], None],
        "names": [["a", ""], []],
        "blobs": [[b"\x00"], None],
        "event_timestamp": [ago(1)] * 2,
    }
    for _ in range(2):  # the second time through what the table holds
        store.push("places", row, "both")
    names = [name for name in row if name not in ("city", "country", "event_timestamp")]
    keys = {"city": row["city"], "country": row["country"]}
    served = store.get_online_features([f"kinds:{name}" for name in names], keys).to_arrow()
    spine = pa.table({**keys, "event_timestamp": [ago(0)] * 2})
    trained = store.get_historical_features(spine, [f"kinds:{name}" for name in names]).to_arrow()
    for name in names:
        assert repr(served[name].to_pylist()) == repr(trained[name].to_pylist()), name
    assert served["small"].to_pylist() == [-(2**31), None] and served["blob"].to_pylist() == [
        b"\x00\xff",
        None,
    ]


def test_pushed_rows_stand_beside_a_source_that_is_not_materialized(lmdb: FeatureStore) -> None:
    at = ago(2)
    lmdb.push("filed", {"user_id": [1], "n": [5], "event_timestamp": [at]}, "both")
    spine = pa.table({"user_id": [1, 900], "event_timestamp": [ago(0), "2024-01-02T00:00:00Z"]})
    assert lmdb.get_historical_features(spine, ["filed:n"]).to_arrow()["n"].to_pylist() == [5, 1]
    lmdb.materialize_incremental(["filed"])
    spine = pa.table({"user_id": [1, 900], "event_timestamp": [at, "2024-01-02T00:00:00Z"]})
    assert lmdb.get_historical_features(spine, ["filed:n"]).to_arrow()["n"].to_pylist() == [5, 1]
    assert online(lmdb, [1], "filed") == [5], "the run did not take the pushed row away"


def test_what_expired_long_ago_is_history_only(lmdb: FeatureStore) -> None:
    found = lmdb.push("clicks", rows([1], 1, at="2001-01-01T00:00:00Z"), "both")
    assert found.online_new == 1, "totals has no ttl; stats has, and its row is over"
    assert (online(lmdb, [1]), online(lmdb, [1], "totals")) == ([None], [1])
    assert len(history(lmdb)) == 1


# ---- among others -------------------------------------------------------------------------------


async def test_pushes_that_come_together_share_commits(store: FeatureStore) -> None:
    views = [store.snapshot.view("stats")]
    async with pushing(store) as pusher:
        results = await asyncio.gather(*(pusher.push(views, rows([i], i), "both") for i in range(60)))
    assert [r.offline_new for r in results] == [1] * 60
    assert sum(r.online_new for r in results) == 60
    version = table_of(store, "stats").version
    assert version is not None and version < 20, "60 pushes in far fewer commits"
    assert online(store, list(range(60))) == list(range(60))


async def test_of_equal_rows_pushed_together_both_stores_keep_the_same(store: FeatureStore) -> None:
    at = ago(5)
    views = [store.snapshot.view("stats")]
    async with pushing(store) as pusher:
        await asyncio.gather(*(pusher.push(views, rows([1], n, at=at), "both") for n in range(30)))
    [kept] = history(store)
    assert online(store, [1]) == [kept["n"]]


def test_threads_each_with_a_store_of_their_own(lmdb: FeatureStore) -> None:
    def work(k: int) -> None:
        with FeatureStore(lmdb.config.repo) as mine:
            for i in range(5):
                mine.push("clicks", rows([10 * k + i], k), "both")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ids = [10 * k + i for k in range(4) for i in range(5)]
    assert sorted(r["user_id"] for r in history(lmdb)) == ids
    assert online(lmdb, ids) == [i // 10 for i in ids]


def test_processes_and_a_materializer_on_the_same_view(store: FeatureStore) -> None:
    source = "\n".join(
        [
            "user_id,n,event_timestamp",
            *(f"{900 + i},{i},2024-01-{1 + i % 28:02d}T00:00:00Z" for i in range(50)),
        ]
    )
    (store.config.repo / "filed.csv").write_text(source)
    code = (
        "import sys; from fastserve import FeatureStore; from tests.integration.serving.push_kit import ago\n"
        "k = int(sys.argv[1])\n"
        "with FeatureStore(sys.argv[2]) as store:\n"
        "    for i in range(4):\n"
        "        df = {'user_id': [10 * k + i], 'n': [k], 'event_timestamp': [ago(1)]}\n"
        "        store.push('filed', df, 'both')\n"
    )
    pushers = [
        subprocess.Popen([sys.executable, "-c", code, str(k), str(store.config.repo)], cwd=ROOT)
        for k in range(3)
    ]
    runs = [store.materialize_incremental(["filed"]) for _ in range(3)]
    assert [p.wait(60) for p in pushers] == [0, 0, 0]
    assert {run.status for run in runs} == {"ok"}
    ids = [10 * k + i for k in range(3) for i in range(4)]
    assert sorted(r["user_id"] for r in history(store, "filed")) == ids + [900 + i for i in range(50)]
    assert online(store, ids, "filed") == [i // 10 for i in ids]


async def test_small_files_are_joined_and_nothing_else_changes(lmdb: FeatureStore) -> None:
    views = [lmdb.snapshot.view("stats")]
    n = COMPACT_FILES + 2 * COMPACT_EVERY
    at = ago(1)
    async with pushing(lmdb) as pusher:
        for i in range(n):
            await pusher.push(views, rows([i], i, at=at), "offline")
    assert len(DeltaTable(table_of(lmdb, "stats").uri).file_uris()) < COMPACT_FILES + COMPACT_EVERY
    assert sorted(r["n"] for r in history(lmdb)) == list(range(n))
    assert lmdb.write_to_offline_store("stats", rows(range(n), 77, at=at)).offline_new == 0


# ---- refusals and failures ----------------------------------------------------------------------


def test_nothing_is_written_where_one_row_is_wrong(lmdb: FeatureStore) -> None:
    with pytest.raises(InvalidDataError, match="column 'n', row 1"):
        lmdb.push("clicks", {**rows([1, 2]), "n": [1, "x"]}, "both")
    with pytest.raises(InvalidDataError, match="in the future"):
        lmdb.push("clicks", rows([1, 2], at=[ago(1), ago(-60)]), "both")
    assert not table_of(lmdb, "stats").exists and online(lmdb, [1]) == [None]


def test_names_that_are_none(lmdb: FeatureStore) -> None:
    with pytest.raises(UnknownObjectError, match="did you mean 'clicks'"):
        lmdb.push("click", rows([1]))
    with pytest.raises(RequestError, match="no feature view has the push source 'lonely'"):
        lmdb.push("lonely", rows([1]))
    with pytest.raises(RequestError, match="unknown target 'nowhere'"):
        lmdb.push("clicks", rows([1]), "nowhere")
    for name in ("stat", "stats@v7"):
        with pytest.raises(UnknownObjectError):
            lmdb.write_to_online_store(name, rows([1]))
    with pytest.raises(RequestError, match="not a view"):
        view_named(lmdb.snapshot, "stats@vx")
    assert [rv.view.name for rv in views_of(lmdb.snapshot, "clicks")] == ["stats", "totals"]


async def test_too_many_rows(lmdb: FeatureStore) -> None:
    async with pushing(lmdb, PushLimits(max_rows=2)) as pusher:
        with pytest.raises(TooLargeError, match="3 rows"):
            await pusher.push([lmdb.snapshot.view("stats")], rows([1, 2, 3]))


class Held:
    """Appends wait until they are let go; how many began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        append = OfflineTable.append_new

        def held(table: OfflineTable, batches: Any) -> Any:
            self.began.set()
            assert self.go.wait(30)
            return append(table, batches)

        monkeypatch.setattr(OfflineTable, "append_new", held)


async def test_beyond_its_bounds_a_push_is_refused_at_once(
    lmdb: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    views = [lmdb.snapshot.view("stats")]
    async with pushing(lmdb, PushLimits(max_pushes=3, max_view_pushes=1, max_bytes=1_000)) as pusher:
        first = asyncio.create_task(pusher.push(views, rows([1]), "offline"))
        await asyncio.to_thread(held.began.wait, 30)
        second = asyncio.create_task(pusher.push(views, rows([2]), "offline"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:  # one waits for the view's table, and one may
            await pusher.push(views, rows([3]), "offline")
        assert caught.value.retry_after_s > 0
        with pytest.raises(OverloadedError, match="being written"):
            await pusher.submit(lambda: pytest.fail("is not parsed"), 2_000)
        assert (await pusher.push(views, rows([4]), "online")).online_new == 1, "online goes on"
        held.go.set()
        await asyncio.gather(first, second)
        await pusher.push(views, rows([3]), "offline")
    assert sorted(r["user_id"] for r in history(lmdb)) == [1, 2, 3]


async def test_a_push_goes_on_when_its_caller_goes_away(
    lmdb: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    async with pushing(lmdb) as pusher:
        push = asyncio.create_task(pusher.push([lmdb.snapshot.view("stats")], rows([1], 3), "both"))
        await asyncio.to_thread(held.began.wait, 30)
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
        held.go.set()
    assert len(history(lmdb)) == 1 and online(lmdb, [1]) == [3]
    with pytest.raises(StoreError, match="no longer taken"):
        await pusher.push([lmdb.snapshot.view("stats")], rows([2]))


def test_after_a_failure_in_between_the_same_push_completes(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "own", options=("--appendonly", "yes", "--appendfsync", "always"))
    try:
        with FeatureStore(make(tmp_path, server.url)) as store:
            store.push("clicks", rows([1], 1), "both")
            server.kill()
            df = rows([1], 2)
            with pytest.raises(StoreError):
                store.push("clicks", df, "both")
            server.restart()
            assert online(store, [1]) == [1]
            store.push("clicks", df, "both")
            assert online(store, [1]) == [2] and len(history(store)) == 2
    finally:
        server.stop()


async def test_offline_comes_first(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: OfflineTable, batches: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OfflineTable, "append_new", full)
    async with pushing(store) as pusher:
        with pytest.raises(OfflineStoreError, match="offline store failed"):
            await pusher.push([store.snapshot.view("stats")], rows([1], 1), "both")
    assert await online_bytes(store.config.online_store, store.snapshot.view("stats"), [1]) == [None]


async def test_other_writers_that_are_always_faster_are_an_error(
    lmdb: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def late(table: OfflineTable, batches: Any) -> Any:
        tried.append(1)
        raise MaterializeError("other writers were faster")

    monkeypatch.setattr(OfflineTable, "append_new", late)
    async with pushing(lmdb) as pusher:
        with pytest.raises(MaterializeError):
            await pusher.push([lmdb.snapshot.view("stats")], rows([1]), "offline")
    assert len(tried) > 1


def test_a_store_of_another_registry_is_refused_before_anything_is_written(lmdb: FeatureStore) -> None:
    async def take() -> None:
        held = open_store(lmdb.config.online_store)
        await claim(held, "another")
        await held.close()

    asyncio.run(take())
    with pytest.raises(ConfigError, match="belongs to registry another"):
        lmdb.push("clicks", rows([1]), "both")
    assert not table_of(lmdb, "stats").exists


def test_a_lost_table_is_not_made_anew_by_a_push(lmdb: FeatureStore) -> None:
    import shutil

    assert lmdb.materialize_incremental(["filed"]).status == "ok"
    shutil.rmtree(table_of(lmdb, "filed").uri)
    df = {"user_id": [1], "n": [5], "event_timestamp": [ago(1)]}
    with pytest.raises(OfflineStoreError, match="its table is gone"):
        lmdb.push("filed", df, "both")
    assert online(lmdb, [1], "filed") == [None]
    lmdb.materialize_incremental(["filed"])
    lmdb.push("filed", df, "both")
    assert len(history(lmdb, "filed")) == 2


async def test_a_new_revision_of_the_view_is_written_with_its_new_field(lmdb: FeatureStore) -> None:
    async with pushing(lmdb) as pusher:
        await pusher.push([lmdb.snapshot.view("stats")], rows([1], 1), "both")
        path = lmdb.config.repo / "features.py"
        path.write_text(
            path.read_text().replace('Field("x", "float64")', 'Field("x", "float64"), Field("y", "string")')
        )
        lmdb.apply()
        view = lmdb.snapshot.view("stats")
        with pytest.raises(InvalidDataError, match="'y'"):
            await pusher.push([view], rows([2], 2), "both")
        await pusher.push([view], {**rows([2], 2), "y": ["new"]}, "both")
    assert lmdb.get_online_features(["stats:n", "stats:y"], {"user_id": [1, 2]}).to_dict()["y"] == [
        None,
        "new",
    ]
    assert sorted((r["n"], r["y"]) for r in history(lmdb)) == [(1, None), (2, "new")]


async def test_large_pushes_are_encoded_in_a_thread_to_the_same_rows(lmdb: FeatureStore) -> None:
    ids = list(range(5_000))
    df = {**rows(ids), "n": ids}
    assert (await asyncio.to_thread(lmdb.push, "clicks", df, "both")).online_new == 10_000
    assert online(lmdb, ids) == ids


def test_the_clock_is_looked_at_once_the_rows_are_there(
    lmdb: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a row that is pushed while a read is on its way is one of the future, and its entity has no value."""
    lmdb.push("clicks", rows([1], at=ago(60)))
    events = list[str]()

    async def looked(*given: Any) -> Any:
        events.append("rows asked for")
        return await look(*given)

    def clock() -> int:
        events.append("clock")
        return now_us()

    monkeypatch.setattr(sdk, "look", looked)
    monkeypatch.setattr(sdk, "wall_clock_us", clock)
    assert lmdb.get_online_features(["stats:n"], {"user_id": [1]}).to_dict()["n"] == [0]
    assert events == ["rows asked for", "clock"]
