"""Streams made from a template are what pyarrow writes of the same batch."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api import arrow_answer
from fastserve.api.arrow_answer import render_arrow
from fastserve.serving.read_path import FeatureBatch
from fastserve.types import Array, DType, parse_dtype
from tests.unit.client.test_wire import batch_of

FIXED = ["bool", "int32", "int64", "float32", "float64", "timestamp"]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "timestamp": st.integers(-(10**15), 10**15),
}


def table_of(stream: Any) -> pa.Table:
    reader = pa.ipc.open_stream(pa.py_buffer(stream))
    table = reader.read_all()
    table.validate(full=True)
    return table


@settings(deadline=None)
@given(data=st.data(), n=st.integers(1, 20))
def test_the_same_table_as_pyarrow_writes(data: st.DataObject, n: int) -> None:
    kinds: list[DType] = []
    for item in data.draw(st.lists(st.sampled_from([*FIXED, "float32[3]"]), min_size=1, max_size=8)):
        kinds.append(Array("float32", 3) if item == "float32[3]" else parse_dtype(item))
    columns = []
    for kind in kinds:
        values = VALUES[kind.item]
        one = st.lists(values, min_size=3, max_size=3) if kind.is_list else values
        columns.append(data.draw(st.lists(st.none() | one, min_size=n, max_size=n)))
    first = batch_of(kinds, columns, n)
    second = batch_of(kinds, [column[::-1] for column in columns], n)
    shared = FeatureBatch(first.plan, second.n, second.reads, second.now_us)
    for batch in (first, shared):
        made = render_arrow(batch)
        assert isinstance(made, bytearray), "from the template"
        wanted, got = table_of(arrow_answer._written(batch)), table_of(made)
        assert got.schema.equals(wanted.schema, check_metadata=True)
        assert [c.null_count for c in got.columns] == [c.null_count for c in wanted.columns]
        for mine, theirs in zip(got.columns, wanted.columns, strict=True):
            assert bits_of(mine) == bits_of(theirs)


def bits_of(column: pa.ChunkedArray) -> list[str]:
    """Values with nan told from nan by nothing, and null from both."""
    return [repr(value) for value in column.to_pylist()]


@pytest.mark.parametrize("kind", ["string", "bytes", "list<float32>"])
def test_widths_that_vary_are_written_by_pyarrow(kind: str) -> None:
    value = {"string": "a", "bytes": b"a", "list<float32>": [1.0]}[kind]
    stream = render_arrow(batch_of([parse_dtype(kind)], [[value]], 1))
    assert not isinstance(stream, bytearray)
    assert table_of(stream).num_rows == 2


def test_templates_are_kept_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = arrow_answer._Templates()
    monkeypatch.setattr(arrow_answer, "KEPT_BYTES", 20_000)
    for n in range(1, 200):
        batch = batch_of([parse_dtype("float64")], [[1.0] * n], n)
        found = templates.of(batch)
        assert found is not None and table_of(found.filled(batch)).num_rows == n + 1
    assert templates._bytes <= 20_000 and len(templates._kept) < 20
