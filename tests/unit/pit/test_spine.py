from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fastserve.errors import RequestError
from materializer.pit.spine import to_spine
from tests.oracles.bits import bits


def column(values):
    return to_spine(pd.DataFrame({"x": values})).table["x"]


def test_nan_in_a_column_of_floats_is_a_value_with_all_its_bits():
    payload = np.array([0x7FF8DEADBEEF0001, 0, -(2**63)], np.int64).view(np.float64)
    assert bits(column(payload)) == payload.view(np.int64).tolist()
    assert column(payload.astype(np.float32)).null_count == 0


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pd.array([1, None, 2**53 + 1], dtype="Int64"), pa.int64(), [1, None, 2**53 + 1]),
        (pd.array([1.5, None], dtype="Float64"), pa.float64(), bits(pa.array([1.5, None]))),
        (pd.Series(["a", None, float("nan")], dtype=object), pa.string(), ["a", None, None]),
        (pd.Series([b"a", None], dtype=object), pa.binary(), [b"a", None]),
        (pd.Series([True, None], dtype="boolean"), pa.bool_(), [True, None]),
        (pd.Categorical(["b", None, "a"]), None, ["b", None, "a"]),
        (pd.to_datetime(["1970-01-01T01:00+01:00", None]).as_unit("us"), None, [0, None]),
        (pd.Series([[1, 2], None], dtype=object), pa.list_(pa.int64()), [(1, 2), None]),
    ],
)
def test_missing_values_of_other_columns_are_nulls(values, kind, expected):
    got = column(values)
    assert bits(got) == expected and (kind is None or got.type == kind)


def test_the_index_is_dropped_and_the_frame_kept_as_it_was():
    frame = pd.DataFrame({"x": [1, 2]}, index=["b", "a"])
    spine = to_spine(frame)
    frame["x"] = 0
    assert spine.table.column_names == ["x"] and spine.table["x"].to_pylist() == [1, 2]
    assert spine.frame["x"].tolist() == [1, 2] and list(spine.frame.index) == [0, 1]
    assert to_spine(spine) is spine


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(RequestError, match="two columns named 'x'"):
        to_spine(pd.DataFrame([[1, 2]], columns=["x", "x"]))
