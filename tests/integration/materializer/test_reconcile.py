"""Online rows beside their history: every kind of difference is found, told, and put right without harm to others."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastserve.cli.main import cli as fastserve_cli
from fastserve.definitions import FeatureView, Field, FileSource, PushSource
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.online import OnlineStore
from fastserve.online.live import RowSets, move
from fastserve.store import FeatureStore
from fastserve.types import Float64, Int64, String
from materializer.cli import main
from materializer.reconcile import looks, run
from tests.integration.materializer.reconcile_kit import (
    GRACE,
    NOW,
    Bytes,
    compared,
    counts,
    force,
    held,
    with_store,
)
from tests.integration.materializer.repo import DAY, HOUR, T0, USER, Repo, stats_view
from tests.oracles.naive_reconcile import Fact, kind_of
from tests.servers import start_redis

Cli = Callable[..., tuple[int, str, str]]
TTL = 20 * DAY
DEFAULTS = {"amount": None, "visits": -1, "city": None}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SETTLE_S", 0.0)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


def history_of(users: int, rng: random.Random) -> dict[str, list[Fact]]:
    """A few rows of each user, some of the present, some long past the ttl, none with equal times."""
    found: dict[str, list[Fact]] = {}
    for i in range(users):
        ages = rng.sample(range(1, 28 * 24), rng.randrange(1, 4))
        found[f"u{i}"] = [
            Fact(
                NOW - age * HOUR,
                NOW - age * HOUR + rng.choice([0, 30 * 60_000_000]),
                {"amount": float(age), "visits": rng.choice([None, age]), "city": rng.choice([None, "Köln"])},
            )
            for age in ages
        ]
    return found


def as_rows(history: dict[str, list[Fact]]) -> list[dict[str, Any]]:
    return [
        {"user": user, "event_timestamp": f.event, "created": f.created, **f.values}
        for user, facts in history.items()
        for f in facts
    ]


def spoilt(facts: list[Fact], rng: random.Random) -> Fact | str | None:
    """What a user's online row is made to be; see `plant`."""
    newest = max(facts, key=lambda f: (f.event, f.created))
    return rng.choice(
        [
            newest,
            newest,
            None,
            "flip",
            "cut",
            min(facts, key=lambda f: (f.event, f.created)),
            Fact(newest.event - DAY, newest.created, newest.values),
            Fact(newest.event, newest.created, {**newest.values, "amount": -5.0}),
            Fact(newest.event, newest.created + 1, newest.values),
            Fact(NOW - HOUR // 2, NOW - HOUR // 2, newest.values),
            Fact(NOW - 70 * DAY, NOW - 70 * DAY, newest.values),
        ]
    )


async def plant(store: OnlineStore, made: Bytes, user: str, online: Fact | str | None, base: Fact) -> None:
    if isinstance(online, str):
        row = bytearray(made.row(user, base.event, base.created, base.values))
        if online == "flip":
            row[8] ^= 0x40  # a higher order than any: no writer would ever replace it
        await force(store, made.key(user), bytes(row) if online == "flip" else bytes(row[:30]))
    else:
        row_or_none = None if online is None else made.row(user, online.event, online.created, online.values)
        await force(store, made.key(user), row_or_none)


@pytest.mark.parametrize(
    ("ttl", "kind", "seed"), [(None, "redis", 1), ("20d", "redis", 2), (None, "lmdb", 3), ("20d", "lmdb", 4)]
)
def test_stores_spoilt_at_random(
    tmp_path: Path, redis_url: str, ttl: str | None, kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    online = f"{redis_url}/{seed}" if kind == "redis" else "lmdb://.fastserve/online?sync=off"
    repo = Repo.make(tmp_path / "repo", stats_view(ttl=ttl), online=online)
    history = history_of(40, rng)
    repo.write(as_rows(history))
    repo.materialize(NOW, incremental=True)
    assert compared(repo).ok
    made = Bytes(repo)
    planted: dict[str, Fact | str | None] = {user: spoilt(facts, rng) for user, facts in history.items()}
    for i, age in enumerate((HOUR // 2, 2 * HOUR, 25 * DAY, 90 * DAY)):
        planted[f"x{i}"] = Fact(NOW - age, NOW - age, {"amount": 1.0, "visits": 1, "city": "Rome"})
    base = Fact(T0, T0, {"amount": 1.0, "visits": 1, "city": None})

    async def spoil(store: OnlineStore) -> None:
        for user, online_row in planted.items():
            await plant(store, made, user, online_row, (history.get(user) or [base])[0])

    with_store(repo, spoil)
    ttl_us = None if ttl is None else TTL
    about = {"now": NOW, "ttl": ttl_us, "grace": GRACE, "defaults": DEFAULTS}
    kinds = {u: kind_of(history.get(u, []), row, **about) for u, row in planted.items()}  # type: ignore[arg-type]
    wanted = {one: list(kinds.values()).count(one) for one in set(kinds.values())}
    before = repo.online_rows()
    # Keys past the ttl on both sides have nothing to compare.
    quiet = sum(row is None and kinds[user] == "equal" for user, row in planted.items())
    report = compared(repo)
    found = counts(report)
    assert {k: n for k, n in found.items() if k != "equal"} == {
        k: n for k, n in wanted.items() if k != "equal"
    }
    assert found["equal"] == wanted["equal"] - quiet
    assert report.status == "different" and repo.online_rows() == before, "it only looked"
    for kind_, examples in report.views[0].examples.items():
        assert {kinds[example["key"]["user"]] for example in examples} == {kind_}

    mended = compared(repo, repair=True)
    left = {k: n for k, n in counts(compared(repo)).items() if k != "equal"}
    assert left == {k: n for k, n in wanted.items() if k in ("newer", "extra", "recent")}
    assert mended.views[0].left == left.get("newer", 0) + left.get("extra", 0)
    pruned = compared(repo, repair=True, prune=True)
    assert pruned.status == "repaired" and pruned.exit_code == 0
    assert set(counts(compared(repo))) == {"equal", "recent"}
    for user, facts in history.items():  # what is served is the point-in-time answer
        if kinds[user] != "recent":
            newest = max(facts, key=lambda f: (f.event, f.created))
            fresh = ttl_us is None or newest.event > NOW - ttl_us
            assert repo.read_online([user], NOW)[0][:2] == (fresh, newest.values["amount"] if fresh else None)


# ---- what is told --------------------------------------------------------------------------------


@pytest.fixture
def filled(repo: Repo) -> Repo:
    """Fifty users with two rows each, in both stores."""
    rows = [
        {"user": f"u{i % 50}", "event_timestamp": T0 + i * HOUR, "created": T0 + i * HOUR, "amount": float(i)}
        for i in range(100)
    ]
    repo.write(rows)
    repo.materialize(NOW, incremental=True)
    return repo


@pytest.fixture
def cli(repo: Repo, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, in this process: its exit code, standard output and standard error."""

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["reconcile", "--repo", str(repo.path), *args])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return call


def test_the_command(filled: Repo, cli: Cli) -> None:
    made = Bytes(filled)
    command = [sys.executable, "-m", "materializer.cli", "reconcile", "--repo", str(filled.path)]
    command += ["--all", "--json", "--now", "2013-01-31"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "") and json.loads(done.stdout)["status"] == "equal"

    async def spoil(store: OnlineStore) -> None:
        await force(store, made.key("u7"), None)
        await force(store, made.key("u8"), made.row("u8", T0, T0, {}))

    with_store(filled, spoil)
    code, out, _ = cli("stats", "--all", "--now", "2013-01-31")
    assert code == 1
    assert out.splitlines()[0].startswith("stats: different; 50 keys (all keys) at 2013-01-31T00:00:00Z")
    assert "missing" in out and "user=u7: history 2013-01-03T" in out and "user=u8" in out
    code, out, _ = cli("--all", "--json", "--now", "2013-01-31", "--ignore", "missing", "--ignore", "late")
    [view] = json.loads(out)["views"]
    assert (code, view["status"], view["left"]) == (0, "equal", 0)
    assert view["counts"] == {"equal": 48, "late": 1, "missing": 1}
    assert view["history"] == {"from": "table", "table_version": 1}
    code, out, _ = cli("--all", "--json", "--now", "2013-01-31", "--repair")
    [view] = json.loads(out)["views"]
    assert (code, view["status"], view["repaired"]) == (0, "repaired", {"late": 1, "missing": 1})
    with filled.registry() as registry:
        noted = registry.reconciled(view["online_id"])
    assert noted is not None and noted["status"] == "repaired" and "examples" not in noted
    shown = CliRunner().invoke(fastserve_cli, ["describe", "stats", "--json", "--repo", str(filled.path)])
    assert json.loads(shown.output)[0]["reconciled"] == noted


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--sample", "3", "--all"), "exclude each other"),
        (("--sample", "0"), "1 to 1,000,000"),
        (("--prune",), "--repair"),
        (("--ignore", "sorrow"), "one of missing"),
        (("--grace", "soon"), "--grace"),
        (("nosuch",), "known: 'stats'"),
    ],
)
def test_mistakes_of_the_caller(cli: Cli, args: tuple[str, ...], said: str) -> None:
    code, out, err = cli(*args)
    assert code == 2 and said in err and json.loads(out)["status"] == "failed"


def test_a_sample_is_drawn_again_by_its_seed(filled: Repo) -> None:
    views = [compared(filled, sample=7, seed=seed).views[0] for seed in (1, 1, 2)]
    assert [(view.keys, view.counts) for view in views] == [(7, {"equal": 7})] * 3
    made = Bytes(filled)

    async def empty(store: OnlineStore) -> None:
        await store.delete_many([made.key(f"u{i}") for i in range(50)])

    with_store(filled, empty)
    drawn = []
    for seed in (1, 1, 2):
        [view] = compared(filled, sample=5, seed=seed).views
        assert view.counts == {"missing": 5}
        drawn.append(sorted(example["key"]["user"] for example in view.examples["missing"]))
    assert drawn[0] == drawn[1] != drawn[2]
    other = compared(filled, sample=5).views[0]
    assert compared(filled, sample=5, seed=other.seed).views[0].examples == other.examples
    assert compared(filled, sample=1_000).views[0].keys == 50


def test_keys_of_people_are_not_shown(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", stats_view(tags={"pii": "true"}))
    repo.write([{"user": "ana@example.org", "event_timestamp": T0, "amount": 1.0}])
    repo.materialize(NOW, incremental=True)
    with_store(repo, lambda store: force(store, Bytes(repo).key("ana@example.org"), None))
    report = compared(repo)
    assert "ana" not in str(report) + json.dumps(report.to_dict())
    assert list(report.views[0].examples["missing"][0]["key"]) == ["blake2"]


# ---- which history -------------------------------------------------------------------------------


def test_a_view_that_is_not_kept_offline_is_compared_with_its_source(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", stats_view(offline=False))
    row = {"user": "u1", "event_timestamp": T0, "created": T0, "amount": 1.0}
    repo.write([row])
    with_store(repo, lambda store: held(store, [b"7:1"]))  # makes it
    assert counts(compared(repo)) == {}, "nothing was materialized yet, so nothing is missing"
    repo.materialize(T0 + DAY, incremental=True)
    later = {**row, "event_timestamp": T0 + 2 * DAY, "created": T0 + 2 * DAY, "amount": 2.0}
    repo.write([later], "b.parquet")
    assert counts(compared(repo)) == {"equal": 1}, "what waits for the next run is not late"
    repo.materialize(T0 + 3 * DAY, incremental=True)
    assert counts(compared(repo)) == {"equal": 1}
    with_store(repo, lambda store: force(store, Bytes(repo).key("u1"), None))
    assert counts(compared(repo, sample=10)) == {"missing": 1}
    assert compared(repo, repair=True).views[0].history == {"from": "source", "table_version": None}
    assert repo.read_online(["u1"], NOW)[0][1] == 2.0


def test_pushes_count_for_views_without_files(tmp_path: Path) -> None:
    pushed = FeatureView("pushed", entities=[USER], schema=[Field("n", Int64)], source=PushSource("clicks"))
    never = FeatureView("never", entities=[USER], schema=[Field("n", Int64)], source=PushSource("others"))
    repo = Repo.make(tmp_path / "repo", pushed, never)
    rows = {"user": ["u1", "u2"], "n": [1, 2], "event_timestamp": ["2013-01-01", "2013-01-02"]}
    with FeatureStore(repo.path) as store:
        store.push("clicks", rows, to="online_and_offline")
        store.push("clicks", {"user": ["u3"], "n": [3], "event_timestamp": ["2013-01-02"]}, to="online")
        store.push("clicks", {"user": ["u4"], "n": [4], "event_timestamp": ["2013-01-02"]}, to="offline")
    report = compared(repo)
    assert [view.view for view in report.views] == ["pushed"], "the other has no history to compare with"
    assert counts(report) == {"equal": 2, "extra": 1, "missing": 1}
    assert compared(repo, ignore=("extra",), repair=True).status == "repaired"
    [failed] = compared(repo, views=("never",)).views
    assert failed.status == "failed" and "no history" in str(failed.error)


def test_fields_younger_than_the_rows(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo")
    repo.write([{"user": f"u{i}", "event_timestamp": T0, "created": T0, "amount": 1.0} for i in range(4)])
    repo.materialize(NOW, incremental=True)
    source = FileSource("data", created_timestamp_column="created")
    schema = (Field("amount", Float64), Field("visits", Int64, default=-1), Field("city", String))
    more = (*schema, Field("score", Int64, default=7))
    with repo.registry() as registry:
        registry.apply([USER, FeatureView("stats", entities=[USER], schema=more, source=source)])
    made = Bytes(repo)
    old = {"amount": 1.0, "visits": None, "city": None}

    async def spoil(store: OnlineStore) -> None:
        await force(store, made.key("u1"), made.row("u1", T0, T0, {**old, "score": 7}))
        await force(store, made.key("u2"), made.row("u2", T0, T0, {**old, "score": 8}))
        await force(store, made.key("u3"), made.row("u3", T0, T0, {**old, "score": 8, "amount": 2.0}))

    with_store(repo, spoil)
    report = compared(repo, repair=True, prune=True)
    assert counts(report) == {"equal": 2, "filled": 1, "value": 1}
    assert report.views[0].examples["filled"][0]["fields"] == ["score"]
    assert report.status == "different", "training reads the default, serving does not"
    rows = with_store(repo, lambda store: held(store, [made.key(f"u{i}") for i in range(4)]))
    assert rows[2] == made.row("u2", T0, T0, {**old, "score": 8}), "what history does not know is not lost"
    assert rows[3] == made.row("u3", T0, T0, old, layout=1)
    assert counts(compared(repo)) == {"equal": 3, "filled": 1}


# ---- others who write meanwhile ------------------------------------------------------------------


def test_what_is_written_between_the_looks_is_no_difference(
    filled: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bytes(filled)
    keys = [made.key(f"u{i}") for i in range(4)]
    late = made.row("u1", T0, T0, {})

    async def spoil(store: OnlineStore) -> None:
        await store.delete_many(keys)
        await force(store, keys[1], late)

    with_store(filled, spoil)
    pushed = made.row("u2", NOW - DAY, NOW - DAY, {"amount": 5.0})
    second = looks.Looks.second

    async def meanwhile(self: looks.Looks, suspects: Any) -> None:
        with FeatureStore(filled.path) as features:
            rows = {"user": ["u0"], "amount": [9.0], "visits": [1], "city": ["Rome"]}
            views = features.snapshot.view("stats")
            times = {"event_timestamp": ["2013-01-20"], "created_timestamp": ["2013-01-20"]}
            await asyncio.to_thread(features._push, [views], {**rows, **times}, "online_and_offline")
        await self._store.put_many([keys[2]], [pushed])
        await second(self, suspects)

    monkeypatch.setattr(looks.Looks, "second", meanwhile)
    report = compared(filled, repair=True)
    assert counts(report) == {"equal": 47, "late": 1, "missing": 1, "changed": 1}
    assert report.views[0].history["table_version"] == 2, "what came into the history meanwhile counts"
    monkeypatch.undo()
    rows = with_store(filled, lambda store: held(store, keys))
    assert rows[2] == pushed
    assert filled.read_online(["u0"], NOW)[0][1] == 9.0
    assert counts(compared(filled)) == {"equal": 49, "newer": 1}


def test_a_repair_gives_way_to_a_push_that_comes_at_the_last_moment(
    filled: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bytes(filled)
    pushed = made.row("u1", NOW - DAY, NOW - DAY, {"amount": 5.0})
    torn = bytearray(made.row("u1", T0, T0, {}))
    torn[-1] ^= 1
    with_store(filled, lambda store: force(store, made.key("u1"), bytes(torn)))
    repair = looks.Looks._repair

    async def meanwhile(self: looks.Looks, *args: Any) -> set[int]:
        await force(self._store, made.key("u1"), pushed)
        return await repair(self, *args)

    monkeypatch.setattr(looks.Looks, "_repair", meanwhile)
    report = compared(filled, repair=True)
    assert counts(report) == {"equal": 49, "changed": 1} and not report.views[0].repaired
    assert with_store(filled, lambda store: held(store, [made.key("u1")])) == [pushed]


def test_a_view_that_is_being_materialized_is_waited_for(
    filled: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOCK_WAIT_S", 0.3)
    with filled.registry() as registry, registry.lock_view(filled.view().view_id):
        assert compared(filled).status == "equal", "nothing differs: nobody is in the way"
        with_store(filled, lambda store: force(store, Bytes(filled).key("u1"), None))
        report = compared(filled)
        assert (report.status, report.exit_code) == ("already_running", 3)
    assert counts(compared(filled, repair=True)) == {"equal": 49, "missing": 1}


def test_definitions_that_change_meanwhile_end_it(filled: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    with_store(filled, lambda store: force(store, Bytes(filled).key("u1"), None))
    first = looks.Looks.first

    async def meanwhile(self: looks.Looks, *args: Any) -> None:
        await first(self, *args)
        with filled.registry() as registry:
            registry.apply([USER, stats_view(ttl="1d")])

    monkeypatch.setattr(looks.Looks, "first", meanwhile)
    [view] = compared(filled, repair=True).views
    assert view.status == "failed" and "changed while it was looked at" in str(view.error)


# ---- row sets, several views ---------------------------------------------------------------------


def test_the_served_rows_are_compared_and_those_kept_are_mended_too(filled: Repo) -> None:
    rv = filled.view()
    with filled.registry() as registry:
        new_id = registry.online_ids.allocate(rv.view_id)
    before = RowSets(rv.view_id, rv.view_id)
    with_store(filled, lambda s: move(s, before, RowSets(rv.view_id, new_id, rv.view_id, "kept")))
    with_store(filled, lambda store: force(store, Bytes(filled).key("u1"), None))
    report = compared(filled)
    assert counts(report) == {"missing": 50} and report.views[0].online_id == new_id
    report = compared(filled, repair=True)
    assert report.views[0].repaired == {"missing": 50}
    assert report.views[0].kept == {"online_id": rv.view_id, "repaired": 1}
    assert counts(compared(filled)) == {"equal": 50}
    assert filled.read_online(["u1"], NOW)[0][1] == 51.0


def test_one_view_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", stats_view("a"), stats_view("b"))
    repo.write([{"user": "u1", "event_timestamp": T0, "amount": 1.0}])
    repo.materialize(NOW, incremental=True)
    (repo.path / ".fastserve" / "offline").rename(tmp_path / "gone")
    (tmp_path / "gone" / "test" / "b").rename(repo.path / "b")
    (repo.path / ".fastserve" / "offline" / "test").mkdir(parents=True)
    (repo.path / "b").rename(repo.path / ".fastserve" / "offline" / "test" / "b")
    report = compared(repo)
    assert [(v.view, v.status) for v in report.views] == [("a", "failed"), ("b", "equal")]
    assert report.exit_code == 1
    with pytest.raises(UnknownObjectError):
        compared(repo, views=("c",))
    with pytest.raises(RequestError):
        compared(repo, prune=True)
