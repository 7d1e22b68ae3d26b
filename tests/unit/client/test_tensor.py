"""A tensor's body, made bit by bit, as the client reads it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import errors
from fastserve.client import wire
from fastserve.client.tensor import Tensor, tensor_of
from fastserve.client.wire import Answer

HEADERS = {
    "content-type": wire.TENSOR,
    "fastserve-dtype": "<f4",
    "fastserve-shape": "2,2",
    "fastserve-columns": "a%2Cb,e[0]",
    "fastserve-views": "v@v1,v@v1",
    "fastserve-revision": "7",
    "fastserve-schema-fingerprint": "0123456789abcdef",
}
BODY = struct.pack("<4f", 1.5, 0.0, float("nan"), 2.0) + bytes([0b01, 0b11]) + bytes([1, 3, 5, 4])


def read(headers: dict[str, str], body: bytes = BODY) -> Tensor:
    call = wire.online_tensor(
        ["v:a"],
        {"id": [1, 2]},
        service=None,
        full_feature_names=False,
        deadline_ms=None,
        expect_fingerprint=None,
    )
    assert call.accept == wire.TENSOR
    return call.parse(Answer(200, headers, body))


def test_every_part_is_where_the_documentation_says() -> None:
    notes = {"fastserve-unavailable": "no%20answer%3A x", "fastserve-stale-rows": "3"}
    found = read(HEADERS | notes)
    assert found.columns == ("a,b", "e[0]") and (len(found), found.width) == (2, 2)
    assert found.row_statuses == {
        "v@v1": ["PRESENT", "NOT_FOUND"],
        "v@v1#2": ["UNAVAILABLE", "OUTSIDE_MAX_AGE"],
    }
    assert (found.revision, found.fingerprint) == (7, "0123456789abcdef")
    assert (found.unavailable, found.stale_rows) == ("no answer: x", 3)
    assert bytes(found.matrix) == BODY[:16] and repr(found) == "<Tensor 2 x 2 <f4>"
    assert found.to_masked().mask.tolist() == [[False, True], [False, False]]


def test_names_too_long_for_a_header_may_be_left_out() -> None:
    found = read({name: text for name, text in HEADERS.items() if name != "fastserve-columns"})
    assert found.columns == () and found.width == 2


@given(st.data(), st.integers(0, 5), st.integers(1, 20), st.sampled_from(["<f4", "<f8"]))
def test_values_and_nulls_come_back(data: st.DataObject, n: int, width: int, dtype: str) -> None:
    bits = 8 * int(dtype[2])
    value = st.none() | st.floats(width=32 if bits == 32 else 64, allow_nan=False)
    row = st.lists(value, min_size=width, max_size=width)
    rows: list[list[Any]] = data.draw(st.lists(row, min_size=n, max_size=n))
    flat = [value or 0.0 for row in rows for value in row]
    masks = b"".join(
        sum((v is not None) << c for c, v in enumerate(row)).to_bytes((width + 7) // 8, "little")
        for row in rows
    )
    body = struct.pack(f"<{n * width}{'f' if bits == 32 else 'd'}", *flat) + masks + b"\1" * n
    shape = {"fastserve-dtype": dtype, "fastserve-shape": f"{n},{width}", "fastserve-views": "v@v1"}
    found = tensor_of({**HEADERS, **shape, "fastserve-columns": ",".join("c" * width)}, body)
    assert found.to_list() == rows
    assert found.to_numpy().dtype == np.dtype(dtype) and found.to_numpy().shape == (n, width)
    assert found.valid.tolist() == [[value is not None for value in row] for row in rows]
    assert found.to_masked().tolist() == rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("content-type", "text/html"),
        ("fastserve-dtype", ">f4"),
        ("fastserve-shape", "2"),
        ("fastserve-shape", "2,3"),
        ("fastserve-shape", "x,2"),
        ("fastserve-columns", "a"),
        ("fastserve-views", "v@v1"),
        ("fastserve-revision", "seven"),
    ],
)
def test_an_answer_that_does_not_fit_together_is_refused(name: str, text: str) -> None:
    with pytest.raises(errors.ServerError, match="not one of fastserve's"):
        read({**HEADERS, name: text})


def test_a_body_cut_short_or_a_header_missing_is_refused() -> None:
    with pytest.raises(errors.ServerError, match="21 bytes, and 22"):
        read(HEADERS, BODY[:-1])
    with pytest.raises(errors.ServerError, match="fastserve-dtype"):
        read({name: text for name, text in HEADERS.items() if name != "fastserve-dtype"})


def test_a_status_of_no_meaning_is_refused() -> None:
    with pytest.raises(errors.ServerError):
        read(HEADERS, BODY[:-1] + b"\x09")


def test_the_tensor_is_a_call_of_its_own() -> None:
    with pytest.raises(errors.RequestError) as caught:
        wire.online_features(
            ["v:a"],
            {"id": [1]},
            service=None,
            full_feature_names=False,
            deadline_ms=None,
            format="tensor",
            expect_fingerprint=None,
        )
    assert caught.value.hint == "get_online_tensor"
