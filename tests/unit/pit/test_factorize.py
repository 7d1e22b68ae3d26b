from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializer.pit.factorize import canonical_key, shared_codes


def codes(left, right, types):
    n, m = len(left[0]), len(right[0])
    return shared_codes(
        [canonical_key(c, t) for c, t in zip(left, types, strict=True)],
        [canonical_key(c, t) for c, t in zip(right, types, strict=True)],
        n,
        m,
    )


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint32(), pa.uint64()])
def test_every_integer_width_is_the_same_key(kind):
    spine, rows = codes([pa.array([3, 1, 9, None], kind)], [pa.array([1, 2, 3])], ["int64"])
    assert spine.tolist() == [rows[2], rows[0], -1, -1]


def test_an_unsigned_integer_beyond_int64_is_no_key_at_all():
    spine, _ = codes([pa.array([2**64 - 1, 2**63], pa.uint64())], [pa.array([-1, -(2**63)])], ["int64"])
    assert spine.tolist() == [-1, -1]


@pytest.mark.parametrize(
    "spine",
    [
        pa.array(["b", "a", "?", None]),
        pa.array(["b", "a", "?", None], pa.large_string()),
        pa.array(["b", "a", "?", None], pa.string_view()),
        pa.array(["b", "a", "?", None]).dictionary_encode(),
        pa.chunked_array([["b"], ["a", "?"], [None]]),
        pa.chunked_array(
            [pa.array(["b", "a"]).dictionary_encode(), pa.array(["?", None]).dictionary_encode()]
        ),
    ],
    ids=["string", "large_string", "view", "dictionary", "chunks", "dictionary chunks"],
)
def test_every_form_of_text_is_the_same_key(spine):
    left, right = codes([spine], [pa.array(["a", "b", "a"], pa.large_string())], ["string"])
    assert left.tolist() == [right[1], right[0], -1, -1]
    assert right[0] == right[2]


def test_bytes_and_bool_are_keys():
    left, right = codes([pa.array([b"\xff", b""]), pa.array([True, False])],
                        [pa.array([b"", b"\xff"], pa.large_binary()), pa.array([False, True])],
                        ["bytes", "bool"])  # fmt: skip
    assert left.tolist() == [right[1], right[0]]


def test_a_null_in_any_part_of_a_key_matches_nothing_not_even_itself():
    left, right = codes([pa.array([1, None, 1]), pa.array(["a", "a", None])],
                        [pa.array([1, None, 1]), pa.array(["a", "a", None])],
                        ["int64", "string"])  # fmt: skip
    assert left.tolist() == right.tolist() == [0, -1, -1]
    assert canonical_key(pa.nulls(2), "int64").null_count == 2


@pytest.mark.parametrize(
    ("column", "key_type"),
    [([1.0], "int64"), (["1"], "int64"), ([1], "string"), ([b"a"], "string"), (["a"], "bytes"), ([1], "bool"),
     ([True], "int64")],
)  # fmt: skip
def test_another_type_is_refused_not_converted(column, key_type):
    with pytest.raises(TypeError, match=f"the join key is {key_type}"):
        canonical_key(pa.array(column), key_type)


def test_without_join_keys_every_label_has_the_one_key():
    left, right = shared_codes([], [], 3, 2)
    assert left.tolist() == [0, 0, 0] and right.tolist() == [0, 0]


def test_codes_do_not_collide_where_the_product_of_the_parts_is_large():
    rng = np.random.default_rng(0)
    n = 3_000
    parts = [rng.permutation(n) for _ in range(6)]  # 3000^6 combinations: far beyond int64
    columns = [pa.array(p) for p in parts]
    left, right = codes(columns, columns, ["int64"] * 6)
    assert left.tolist() == right.tolist() and len(set(left.tolist())) == n
    mixed = [columns[0], *(pa.array(np.roll(p, 1)) for p in parts[1:])]
    assert set(codes(mixed, columns, ["int64"] * 6)[0].tolist()) == {-1}


part = st.sampled_from([None, "", "a", "b", "ab", "|", "a|b"])


@settings(max_examples=200, deadline=None)
@given(left=st.lists(st.tuples(part, part), min_size=1, max_size=12),
       right=st.lists(st.tuples(part, part), min_size=1, max_size=12))  # fmt: skip
def test_codes_are_equal_exactly_where_keys_are(left, right):
    spine, rows = codes(
        [pa.array(c, pa.string()) for c in zip(*left, strict=True)],
        [pa.array(c, pa.string()) for c in zip(*right, strict=True)],
        ["string", "string"],
    )
    for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
        same = None not in a and a == b
        assert (spine[i] == rows[j] and spine[i] >= 0) == same
