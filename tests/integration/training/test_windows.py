"""Windows at labels' times: filter, copies, null keys and cutoffs, every function against the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureService,
    Field,
    SQLSource,
)
from fastserve.aggregations.sketches_py import xxh64
from fastserve.aggregations.values_py import canonical_values, value_bytes
from fastserve.errors import RequestError
from fastserve.timeutil import parse_duration
from materializer.windows.ranges_py import as_array
from tests.integration.training.kit import T0, Repo, ts, write_source
from tests.oracles.bits import bits
from tests.oracles.windows import window_value

COLUMNS = {
    "amount": "float64",
    "rate": "float32",
    "items": "int32",
    "big": "int64",
    "shop": "string",
    "blob": "bytes",
    "ok": "bool",
    "due": "timestamp",
}
NUMBERS = ("amount", "rate", "items", "big")
AGGREGATIONS = [
    Aggregation("*", "count", windows=["10us", "40us"], hop="5us"),
    *(Aggregation(c, f, windows="40us", hop="8us") for c in NUMBERS for f in ("sum", "mean", "var", "std")),
    *(Aggregation(c, f, windows="40us", hop=0) for c in (*NUMBERS, "due") for f in ("min", "max")),
    *(Aggregation(c, "count", windows="20us", hop="1us") for c in COLUMNS),
    *(Aggregation(c, f, windows=["7us", "40us"], hop=0) for c in COLUMNS for f in ("first", "last")),
    *(Aggregation(c, "last_n", n=3, windows="40us", hop="10us") for c in COLUMNS),
    *(Aggregation(c, "count_distinct", bound=3, windows="40us", hop="10us") for c in COLUMNS),
    *(Aggregation(c, "approx_quantile", quantile=0.25, windows="40us", hop="4us") for c in NUMBERS),
]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path)


def random_events(rng: np.random.Generator, n: int) -> pa.Table:
    """Events of few entities and times, with copies, nulls and odd numbers."""
    few: dict[str, list[Any]] = {
        "amount": [
            0.1,
            -0.0,
            0.0,
            1e16,
            -1e16,
            1e308,
            1e308,
            5e-324,
            None,
            2.5,
            3.3,
            float("nan"),
            float("inf"),
        ],
        "rate": [0.5, -0.0, 3e38, 1e-45, None, float("nan"), 7.25],
        "items": [1, 2, -3, 2**31 - 1, None],
        "big": [2**62, 2**62, -5, 2**53 + 1, None, 7],
        "shop": ["a", "b", "é", "", None, "c", "d"],
        "blob": [b"\0", b"\xff", b"", None],
        "ok": [True, False, None],
        "due": [T0, T0 + 1, None, -5],
    }
    kinds = {"rate": pa.float32(), "items": pa.int32(), "due": pa.int64()}
    made: dict[str, Any] = {"u": pa.array([None if k == 7 else int(k) for k in rng.integers(0, 8, n)])}
    made["ts"], made["created"] = (ts(rng.integers(0, high, n).tolist()) for high in (60, 90))
    made["id"] = [None if i == 0 else f"event {i}" for i in rng.integers(0, 3 * n, n)]
    for name, values in few.items():
        odd = (
            0.05 if name in ("amount", "rate") else 1.0
        )  # NaN and infinity now and then, else they hide all else
        plain = [v for v in values if v is None or (v == v and abs(v) < 1e300)] if odd < 1 else values
        picked = [(values if rng.random() < odd else plain) for _ in range(n)]
        made[name] = pa.array([some[rng.integers(len(some))] for some in picked], kinds.get(name))
    made["due"] = made["due"].cast(pa.timestamp("us", "UTC"))
    return pa.table(made)


def declare(
    repo: Repo, events: pa.Table, *, format: str = "parquet", **options: Any
) -> AggregatedFeatureView:
    source = options.pop("batch_source", None) or write_source(repo.folder, "events", events, format)
    declared = EventSource(
        "events",
        source,
        schema=[Field(n, t) for n, t in COLUMNS.items()],
        event_id=options.pop("event_id", ""),
    )
    user = Entity("user", ["u"], ["int64"])
    view = AggregatedFeatureView(
        "w", entities=[user], source=declared, **{"aggregations": AGGREGATIONS} | options
    )
    repo.store.apply([user, view])
    return view


def count(
    events: pa.Table, *, event_id: str = "", condition: Any = None, cutoff: int | None = None
) -> list[Any]:
    """The events that count, word for word."""
    rows = events.to_pylist()
    for i, row in enumerate(rows):
        row["order"] = (row["ts"], row["created"] or row["ts"], i)
    rows = [r for r in rows if cutoff is None or (r["created"] or r["ts"]).timestamp() * 1e6 <= cutoff + 0.5]
    if event_id:
        first: dict[Any, Any] = {}
        for row in sorted(rows, key=lambda r: r["order"]):
            first.setdefault((row["u"], row[event_id]) if row[event_id] is not None else id(row), row)
        rows = list(first.values())
    return [r for r in rows if r["u"] is not None and (condition is None or condition(r))]


def expected(view: AggregatedFeatureView, rows: list[Any], spine: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    times = spine["event_timestamp"].cast(pa.int64()).to_pylist()
    moments = pa.array([r["ts"] for r in rows], pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    for aggregation in view.aggregations:
        dtype = COLUMNS.get(aggregation.column, "")
        values: list[Any] = [None] * len(rows)
        if dtype:
            values = canonical_values(as_array(dtype, [plain(r[aggregation.column], dtype) for r in rows]))
        argument = {
            "last_n": aggregation.n,
            "count_distinct": aggregation.bound,
            "approx_quantile": (aggregation.quantile, 6),
        }.get(aggregation.function)
        for name, window in aggregation.features():
            field = view.field(name)
            assert field is not None
            found = []
            for u, t in zip(spine["u"].to_pylist(), times, strict=True):
                mine = [(at, v) for r, at, v in zip(rows, moments, values, strict=True) if r["u"] == u]
                found.append(
                    window_value(
                        "events" if aggregation.column == "*" else aggregation.function,
                        mine,
                        t=t,
                        window=parse_duration(window),
                        hop=aggregation.hop_us(parse_duration(window)),
                        dtype=dtype,
                        argument=argument,
                        hashed=lambda v, dtype=dtype: xxh64(value_bytes(dtype, v)),
                    )
                )
            yield name, as_array(field.dtype, found)


def plain(value: Any, dtype: str) -> Any:
    if value is None or dtype not in ("string", "timestamp"):
        return value
    if dtype == "string":
        return value.encode()
    return pa.scalar(value, pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()


def check(repo: Repo, view: AggregatedFeatureView, rows: list[Any], spine: pa.Table, **options: Any) -> None:
    made = repo.train(spine, [view], **options).to_arrow()
    for name, values in expected(view, rows, spine):
        assert bits(made[name]) == bits(pa.chunked_array([values])), name


def labels(rng: np.random.Generator, n: int) -> pa.Table:
    """Labels on hop edges and off them, of entities with and without events, and of none."""
    us = [None if k == 8 else int(k) for k in rng.integers(0, 9, n)]
    return pa.table({"u": pa.array(us, pa.int64()), "event_timestamp": ts(rng.integers(-5, 110, n).tolist())})


def test_every_function_is_what_the_oracle_says(repo: Repo) -> None:
    rng = np.random.default_rng(1)
    events = random_events(rng, 120)
    view = declare(repo, events)
    check(repo, view, count(events), labels(rng, 40))


@pytest.mark.parametrize("format", ["csv", "arrow", "delta"])
def test_copies_filter_and_formats(repo: Repo, format: str) -> None:
    rng = np.random.default_rng(2)
    events = random_events(rng, 100)
    if format == "csv":
        events = events.drop_columns(["blob"])
    some = [
        Aggregation("*", "count", windows="40us", hop=0),
        Aggregation("amount", "sum", windows="40us", hop="8us"),
    ]
    view = declare(
        repo, events, format=format, event_id="id", filter="ok AND items > 0 OR shop = 'a'", aggregations=some
    )
    rows = count(
        events,
        event_id="id",
        condition=lambda r: bool((r["ok"] and (r["items"] or 0) > 0) or r["shop"] == "a"),
    )
    assert len(rows) < len(count(events, event_id="id")) < len(count(events))
    check(repo, view, rows, labels(rng, 30))


def test_a_cutoff_takes_what_was_known(repo: Repo) -> None:
    rng = np.random.default_rng(3)
    events = random_events(rng, 80)
    some = [
        Aggregation("*", "count", windows="40us", hop=0),
        Aggregation("shop", "last", windows="40us", hop=0),
    ]
    view = declare(repo, events, event_id="id", aggregations=some)
    spine = labels(rng, 20)
    check(repo, view, count(events, event_id="id", cutoff=T0 + 40), spine, cutoff=T0 + 40)
    with pytest.raises(
        RequestError, match="a cutoff for each label is not for aggregated views, and 'w' is one"
    ):
        repo.store.get_historical_features(spine, [view], cutoff="label_time")


def test_a_service_mixes_kinds_of_views(repo: Repo) -> None:
    rng = np.random.default_rng(4)
    events = random_events(rng, 60)
    spine = labels(rng, 25)
    view = declare(repo, events, aggregations=[Aggregation("*", "count", windows="40us", hop=0, name="n")])
    rows = pa.table({"u": [1, 2, 1], "ts": ts([1, 1, 5]), "v": [10, 20, 11]})
    plain_view = repo.view("plain", rows, [Field("v", "int64")])
    service = FeatureService(
        "svc", [plain_view, view, view.with_name("other").with_join_key_map({"u": "friend"})]
    )
    repo.store.apply([service])
    spine = spine.append_column("friend", pa.array([1] * len(spine)))
    made = repo.train(spine, service, full_feature_names=True).to_arrow()
    counted = count(events)
    for name, keys in (("w__n", spine["u"]), ("other__n", spine["friend"])):
        asked = pa.table({"u": keys, "event_timestamp": spine["event_timestamp"]})
        ((_, values),) = expected(view, counted, asked)
        assert made[name].to_pylist() == values.to_pylist()
    alone = repo.train(spine, [plain_view]).to_arrow()
    assert made["plain__v"].to_pylist() == alone["v"].to_pylist()


def test_events_from_a_query(repo: Repo) -> None:
    rng = np.random.default_rng(5)
    events = random_events(rng, 60)
    write_source(repo.folder, "input", events, "parquet")
    query = SQLSource("SELECT * FROM rows", {"rows": "input.parquet"}, "ts", "created", name="query")
    some = [Aggregation("*", "count", windows="40us", hop=0)]
    view = declare(repo, events, batch_source=query, aggregations=some)
    check(repo, view, count(events), labels(rng, 20))


def test_a_data_set_is_verified(repo: Repo) -> None:
    rng = np.random.default_rng(6)
    events = random_events(rng, 40)
    view = declare(
        repo, events, event_id="id", aggregations=[Aggregation("big", "sum", windows="40us", hop=0)]
    )
    made = repo.store.create_training_dataset(labels(rng, 12), "d", [view])
    assert repo.store.verify_training_dataset(made.id).ok


def test_one_row_for_all(repo: Repo) -> None:
    source = EventSource("all", write_source(repo.folder, "e", pa.table({"ts": ts([1, 2, 9])}), "parquet"))
    view = AggregatedFeatureView(
        "all", source=source, aggregations=[Aggregation("*", "count", windows="5us", hop=0)]
    )
    repo.store.apply([view])
    made = repo.train(pa.table({"event_timestamp": ts([0, 2, 6, 7, 14])}), [view])
    assert made.to_arrow()["count_5us"].to_pylist() == [0, 2, 1, 0, 0]


def test_no_labels_and_no_events_in_reach(repo: Repo) -> None:
    view = declare(repo, random_events(np.random.default_rng(7), 9))
    made = repo.train(labels(np.random.default_rng(7), 0), [view]).to_arrow()
    assert made.num_rows == 0
    spine = pa.table({"u": [1], "event_timestamp": ts([10**12])})
    row = repo.train(spine, [view]).to_arrow().to_pylist()[0]
    counts = {f.name for f in view.schema if f.default == 0}
    assert all(row[f.name] == (0 if f.name in counts else None) for f in view.schema)
