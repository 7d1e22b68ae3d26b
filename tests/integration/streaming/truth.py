"""What a feed's logs must have made of the store: read back from the logs, event by event, and built all at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import redis

from fastserve.aggregations.build_py import TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.batch.batch_py import ReadBatch
from fastserve.streaming.feeds import Feed
from fastserve.types import arrow_type, parse_dtype
from tests.oracles.streams import Counted, counted

CREATED = 1


def log_events(client: redis.Redis, feed: Feed, shard: int) -> list[dict[str, Any]]:
    """The right events of a shard in order, times as microseconds; entries that are none are left out."""
    found = []
    for _, fields in client.xrange(feed.key("log", shard)):
        if b"arrow" in fields:
            table = pa.ipc.open_stream(fields[b"arrow"]).read_all()
            times = table["event_timestamp"].cast(pa.int64()).to_pylist()
            rows = table.drop_columns("event_timestamp").to_pylist()
            found += [{**row, "event_timestamp": at} for row, at in zip(rows, times, strict=True)]
        elif b"json" in fields and fields[b"json"].startswith(b"{"):
            row = orjson.loads(fields[b"json"])
            found.append(row)
    return found


def expected(
    client: redis.Redis, feed: Feed, shards: int, end_us: int
) -> tuple[dict[bytes, bytes], list[Counted]]:
    """Key -> row as of end_us with every view's events built at once, and what became of each shard's events."""
    rows: dict[bytes, bytes] = {}
    outcomes = []
    for shard in range(shards):
        events = log_events(client, feed, shard)
        outcome = counted([(e["payment_id"], e["event_timestamp"]) for e in events], feed.source.lateness_us)
        outcomes.append(outcome)
        rows |= rows_of(feed, [events[i] for i in outcome.kept], end_us)
    return rows, outcomes


def of_history(
    client: redis.Redis, feed: Feed, shards: int, batch: Sequence[dict[str, Any]], end_us: int
) -> dict[bytes, bytes]:
    """Key -> row as of end_us of all events, late ones too, of a batch source and of logs: of an id the first."""
    events = [*batch, *(event for shard in range(shards) for event in log_events(client, feed, shard))]
    firsts: dict[tuple[int, str], dict[str, Any]] = {}
    for event in events:
        name = event["card_id"], event["payment_id"]
        if name not in firsts or event["event_timestamp"] < firsts[name]["event_timestamp"]:
            firsts[name] = event
    return rows_of(feed, list(firsts.values()), end_us)


def rows_of(feed: Feed, events: Sequence[dict[str, Any]], end_us: int) -> dict[bytes, bytes]:
    """Key -> row of every view, of events of which all count."""
    rows: dict[bytes, bytes] = {}
    for rv in feed.views:
        program = compile_program(rv.view)
        cards: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for event in events:
            if "paid" not in rv.view.filter or event.get("status") == "paid":
                cards[event["card_id"]].append(event)
        for card, own in cards.items():
            columns = [
                pa.array([e.get(c.name) for e in own], arrow_type(parse_dtype(c.dtype)))
                for c in program.columns
            ]
            times = np.array([e["event_timestamp"] for e in own], np.int64)
            batch = ReadBatch([prefix(rv.view_id) + b"%d" % card])
            TileBuilder(program, rv.layout.layout_id).build_into(
                batch, np.zeros(len(own), np.int64), times, columns, end_us=end_us, created_us=CREATED
            )
            rows[batch.keys()[0]] = batch.rows()[0]
    return rows


def stored(client: redis.Redis, feed: Feed, end_us: int) -> dict[bytes, bytes]:
    """Key -> row in the store, as of end_us."""
    rows = {}
    for rv in feed.views:
        builder = TileBuilder(compile_program(rv.view), rv.layout.layout_id)
        for key in client.scan_iter(match=prefix(rv.view_id) + b"*", count=1000):
            base, out = ReadBatch([key]), ReadBatch([key])
            base.fill([client.get(key)], 0)
            nothing = [pa.array([], arrow_type(parse_dtype(c.dtype))) for c in builder.program.columns]
            none = np.empty(0, np.int64)
            builder.build_into(out, none, none, nothing, end_us=end_us, created_us=CREATED, base=base)
            rows[key] = out.rows()[0]
    return rows


def prefix(view_id: int) -> bytes:
    return np.base_repr(view_id, 36).lower().encode() + b":"
