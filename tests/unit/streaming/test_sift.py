"""Late events and duplicates, against the oracle, however the log is cut into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.streaming.entities import Entities, entities_of
from fastserve.streaming.events import cast_events
from fastserve.streaming.seen import SeenIds, bucket_width, id_words
from fastserve.streaming.sift import Sifted, sift
from fastserve.timeutil import MICROS
from tests.oracles.streams import counted
from tests.unit.streaming.feeds import T0, feed_of, payments

LATENESS = 60 * MICROS
FEED = feed_of(payments(lateness="60s"))


def batch_of(feed, events):
    table = pa.table({
        "card_id": [1] * len(events),
        "event_timestamp": pa.array([ts for _, ts in events], pa.timestamp("us", "UTC")),
        "payment_id": pa.array([name for name, _ in events], pa.string()),
    })  # fmt: skip
    return cast_events(feed, table, ["card_id"])


def card(number: int) -> Entities:
    return Entities([pa.array([number])], 1, np.zeros(1, np.int64))


def sifted(feed, batch, watermark, seen) -> Sifted:
    return sift(feed, batch, entities_of(feed, batch), watermark, seen)


@given(
    ids=st.lists(st.none() | st.integers(0, 30), max_size=60),
    steps=st.lists(st.integers(-100, 40), min_size=31, max_size=31),
    cuts=st.sets(st.integers(0, 60), max_size=4),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_as_the_oracle_says_however_it_is_cut(ids, steps, cuts, data) -> None:
    feed = feed_of(payments(lateness="60s"))
    times = np.cumsum(steps) // 2 * MICROS + T0  # the time of each id: it comes again with the same
    events = [(None, T0) if i is None else (f"p{i}", int(times[i])) for i in ids]
    seen, watermark, kept, late, duplicates = SeenIds(LATENESS), None, [], 0, 0
    edges = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    for start, stop in pairwise(edges):
        made = sifted(feed, batch_of(feed, events[start:stop]), watermark, seen)
        watermark = made.watermark_us
        kept += [start + int(i) for i in made.kept]
        late, duplicates = late + made.late, duplicates + made.duplicates
        for bucket, words in made.new_ids.items():
            seen.add(bucket, words)
        if watermark is not None and data.draw(st.booleans()):
            seen.let_go(seen.first(watermark))
    expected = counted(events, LATENESS)
    assert (kept, late, duplicates, watermark) == (
        expected.kept, expected.late, expected.duplicates, expected.watermark
    )  # fmt: skip


def test_without_ids_every_event_counts() -> None:
    feed = feed_of(payments(event_id="", lateness="60s"))
    table = pa.table({"card_id": [1, 1], "event_timestamp": pa.array([T0, T0], pa.timestamp("us", "UTC"))})
    batch = cast_events(feed, table, ["card_id"])
    made = sifted(feed, batch, None, SeenIds(LATENESS))
    assert (made.kept.tolist(), made.new_ids) == ([0, 1], {})


def words(*numbers):
    return np.array(numbers, np.uint64)


def test_ids_are_let_go_with_their_time() -> None:
    seen = SeenIds(LATENESS)
    first = T0 // bucket_width(LATENESS)
    for bucket in range(first, first + 40):
        seen.add(bucket, words(bucket, 7))
    seen.let_go(first + 30)
    assert len(seen) == 10 + 1

    def is_new(word, since):
        asked = words(word), np.array([first + 50]), np.array([since]), np.array([True])
        return seen.first_of_each(*asked).tolist() == [True]

    assert not is_new(7, first + 39) and is_new(7, first + 40)
    assert is_new(first + 3, first)


@pytest.mark.parametrize("ids", [pa.array(["p1", "", "x" * 40]), pa.array([b"p1", b"", b"x" * 40])])
def test_words_never_change(ids) -> None:
    """Stores keep them."""
    entities = entities_of(FEED, batch_of(FEED, [("", T0)] * 3))
    assert id_words(entities.hashes(), ids).tolist() == [
        17131623950952278983,
        3661149438657871816,
        7016859345766675223,
    ]
    assert id_words(entities.hashes()[:2], pa.array([1, -1])).tolist() == [
        13612376806331629903,
        8833928463560464963,
    ]


def test_short_ids_of_two_cards_have_words_of_their_own() -> None:
    n = 20_000
    ids = pa.array([f"p{i}" for i in range(n)])
    found = [id_words(np.repeat(one.hashes(), n), ids) for one in map(card, (7, 8))]
    assert len(np.unique(np.concatenate(found))) == 2 * n
