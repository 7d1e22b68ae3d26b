"""Features of the rows that won, read in threads and taken off their hands whenever there are many."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.definitions import FeatureView, Field
from fastserve.errors import OfflineStoreError
from fastserve.offline.schema import LAYOUT
from materializer.pit import winners
from materializer.pit.chunks import NONE, place
from tests.unit.offline.views import registered


class Piece:
    """Rows whose feature says which piece and row it is of."""

    def __init__(self, number, n_rows):
        self.number, self.n_rows = number, n_rows

    def take(self, columns, rows):
        assert (np.diff(rows) > 0).all()
        assert rows[-1] < self.n_rows
        layout = pa.array(np.ones(len(rows), np.int32))
        return pa.RecordBatch.from_arrays([pa.array(place(self.number) + rows), layout], [*columns, LAYOUT])


VIEW = registered(FeatureView("v", schema=[Field("x", "int64")]), {})
cases = st.lists(st.integers(1, 12), min_size=1, max_size=9).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes),
        st.lists(
            st.integers(0, len(sizes) - 1).flatmap(
                lambda piece: st.integers(0, sizes[piece] - 1).map(lambda row: place(piece, row))
            )
            | st.just(NONE),
            max_size=40,
        ),
    )
)


@given(cases, st.none() | st.integers(1, 200), st.integers(1, 4))
def test_each_label_finds_its_row_whoever_takes_it(case, most_bytes, threads):
    sizes, wanted = case
    places, values, seen = np.array(wanted, np.int64), {}, []

    def full(found, labels):
        for label in labels.tolist():
            at = int(places[label])
            values[label] = found[at >> 32]["x"][at & 0xFFFFFFFF].as_py()
        places[labels] = NONE

    pieces = [Piece(number, n_rows) for number, n_rows in enumerate(sizes)]
    left = winners.read_winners(
        places, pieces, VIEW, ["x"], threads=threads, most_bytes=most_bytes, full=full, seen=seen.append
    )
    full(left, np.flatnonzero(places >= 0))
    assert values == {label: at for label, at in enumerate(wanted) if at != NONE}
    assert sorted(seen) == sorted(sizes[number] for number in {at >> 32 for at in wanted if at != NONE})


def test_what_cannot_be_taken_stops_the_reading():
    def full(found, labels):
        raise OfflineStoreError("the disk is full")

    places = np.array([place(number) for number in range(8)], np.int64)
    with pytest.raises(OfflineStoreError, match="the disk is full"):
        winners.read_winners(
            places, [Piece(n, 1) for n in range(8)], VIEW, ["x"], threads=3, most_bytes=1, full=full
        )
