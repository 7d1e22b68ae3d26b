"""Keys of labels and events as codes: the twin and the native ones part the same rows alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.chunks import Labels, RowChunk
from materializer.pit.factorize import canonical_key
from materializer.windows.keys_py import Keys

KINDS = {"int64": pa.int64(), "string": pa.string(), "bool": pa.bool_()}
VALUES = {"int64": st.integers(-3, 3), "string": st.sampled_from(["", "a", "b"]), "bool": st.booleans()}
Given = tuple[list[str], list[Any], list[Any]]


@st.composite
def given_keys(draw: st.DrawFn) -> Given:
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), max_size=3))
    rows = st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in kinds)), max_size=12)
    return kinds, draw(rows), draw(rows)


def made(keys: type[Any], kinds: list[str], labels: list[Any], rows: list[Any]) -> tuple[Any, Any, int]:
    def columns(of: list[Any]) -> list[pa.Array]:
        return [pa.array([row[i] for row in of], KINDS[kind]) for i, kind in enumerate(kinds)]

    asked = [canonical_key(column, kind) for column, kind in zip(columns(labels), kinds, strict=True)]
    coder = keys(Labels(asked, np.zeros(len(labels), np.int64), kinds))
    zeros = np.zeros(len(rows), np.int64)
    return coder.codes, coder.find(RowChunk(columns(rows), zeros, zeros)), coder.n_codes


@settings(deadline=None)
@given(given_keys())
@pytest.mark.parametrize("kind", ["twin", "native"])
def test_codes_are_equal_where_keys_are(kind: str, keys: Given) -> None:
    kinds, labels, rows = keys
    of = Keys if kind == "twin" else pytest.importorskip("materializer.pit.keys_native").Keys
    codes, found, n_codes = made(of, kinds, labels, rows)
    assert all((code < 0) == (None in row) for code, row in zip(codes, labels, strict=True))
    assert not len(codes) or codes.max() < n_codes
    by_code = {int(code): row for code, row in zip(codes, labels, strict=True) if code >= 0}
    assert len(set(by_code.values())) == len(by_code)
    for code, row in zip(found, rows, strict=True):
        known = None not in row and row in labels
        assert by_code[int(code)] == row if known else int(code) not in by_code
