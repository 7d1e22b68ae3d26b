"""Late events and duplicates, against the oracle, however the log is cut into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.streaming.entries import Decoded
from fastserve.streaming.events import cast_events
from fastserve.streaming.seen import SeenIds, bucket_width, id_words
from fastserve.streaming.sift import Sifted, sift
from fastserve.timeutil import MICROS
from tests.oracles.streams import counted
from tests.unit.streaming.feeds import T0, feed_of, payments

LATENESS = 60 * MICROS


def decoded(feed, events):
    table = pa.table({
        "card_id": [1] * len(events),
        "event_timestamp": pa.array([ts for _, ts in events], pa.timestamp("us", "UTC")),
        "payment_id": pa.array([name for name, _ in events], pa.string()),
    })  # fmt: skip
    rows = np.arange(len(events))
    return Decoded(cast_events(feed, table, ["card_id"]), np.zeros(len(events), np.int64), rows, [])


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
        made: Sifted = sift(feed, decoded(feed, events[start:stop]), watermark, seen)
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
    made = sift(feed, Decoded(batch, np.zeros(2, np.int64), np.arange(2), []), None, SeenIds(LATENESS))
    assert (made.kept.tolist(), made.new_ids) == ([0, 1], {})


def test_ids_are_let_go_with_their_time() -> None:
    seen = SeenIds(LATENESS)
    width = bucket_width(LATENESS)
    first = T0 // width
    for bucket in range(first, first + 40):
        seen.add(bucket, [bucket, 7])
    seen.let_go(first + 30)
    assert len(seen) == 10 + 1
    assert seen.bucket(7, -1) == first + 39
    assert seen.bucket(first + 3, -1) == -1


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (pa.array(["p1", "", None]), [13488554065616051604, 14469690684433171942, None]),
        (pa.array([b"p1", b"", None]), [13488554065616051604, 14469690684433171942, None]),
        (pa.array([1, -1]), [13159321584365592366, 404912569933022117]),
    ],
)
def test_words_never_change(ids, words) -> None:
    """Stores keep them."""
    assert id_words([b"0:7"] * len(ids), ids) == words


def test_short_ids_have_words_of_their_own() -> None:
    n = 20_000
    ids = pa.array([f"p{i}" for i in range(n)])
    words = id_words([b"0:7"] * n, ids) + id_words([b"0:8"] * n, ids)
    assert len(set(words)) == 2 * n
