"""KeySet, both twins."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.batch import batch_py, key_set_py


@pytest.fixture(params=["py", "native"], scope="module")
def impl(request: pytest.FixtureRequest) -> Any:
    """(KeySet, ReadBatch)"""
    if request.param == "py":
        return key_set_py.KeySet, batch_py.ReadBatch
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    native = importlib.import_module("fastserve._native.key_set")
    return native.KeySet, importlib.import_module("fastserve._native.batch").ReadBatch


@given(
    rounds=st.lists(st.lists(st.lists(st.binary(max_size=3), max_size=40), max_size=3), max_size=5),
    limit=st.integers(0, 60),
)
def test_earlier_is_what_an_earlier_round_marked(impl, rounds, limit):
    key_set, batch = impl[0](limit), impl[1]
    known: dict[bytes, int] = {}
    for number, batches in enumerate(rounds):
        for keys in batches:
            wanted = []
            for key in keys:
                wanted.append(known.get(key, number) < number)
                if len(known) < limit:
                    known.setdefault(key, number)
            earlier = key_set.mark(batch(keys))
            assert earlier.dtype == bool and earlier.tolist() == wanted
        key_set.next_round()
    assert len(key_set) == len(known)


def test_it_grows(impl):
    key_set, batch = impl[0](30_000), impl[1]
    keys = [b"7:%d" % i for i in range(40_000)]
    assert not key_set.mark(batch(keys)).any() and len(key_set) == 30_000
    key_set.next_round()
    assert key_set.mark(batch(keys)).tolist() == [True] * 30_000 + [False] * 10_000
