"""Runs of aggregated views: online rows fold to the values that training has at that time, on real stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from fastserve import Aggregation, FeatureStore
from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.fold_py import Folder
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.errors import RequestError
from fastserve.offline.events import event_rows
from fastserve.offline.schema import canonical_schema
from fastserve.offline.streamed import StreamedEvents, events_uri
from fastserve.online import open_store
from materializer import tiles
from materializer.run import materialize
from materializer.windows.ranges_py import as_array
from tests.integration.training.kit import T0, Repo, ts
from tests.integration.training.test_windows import declare, random_events
from tests.oracles.bits import bits
from tests.servers import start_redis

USERS = list(range(9))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(params=["lmdb", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repo]:
    url = "lmdb://.fastserve/online?sync=off"
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        asyncio.run(_flush(url))
    made = Repo(tmp_path)
    (tmp_path / "fastserve.toml").write_text(f'project = "tests"\nonline_store = "{url}"\n')
    made.store = FeatureStore(tmp_path)
    yield made


async def _flush(url: str) -> None:
    import redis.asyncio

    async with redis.asyncio.from_url(url) as client:
        await client.flushall()


def run(repo: Repo, end: int, now: int | None = None, **options: Any) -> Any:
    summary = materialize(
        repo.store.config, end_us=T0 + end, now_us=T0 + (end if now is None else now), **options
    )
    assert summary.status == "ok", [view.error for view in summary.views]
    return summary.views[0]


def rows_of(repo: Repo) -> dict[int, tuple[bytes, bytes | None]]:
    """User -> key and row."""
    rv = repo.store.registry.snapshot().view("w")
    keys = ReadBatch()
    KeyEncoder(rv.online_id, tuple(rv.join_keys.values())).encode_into(keys, [pa.array(USERS)], len(USERS))

    async def read() -> list[bytes | None]:
        store = open_store(repo.store.config.online_store)
        try:
            found = store.get_many(keys.keys())
            return list(await found if isinstance(found, asyncio.Future) else found)
        finally:
            await store.close()

    return dict(zip(USERS, zip(keys.keys(), asyncio.run(read()), strict=True), strict=True))


def folded(repo: Repo, t: int) -> dict[str, pa.Array]:
    """Feature -> the values of all users online, as of a time."""
    rv = repo.store.registry.snapshot().view("w")
    folder = Folder(compile_program(rv.view), rv.layout)
    found = []
    for key, row in rows_of(repo).values():
        tile_row = None if row is None else folder.codec.decode(key, row)
        found.append(
            [
                rv.defaults[o.name] if tile_row is None else folder.value(o, tile_row, t)
                for o in folder.program.outputs
            ]
        )
    columns = zip(folder.program.outputs, zip(*found, strict=True), strict=True)
    return {output.name: as_array(output.dtype, values) for output, values in columns}


def check(repo: Repo, times: list[int]) -> None:
    """Online is training, at each of the times."""
    view = repo.store.registry.snapshot().view("w").view
    for t in times:
        spine = pa.table({"u": USERS, "event_timestamp": ts([t] * len(USERS))})
        trained = repo.store.get_historical_features(spine, [view]).to_arrow()
        for name, values in folded(repo, T0 + t).items():
            assert bits(pa.chunked_array([values])) == bits(trained[name]), (name, t)


def test_a_run_writes_what_training_says(repo: Repo) -> None:
    events = random_events(np.random.default_rng(1), 150)
    declare(repo, events, event_id="id", filter="ok IS NOT FALSE")
    about = run(repo, 60, now=100)
    assert (
        about.rows_online_written == len([row for _, row in rows_of(repo).values() if row is not None]) == 7
    )
    assert about.rows_read > 0 and about.partitions_done == 0
    check(repo, [100, 103, 105, 110, 140, 10_000])
    before = rows_of(repo)
    run(repo, 60, now=100)
    assert rows_of(repo) == before


def test_in_parts_as_in_one(repo: Repo) -> None:
    declare(repo, random_events(np.random.default_rng(2), 150), event_id="id")
    with patch.object(tiles, "PART_ROWS", 40), patch.object(tiles, "PUT_ROWS", 2):
        run(repo, 60, now=100)
    check(repo, [100, 120])


def test_rows_move_on_and_never_back(repo: Repo) -> None:
    some = [
        Aggregation("*", "count", windows="40us", hop="5us"),
        Aggregation("big", "sum", windows="20us", hop=0),
    ]
    events = random_events(np.random.default_rng(3), 100).drop_columns(["created"])
    declare(repo, events, aggregations=some)
    run(repo, 20)
    first = rows_of(repo)
    run(repo, 60)
    second = rows_of(repo)
    assert first != second
    check(repo, [60, 70])
    run(repo, 20, now=70)  # as of a time before: the newer rows stay
    kept = rows_of(repo)
    assert all(kept[u] == second[u] for u in USERS if first[u] != second[u])


def test_late_events_are_taken_in_by_the_next_run(repo: Repo) -> None:
    some = [Aggregation("*", "count", windows="60us", hop=0)]
    events = random_events(np.random.default_rng(4), 90)
    declare(repo, events, aggregations=some)
    run(repo, 60, now=60)
    early = folded(repo, T0 + 60)["count_60us"].to_pylist()
    run(repo, 60, now=90)
    late = folded(repo, T0 + 60)["count_60us"].to_pylist()
    assert sum(early) < sum(late)
    check(repo, [90])


def test_the_registry_knows_of_the_run(repo: Repo) -> None:
    declare(
        repo,
        random_events(np.random.default_rng(5), 20),
        aggregations=[Aggregation("*", "count", windows="9us", hop=0)],
    )
    run(repo, 50, now=60)
    view_id = repo.store.registry.snapshot().view("w").view_id
    (held,) = repo.store.registry.intervals(view_id, "online")
    assert (held.start_us, held.end_us) == (T0 + 50 - 10 + 1, T0 + 51)


def test_what_makes_no_sense_says_so(repo: Repo) -> None:
    view = declare(
        repo,
        random_events(np.random.default_rng(6), 20),
        aggregations=[Aggregation("*", "count", windows="9us")],
    )
    config = repo.store.config
    with pytest.raises(RequestError, match="has no offline table: its history is its events'"):
        materialize(config, views=["w"], target="offline")
    for what in (
        lambda: repo.store.refresh("w"),
        lambda: repo.store.backfill("w", start=T0, end=T0 + 1),
        lambda: repo.store.reconcile("w"),
    ):
        with pytest.raises(RequestError, match="not for aggregated views, and 'w' is one"):
            what()
    with pytest.raises(RequestError, match="are made of events, and cannot be written"):
        repo.store.write_to_online_store(
            "w", pa.table({"u": [1], "event_timestamp": ts([1]), "count_9us": [1]})
        )
    assert view.offline is False


def test_a_row_is_of_its_events_alone(repo: Repo) -> None:
    some = [
        Aggregation("*", "count", windows="20us", hop="5us"),
        Aggregation("big", "last", windows="9us", hop=0),
    ]
    events = random_events(np.random.default_rng(8), 60).drop_columns(["created"])
    declare(repo, events, aggregations=some)
    run(repo, 60, now=90)
    before = rows_of(repo)
    run(repo, 70, now=90)  # no event is later than 60
    after = rows_of(repo)
    assert before == after


def test_an_entity_without_events_in_reach_has_no_row(repo: Repo) -> None:
    events = pa.table({"u": [1, 2], "ts": ts([10, 50])})
    events = events.append_column("big", pa.array([1, 2]))
    source = random_events(np.random.default_rng(9), 1).schema
    for field in source:
        if field.name not in events.column_names and field.name != "created":
            events = events.append_column(field, pa.nulls(2, field.type))
    declare(repo, events, aggregations=[Aggregation("*", "count", windows="20us", hop="5us")])
    run(repo, 60)
    assert [u for u, (_, row) in rows_of(repo).items() if row is not None] == [2]


def test_events_that_a_stream_appended_count(repo: Repo) -> None:
    """As in training: else a run would put rows of fewer events in the place of a stream's."""
    some = [
        Aggregation("*", "count", windows="60us", hop=0),
        Aggregation("shop", "last", windows="60us", hop=0),
    ]
    view = declare(repo, random_events(np.random.default_rng(10), 60), event_id="id", aggregations=some)
    rv = repo.store.registry.snapshot().view("w")
    run(repo, 60, now=100)
    before = folded(repo, T0 + 100)["count_60us"].to_pylist()
    schema = pa.schema([f for f in canonical_schema(event_rows(rv).rv) if f.name not in ("_layout",)])
    more = {"u": [1, 2], "event_timestamp": ts([50, 52]), "created_timestamp": ts([50, 52])}
    more |= {"shop": ["s", "t"], "id": ["one more", "another"]}
    batch = pa.table({f.name: more[f.name] for f in schema}, schema=schema).to_batches()[0]
    config = repo.store.config
    uri = events_uri(config.offline_store, config.project, view.events.name, list(rv.join_keys))
    assert StreamedEvents(uri, schema).append(batch, {"log": 1})
    run(repo, 60, now=101)
    after = folded(repo, T0 + 100)["count_60us"].to_pylist()
    assert [a - b for a, b in zip(after, before, strict=True)] == [0, 1, 1, 0, 0, 0, 0, 0, 0]
    check(repo, [101])
