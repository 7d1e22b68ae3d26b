"""Entities of events: each once, with its own keys, whatever the types of its keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.streaming.entities import Entities, entities_of
from tests.unit.streaming.feeds import feed_of, payments

FEED = feed_of(payments())
COLUMNS = {
    "int64": st.integers(-3, 3),
    "string": st.sampled_from(["", "p1", "p10", "é"]),
    "bytes": st.sampled_from([b"", b"p1", b"p10"]),
    "bool": st.booleans(),
}
TYPES = {"int64": pa.int64(), "string": pa.string(), "bytes": pa.binary(), "bool": pa.bool_()}


def made(names: list[str], rows: list[tuple]) -> Entities:
    feed = replace(FEED, join_keys={name: name for name in names})
    arrays = [pa.array([row[c] for row in rows], TYPES[name]) for c, name in enumerate(names)]
    return entities_of(feed, pa.RecordBatch.from_arrays(arrays, names=names))


def keys(entities: Entities) -> list[tuple]:
    """Of each event."""
    columns = [column.to_pylist() for column in entities.columns]
    each = list(zip(*columns, strict=True))
    assert len(each) == len(set(each)) == entities.m
    return [each[code] for code in entities.codes.tolist()]


@settings(deadline=None)
@given(names=st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3, unique=True), data=st.data())
def test_each_event_has_its_keys_and_each_key_is_there_once(names, data) -> None:
    rows = data.draw(st.lists(st.tuples(*(COLUMNS[name] for name in names)), max_size=20))
    entities = made(names, rows)
    assert keys(entities) == rows
    hashes = entities.hashes()
    assert len(set(zip(rows, hashes.tolist(), strict=True))) == len(set(rows)) == len(set(hashes.tolist()))
    some = np.array(
        data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True) if rows else st.just([])), np.int64
    )
    assert keys(entities.of_events(some)) == [rows[i] for i in some.tolist()]


@pytest.mark.parametrize(
    ("name", "value", "hashed"),
    [
        ("int64", 1, 6238072747940578789),
        ("string", "p1", 6469966397956686642),
        ("bytes", b"p1", 6469966397956686642),
        ("bool", True, 6238072747940578789),
    ],
)
def test_hashes_never_change(name, value, hashed) -> None:
    """What is kept of event ids is made of them."""
    assert made([name], [(value,)]).hashes().tolist() == [hashed]
