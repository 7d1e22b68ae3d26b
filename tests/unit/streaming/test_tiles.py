"""Which events of a batch change a view's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from fastserve.definitions import Aggregation, EventSource, Field
from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.streaming.entities import entities_of
from fastserve.streaming.events import taken_events
from fastserve.streaming.tiles import Touched, ViewTiles
from tests.unit.streaming.feeds import CARD, T0, feed_of


def touched(column: str, values: Sequence[int], filter: str) -> Touched:
    """By events of cards 0 and 1 in turn, whose column has these values."""
    source = EventSource("counts", schema=[Field(column, "int64")])
    aggregations = [Aggregation(column, "sum", windows=["1h"])]
    view = AggregatedFeatureView(
        "sums", entities=[CARD], source=source, aggregations=aggregations, filter=filter
    )
    feed = feed_of(source, view)
    n = len(values)
    times = pa.array(T0 + np.arange(n), pa.timestamp("us", "UTC"))
    rows = {"card_id": np.arange(n) % 2, "event_timestamp": times, column: values}
    batch, _, wrong = taken_events(feed, pa.table(rows))
    assert not wrong
    return ViewTiles(feed.views[0]).touched(batch, entities_of(feed, batch))


def test_a_filter_may_read_a_column_of_any_name() -> None:
    found = touched("_row", [5, 1, 7, 2], "_row > 4")
    assert found.rows.tolist() == [0, 2]
    assert found.events["_row"].to_pylist() == [5, 7]
    assert len(found.keys) == 1


def test_events_on_which_a_filter_fails_are_told_and_the_others_count() -> None:
    most = 2**63 - 1
    found = touched("n", [1, most, 3, 4, most], "n + 1 > 2")
    assert found.rows.tolist() == [2, 3]
    assert [wrong.i for wrong in found.wrong] == [1, 4]
    assert all(wrong.reason.startswith("the filter of view 'sums' fails: ") for wrong in found.wrong)
