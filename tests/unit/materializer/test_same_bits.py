"""Values are the same where the oracle's bits are, of every type that features have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.served.same import same_bits
from tests.oracles.bits import bits

FLOATS = [0.0, -0.0, 1.5, float("nan"), float("inf")]
ITEMS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.float64(), FLOATS),
    (pa.float32(), FLOATS),
    (pa.int64(), [0, 1, -1, 2**62]),
    (pa.bool_(), [True, False]),
    (pa.string(), ["", "a", "ab"]),
    (pa.binary(), [b"", b"\x00", b"\x00\x00"]),
    (pa.timestamp("us", "UTC"), [0, 1, 2**40]),
]


@pytest.mark.parametrize(("kind", "items"), ITEMS, ids=str)
@pytest.mark.parametrize("shape", ["scalar", "list", "fixed"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_as_the_oracle(kind: pa.DataType, items: list[Any], shape: str, data: st.DataObject) -> None:
    value = st.sampled_from(items)
    if shape == "list":
        kind, value = pa.list_(kind), st.lists(value, max_size=3)
    elif shape == "fixed":
        kind, value = pa.list_(kind, 2), st.lists(value, min_size=2, max_size=2)
    n = data.draw(st.integers(0, 8))
    a, b = (pa.array(data.draw(st.lists(st.none() | value, min_size=n, max_size=n)), kind) for _ in range(2))
    expected = [x == y for x, y in zip(bits(a), bits(b), strict=True)]
    assert same_bits(a, pa.chunked_array([b])).tolist() == expected
    assert same_bits(a, a).all()


def test_a_nan_is_its_payload_and_two_types_are_never_the_same() -> None:
    quiet, other = np.array([0x7FF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    assert same_bits(pa.array([quiet, quiet]), pa.array([quiet, other])).tolist() == [True, False]
    assert not same_bits(pa.array([1], pa.int32()), pa.array([1], pa.int64())).any()
