"""Entities as scripts and notebooks have them: columns, rows, frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastserve.errors import InvalidEntityError
from fastserve.serving.sdk import to_columns

COLUMNS = {"user": [1, 2], "item": ["a", "b"]}


@pytest.mark.parametrize(
    "rows",
    [
        COLUMNS,
        [{"user": 1, "item": "a"}, {"item": "b", "user": 2}],
        pd.DataFrame(COLUMNS, index=[7, 7]),
        pl.DataFrame(COLUMNS),
        pa.table(COLUMNS),
    ],
    ids=["columns", "rows", "pandas", "polars", "arrow"],
)
def test_every_form_is_the_same_columns(rows: Any) -> None:
    assert to_columns(rows) == COLUMNS


def test_no_rows() -> None:
    assert to_columns(()) == {}


def test_columns_need_not_be_lists() -> None:
    columns = {"user": np.array([1, 2])}
    assert to_columns(columns) is columns


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user": 1}, r"entity_rows\['user'\]: 1 is no list of values\n.*write \[1\]"),
        ({"user": "ab"}, r"'ab' is no list of values"),
        ([{"user": 1}, {"item": 2}], r"entity_rows\[1\]: has \['item'\], the first row has \['user'\]"),
        ([1, 2], r"entity_rows\[0\]: 1 is no mapping"),
    ],
)
def test_what_is_neither_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(InvalidEntityError, match=message):
        to_columns(rows)
