"""The sample: the same rows whatever the order, and whole samples from parts."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.statistics.sample import NO_LIMIT, SAMPLE_ROWS, Sample, row_hashes, smallest


def sample_of(keys: pa.Array, times: pa.Array, values: pa.Array) -> Sample:
    hashes = row_hashes([keys, times], len(keys))
    picked, limit = smallest(hashes, NO_LIMIT)
    return Sample(hashes[picked], values.take(pa.array(picked)), limit)


@pytest.mark.parametrize("n", [0, 1, SAMPLE_ROWS, SAMPLE_ROWS + 1, 20_000])
def test_parts_in_any_order_give_the_sample_of_the_whole(n: int) -> None:
    rng = random.Random(n)
    rows = [(f"u{rng.randrange(500)}", rng.randrange(1_000_000), i) for i in range(n)]

    def of(part: list[tuple[str, int, int]]) -> Sample:
        keys, times, values = zip(*part, strict=True) if part else ((), (), ())
        columns = pa.array(keys, pa.string()), pa.array(times, pa.int64()), pa.array(values, pa.int64())
        return sample_of(*columns)

    whole = of(rows)
    assert len(whole.values) == min(n, SAMPLE_ROWS) and whole.is_all == (n <= SAMPLE_ROWS)
    shuffled = rng.sample(rows, n)
    merged = reduce(Sample.merged, [of(shuffled[i::7]) for i in range(7)])
    assert merged.limit == whole.limit
    assert sorted(merged.values.to_pylist()) == sorted(whole.values.to_pylist())


def test_many_rows_of_one_hash_are_all_in_or_all_out() -> None:
    hashes = np.array([7] * (SAMPLE_ROWS + 5) + [3], np.uint64)
    picked, limit = smallest(hashes, NO_LIMIT)
    assert picked.tolist() == [SAMPLE_ROWS + 5] and limit == 7


def test_quantiles_are_near() -> None:
    n = 200_000
    values = pa.array(np.arange(n))
    found = sample_of(pa.array([f"k{i}" for i in range(n)]), pa.array(np.zeros(n, np.int64)), values)
    for share in (0.05, 0.5, 0.95):
        near = np.quantile(found.values.to_numpy(), share) / n
        assert abs(near - share) < 0.03  # fixed rows: this holds or it does not


def naive_hash(words: list[int]) -> int:
    """splitmix64's finaliser over words, with Python's integers."""
    mask = 2**64 - 1

    def mixed(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    found = 0x243F6A8885A308D3
    for word in words:
        found = mixed(found ^ (word & mask))
    return found


def words_of(data: bytes) -> list[int]:
    parts = [data[i : i + 8] for i in range(0, len(data), 8)]
    return [int.from_bytes(p, "little") << (8 * (8 - len(p))) for p in parts] + [len(data)]


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_hashes_are_those_of_the_bytes(rows: list[tuple[bytes, int]]) -> None:
    padded = pa.array([b"before", *(data for data, _ in rows)], pa.binary()).slice(1)
    found = row_hashes([padded, pa.array([n for _, n in rows], pa.int64())], len(rows))
    assert found.tolist() == [naive_hash([*words_of(data), n]) for data, n in rows]


def test_another_process_makes_the_same() -> None:
    code = (
        "import pyarrow as pa; from fastserve.statistics.sample import row_hashes;"
        "print(row_hashes([pa.array(['a', 'Köln']), pa.array([True, False])], 2).tolist())"
    )
    runs = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
    here = row_hashes([pa.array(["a", "Köln"]), pa.array([True, False])], 2).tolist()
    assert runs == {f"{here}\n"}
