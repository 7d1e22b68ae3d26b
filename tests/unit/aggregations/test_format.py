"""docs/tile-format.md: its vectors, and what a reader refuses."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.program import Column, Level, Program, State, StateKind
from fastserve.aggregations.sketches_py import xxh64
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.codec.rows_py import crc32c
from fastserve.errors import CodecError
from fastserve.types import arrow_type, parse_dtype
from tests.unit.aggregations.programs import Case, cases, layout_of

DOCS = Path(__file__).parents[3] / "docs" / "tile-format.md"
KEY = b"7:1"
PARAMETERS = {StateKind.LAST_N: 2, StateKind.DISTINCT: 2, StateKind.QUANTILES: 6}


def vectors() -> list[list[str]]:
    lines = DOCS.read_text().split("| type | states |")[1].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line]


def program_of(dtype: str, kinds: str) -> Program:
    states = [StateKind(kind) for kind in kinds.split(", ")]
    level = Level(
        10,
        100,
        tuple(State(k, -1 if k is StateKind.EVENTS else 0, PARAMETERS.get(k, 0)) for k in states),
    )
    return Program((Column("c", dtype),), (level,), ())


def written(twin: SimpleNamespace, dtype: str, kinds: str, events: str) -> bytes:
    given = ast.literal_eval(events)
    values = [float(v) if isinstance(v, str) and dtype.startswith("float") else v for _, v in given]
    out = twin.ReadBatch([KEY])
    twin.TileBuilder(program_of(dtype, kinds), 1).build_into(
        out,
        np.zeros(len(given), np.int64),
        np.array([ts for ts, _ in given], np.int64),
        [pa.array(values, arrow_type(parse_dtype(dtype)))],
        end_us=100,
        created_us=0,
    )
    row: bytes = out.rows()[0]
    return row


@pytest.mark.parametrize(("dtype", "kinds", "events", "row"), vectors())
def test_vectors(twin: SimpleNamespace, dtype: str, kinds: str, events: str, row: str) -> None:
    assert written(twin, dtype, kinds, events).hex() == row.replace(" ", "")


def test_the_hash_is_xxh64() -> None:
    known = {
        b"": "ef46db3751d8e999",
        b"a": "d24ec4f1a98c6e5b",
        b"abc": "44bc2cf5ad770999",
        (1).to_bytes(8, "little"): "9f29cb17a2a49995",
        bytes(range(40)): "f5da40f1b11741e9",
    }
    assert {data: f"{xxh64(data):016x}" for data in known} == known


def sealed(row: bytes) -> bytes:
    """The checksum put right."""
    return row[:4] + crc32c(row[8:], crc32c(KEY + row[:4])).to_bytes(4, "little") + row[8:]


def read(twin: SimpleNamespace, case: Case, row: bytes, now: int = 200) -> bytes | str:
    """What a fold makes of a row, or what it says is wrong."""
    batch, out = twin.ReadBatch([KEY]), twin.ReadBatch([KEY])
    batch.fill([row], 0)
    try:
        twin.Folder(case.program, layout_of(case.program)).fold_into(batch, 0, 1, out, 0, now_us=now)
    except CodecError as error:
        return str(error)
    made: bytes = out.rows()[0]
    return made


def row_of(twin: SimpleNamespace, case: Case) -> bytes | None:
    out = twin.ReadBatch([KEY])
    codes, times, columns = case.arrays()
    twin.TileBuilder(case.program, 3).build_into(
        out, np.zeros_like(codes), times, columns, end_us=200, created_us=0
    )
    row: bytes | None = out.rows()[0]
    return row


@given(case=cases(), at=st.integers(0, 500), byte=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_no_row_is_an_error_and_the_same_one(
    twin: SimpleNamespace, case: Case, at: int, byte: int, cut: bool
) -> None:
    row = row_of(twin, case)
    if row is None:
        return
    at %= len(row)
    changed = row[:at] if cut else row[:at] + bytes([row[at] ^ byte]) + row[at + 1 :]
    assert isinstance(read(twin, case, changed), str)
    if at >= 8 and len(changed) >= 24:
        from fastserve.aggregations.build_py import TileBuilder
        from fastserve.aggregations.fold_py import Folder
        from fastserve.batch.batch_py import ReadBatch

        spec = SimpleNamespace(TileBuilder=TileBuilder, Folder=Folder, ReadBatch=ReadBatch)
        assert read(twin, case, sealed(changed)) == read(spec, case, sealed(changed))


@given(case=cases())
@settings(max_examples=50, deadline=None)
def test_what_is_read_is_canonical(case: Case) -> None:
    """No other bytes are a row of the same tiles: what is read, whatever it is, is written alike."""
    from fastserve.aggregations.build_py import TileBuilder
    from fastserve.batch.batch_py import ReadBatch

    spec = SimpleNamespace(TileBuilder=TileBuilder, ReadBatch=ReadBatch)
    row = row_of(spec, case)
    codec = TileCodec(case.program, 3)
    if row is not None:
        assert codec.encode(KEY, codec.decode(KEY, row)) == row
