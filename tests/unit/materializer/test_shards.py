"""A view joined by tasks is the view joined whole: whatever the shards, slices, and spread of rows over tasks."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.errors import OfflineStoreError
from fastserve.hashes.keys import key_hashes, text_hashes
from fastserve.hashes.texts_py import text_hashes as text_hashes_py
from fastserve.offline.schema import EVENT_TS, TIMESTAMP
from fastserve.offline.window import Window
from fastserve.registry import RegisteredView
from materializer.joining import Join, Rule
from materializer.pit.join import join_view
from materializer.shards import join, plan
from materializer.shards.blocks import Block, BlockWriter, read_blocks
from materializer.shards.deal import ByDate, ByKeys, DealTask, deal
from materializer.shards.join import Shards, join_sharded
from materializer.shards.plan import Limits, groups, shard_count, slices
from materializer.shards.workdir import PREFIX, OwnedDir, WorkDir
from tests.carried import Carried
from tests.oracles.bits import bits
from tests.unit.pit.test_fuzz import FEATURES, KEYS, random_table


@dataclass(frozen=True)
class Rows:
    """A piece in memory."""

    batch: pa.RecordBatch
    known: bool = True
    portable: bool = True

    @property
    def n_rows(self) -> int:
        return self.batch.num_rows if self.known else 0

    def rows(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from pa.Table.from_batches([self.batch]).to_batches(max_chunksize=3)


class Reader:
    """Gives such pieces."""

    def __init__(self, pieces: Sequence[Rows]) -> None:
        self._pieces = pieces

    def pieces(self, rv: RegisteredView, columns: Sequence[str], times: np.ndarray) -> Sequence[Rows]:
        return self._pieces


def cut(table: pa.Table, bounds: Sequence[int]) -> list[pa.RecordBatch]:
    ends = [0, *sorted(bounds), len(table)]
    return [
        table.slice(a, b - a).combine_chunks().to_batches()[0] for a, b in itertools.pairwise(ends) if a < b
    ]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tasks_answer_what_one_join_does(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, m = data.draw(st.integers(1, 25)), data.draw(st.integers(0, 40))
    made = random_table(rng, data.draw(st.sampled_from(KEYS)), n, m, kinds=3)
    batches = cut(made.rows, data.draw(st.lists(st.integers(0, m), max_size=5)))
    pieces = [Rows(batch, data.draw(st.booleans()), data.draw(st.booleans())) for batch in batches]
    limits = Limits(
        data.draw(st.integers(1, 8)), data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 99, 9_999]))
    )
    asked = Join(made.rv, made.keys, ("keys",), dict.fromkeys(FEATURES))
    count = data.draw(st.integers(1, 7))
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(plan, DEAL_ROWS=data.draw(st.integers(1, 20)), SHARD_ROWS=1),
        patch.multiple(join, RANGE_ROWS=data.draw(st.integers(1, 12)), shard_count=lambda *_: count),
        Carried() as engine,
    ):
        (found,) = join_sharded(
            [asked], Rule(made.times, made.cutoff), Reader(pieces), Shards(engine, folder), limits
        )
        start = data.draw(st.integers(0, n - 1))
        stop = data.draw(st.integers(start + 1, n))
        whole, some = found.of_range(0, n), found.of_range(start, stop)
    expected = join_view(made.keys, made.times, made.rows, made.rv, list(FEATURES), cutoff=made.cutoff)
    for name in FEATURES:
        assert whole[name].type == expected[name].type
        assert bits(whole[name]) == bits(expected[name]), name
        assert bits(some[name]) == bits(expected[name])[start:stop], name


# ---- hashes -----------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=40), max_size=8), st.integers(0, 3))
def test_texts_have_the_hash_of_the_twin(keys, offset):
    array = pa.array(keys, pa.large_binary())[offset:]
    found, twin = text_hashes(array), text_hashes_py(array)
    present = [i for i, key in enumerate(keys[offset:]) if key is not None]
    assert found.dtype == twin.dtype == np.uint64
    assert found[present].tolist() == twin[present].tolist()


@pytest.mark.parametrize("hashes", [text_hashes, text_hashes_py])
def test_only_texts_have_hashes_of_bytes(hashes):
    for wrong in (pa.array([1]), pa.array(["a"]), pa.array([b"a"])):
        with pytest.raises(TypeError, match="keys are"):
            hashes(wrong)


def test_hashes_never_change():
    """Machines of one job may differ in all but fastserve."""
    columns = [pa.array([0, 1, -(2**63)]), pa.array(["", "a", "long enough for two"], pa.large_string())]
    assert key_hashes(columns, 3).tolist() == HASHES
    assert key_hashes([], 2).tolist() == [0, 0]


HASHES = [11008764862186611264, 10873830770425457489, 18160621479363587722]


def test_close_integers_are_spread_evenly():
    shards = key_hashes([pa.array(np.arange(0, 64_000, 64))], 1_000) % np.uint64(8)
    assert np.bincount(shards.astype(int), minlength=8).min() > 80


# ---- files ------------------------------------------------------------------------------------------------


def test_blocks_are_read_alone_and_the_file_is_an_arrow_stream(tmp_path):
    work = OwnedDir(str(tmp_path))
    schema = pa.schema([("a", pa.int64()), ("b", pa.list_(pa.float32(), 2))])
    batches = [
        pa.record_batch([pa.array([i] * 5), pa.array([[i, i]] * 5, schema[1].type)], schema=schema)
        for i in range(3)
    ]
    with BlockWriter(work.dir, "x", schema) as out:
        for part, batch in zip((7, 0, 7), batches, strict=True):
            out.write(part, batch.slice(1, 3), 10, 20)
        made = out.close()
    assert (made.rows_of(7), made.rows_of(0), made.rows_of(1), made.n_rows) == (6, 3, 0, 9)
    assert [block[2:] for block in made.blocks[7]] == [(3, 10, 20)] * 2
    assert read_blocks(work.dir, made.name, made.blocks[7], schema) == [
        batches[i].slice(1, 3) for i in (0, 2)
    ]
    (path,) = tmp_path.glob("*/x-*.arrow")
    assert pa.ipc.open_stream(path).read_all() == pa.Table.from_batches([b.slice(1, 3) for b in batches])
    work.close()
    assert not list(tmp_path.iterdir())


def test_a_work_directory_goes_with_its_owner_and_knows_urls(tmp_path):
    work = OwnedDir(f"file://{tmp_path}/new")
    with work.dir.create("a") as file:
        file.write(b"abc")
    assert [bytes(part) for part in work.dir.read("a", [(1, 2), (0, 1)])] == [b"bc", b"a"]
    assert len(list((tmp_path / "new").iterdir())) == 1
    del work
    assert not list((tmp_path / "new").iterdir())


def test_what_a_killed_driver_left_goes_after_a_week(tmp_path):
    for name, days in ((f"{PREFIX}old", 8), (f"{PREFIX}young", 6), ("other", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").touch()
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    OwnedDir(str(tmp_path)).close()
    assert {path.name for path in tmp_path.iterdir()} == {f"{PREFIX}young", "other"}


def test_what_cannot_be_read_or_made_says_where_and_what_to_do(tmp_path):
    work = WorkDir(str(tmp_path), "gone")
    with pytest.raises(OfflineStoreError, match=r"gone/x: .*No such file(.|\n)*--work"):
        work.read("x", [(0, 1)])
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/x").write_bytes(b"123")
    with pytest.raises(OfflineStoreError, match="shorter"):
        work.read("x", [(0, 4)])
    with pytest.raises(OfflineStoreError, match="nowhere"):
        OwnedDir("nowhere://x")


def test_rows_are_dealt_by_date_in_source_order_within_the_window(tmp_path):
    rng = np.random.default_rng(3)
    made = random_table(rng, {"k": "int64"}, 1, 200)
    day = 86_400_000_000
    events = rng.integers(-2 * day, 2 * day, 200)
    rows = made.rows.set_column(
        made.rows.schema.get_field_index(EVENT_TS), EVENT_TS, pa.array(events).cast(TIMESTAMP)
    )
    work = OwnedDir(str(tmp_path))
    edge = 3 * day // 2
    window = Window(-edge, edge)
    pieces = tuple(Rows(batch) for batch in cut(rows, [50, 120]))
    file = deal(DealTask(0, made.rv, pieces, tuple(FEATURES), window, ByDate(), work.dir, 2_000))
    assert sorted(file.blocks) == [-2, -1, 0, 1]
    for date, blocks in file.blocks.items():
        wanted = np.flatnonzero((events // day == date) & (events >= -edge) & (events < edge))
        found = pa.Table.from_batches(read_blocks(work.dir, file.name, blocks, rows.schema))
        for name in rows.column_names:
            assert bits(found[name]) == bits(rows.take(pa.array(wanted))[name])
        stamps = found[EVENT_TS].cast(pa.int64()).to_pylist()
        assert (min(stamps), max(stamps)) == (min(b.first_us for b in blocks), max(b.last_us for b in blocks))


def test_a_key_with_a_null_goes_nowhere():
    batch = pa.record_batch({"a": pa.array([1, None, 1]), "b": pa.array(["x", "x", None])})
    parts = ByKeys((("a", "int64"), ("b", "string")), 5)(batch)
    assert parts[0] >= 0 and parts[1:].tolist() == [np.iinfo(parts.dtype).min] * 2


# ---- how it is cut ----------------------------------------------------------------------------------------


def numbered(*sizes: int, local: Sequence[int] = ()) -> list[Rows]:
    column = [pa.array(np.arange(max(sizes)))]
    whole = pa.RecordBatch.from_arrays(column, names=["a"])
    return [Rows(whole.slice(0, size), size > 0, i not in local) for i, size in enumerate(sizes)]


def test_neighbouring_pieces_are_dealt_out_together():
    with patch.object(plan, "DEAL_ROWS", 10):
        made = groups(numbered(4, 4, 4, 20, 3, 0, 1, local=[6]), 2)
    assert [[piece.n_rows for piece in some] for some in made] == [[4, 4], [4], [20], [3], [0], [1]]
    assert groups([], 2) == []


def test_shards_are_as_many_as_are_worth_it_or_as_memory_asks_for():
    with patch.object(plan, "SHARD_ROWS", 10):
        assert shard_count([numbered(5), numbered(31)], 8, Limits(10**6, 1, 1)) == 4
        assert shard_count([numbered(900)], 8, Limits(10**6, 1, 1)) == 16
        assert shard_count([numbered(900)], 8, Limits(9, 1, 1)) == 100
        assert shard_count([numbered(1, 0)], 8, Limits(9, 1, 1)) == 16
        assert shard_count([[]], 8, Limits(9, 1, 1)) == 1
    with patch.object(plan, "MOST_SHARDS", 7):
        assert shard_count([numbered(900)], 8, Limits(9, 1, 1)) == 7


def test_a_hot_shard_is_cut_by_time_into_even_slices():
    blocks = [Block(0, 0, 100, 0, 100), Block(0, 0, 300, 100, 200), Block(0, 0, 5, 7, 7)]
    with patch.object(plan, "SHARD_ROWS", 10):
        assert list(slices(blocks, 200, Limits(10**6, 1, 1))) == [(None, None)]
        found = list(slices(blocks, 50, Limits(10**6, 1, 1)))
    assert found[0][0] is None and found[-1][1] is None and 7 <= len(found) <= 9
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    inner = [end for _, end in found[:-1]]
    assert inner == sorted(set(inner)) and 100 <= inner[len(inner) // 2] <= 150


def test_rows_of_one_time_stay_together():
    blocks = [Block(0, 0, 1_000, 5, 5)] * 3
    found = list(slices(blocks, 1, Limits(10, 1, 1)))
    assert found == [(None, 5), (5, None)]


def test_limits_follow_the_budget():
    free = Limits.of(None, plan.Need(10, 8, 1_000, 1))
    assert free.rows == (1 << 30) // 1_048 and free.buffer_bytes == plan.BUFFER_BYTES
    with patch.object(plan, "resident", lambda: 200 << 20):
        tight = Limits.of(300 << 20, plan.Need(10, 8, 1_000, 1))
    assert tight.rows * 1_048 <= (100 << 20) / 3 and tight.buffer_bytes == (100 << 20) // 8
