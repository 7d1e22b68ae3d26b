"""Answers written straight from rows are those made of decoded columns: JSON to the byte, Arrow value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api import arrow_answer
from fastserve.api.arrow_answer import render_arrow, write_columns
from fastserve.api.json_answer import render_columns, render_json, text_of
from fastserve.batch import ReadBatch
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.errors import CodecError
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.serving.read_path import Found, decode_columns
from fastserve.timeutil import MAX_US, MIN_US
from fastserve.types import Array, DType, arrow_type, parse_dtype
from tests.support import NOW_US
from tests.unit.client.test_wire import ITEMS

pytest.importorskip("fastserve._native.json_rows")

TTL_US = 3_600_000_000
SCALARS = [*map(DType, ["bool", "int32", "int64", "float32", "float64", "timestamp"])]
TEXTS = [DType("string")]
LISTS = [Array("float32", 3)]
# Of a row: nobody asked, none, in the future, fresh, expired, and at times that datetime or orjson cannot name.
AGES = st.sampled_from(
    [None, "absent", -1_000_000, 0, 1_234_567, TTL_US, TTL_US + 1]
    + [NOW_US - us for us in (MIN_US, MIN_US - 1, MAX_US, MAX_US + 1, 2**62, -(2**62))]
)


def value_of(kind: DType) -> st.SearchStrategy[Any]:
    one = ITEMS[kind.item]
    if kind.item == "timestamp":
        one = one | st.sampled_from([-(2**63), 2**63 - 1, MIN_US - 1, MAX_US, 0, 951_782_400_000_000, -1])
    if kind.is_list:
        one = st.lists(one, min_size=kind.length or 0, max_size=kind.length or 3)
    return st.none() | one


@st.composite
def reads(
    draw: st.DrawFn, kinds: list[DType], n: int, number: int
) -> tuple[ViewRead, list[bytes | None], list[bool]]:
    """A view of these fields, some of them younger than the oldest layout; n rows; which of them are known."""
    names = tuple(f"v{number}_f{i}" for i in range(len(kinds)))
    old = draw(st.integers(1, len(kinds)))
    layouts = [Layout(1, names[:old], tuple(kinds[:old])), Layout(2, names, tuple(kinds))]
    plain = draw(st.booleans())
    rows: list[bytes | None] = []
    asked = []
    for i in range(n):
        age = 1_000 if plain else draw(AGES)
        asked.append(age is not None)
        if age is None or age == "absent":
            rows.append(None)
            continue
        layout = layouts[1] if plain else draw(st.sampled_from(layouts))
        columns = [pa.array([draw(value_of(kind))], arrow_type(kind)) for kind in layout.dtypes]
        times = np.array([NOW_US - int(age)])
        rows.append(RowEncoder(layout).encode([key_of(number, i)], columns, times, times)[0])
    defaults = (
        {names[-1]: 7} if kinds[-1].item in ("int32", "int64", "float64") and not kinds[-1].is_list else {}
    )
    decoder = RowDecoder({layout.layout_id: layout for layout in layouts}, names, defaults)
    ttl = draw(st.sampled_from([None, TTL_US]))
    read = ViewRead(f"v{number}", 1, ("id",), ("int64",), ttl, None, names, None, decoder)  # type: ignore[arg-type]
    return read, rows, asked


def key_of(read: int, i: int) -> bytes:
    return b"%d:%d" % (read, i)


@st.composite
def founds(draw: st.DrawFn, kinds: list[DType]) -> Found:
    n = draw(st.integers(1, 12))
    views, outputs, batch_keys, rows, asked = [], [], [], [], []
    for number in range(draw(st.integers(1, 2))):
        wanted = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))
        read, found, known = draw(reads(wanted, n, number))
        views.append(read)
        outputs += [
            OutputColumn(name, str(kind), number, i)
            for i, (name, kind) in enumerate(zip(read.names, wanted, strict=True))
        ]
        batch_keys += [key_of(number, i) for i in range(n)]
        rows += found
        asked += known
    if draw(st.booleans()):
        outputs = draw(st.permutations(outputs))
    if draw(st.booleans()):  # one feature under two names
        first = outputs[0]
        outputs = [*outputs, OutputColumn("again", first.dtype, first.read, first.column)]
    plan = ReadPlan("svc", 7, tuple(outputs), tuple(views), {"id": "int64"}, "0123456789abcdef")
    return Found(plan, n, filled(batch_keys, rows, asked), NOW_US)


def filled(keys: list[bytes], rows: list[bytes | None], asked: list[bool]) -> ReadBatch:
    """A batch in which the rows that nobody asked for stay unknown."""
    batch = ReadBatch(keys)
    if all(asked):
        batch.fill(rows, 0)
        return batch
    from fastserve.cache import RowCache

    known = ReadBatch([key for key, yes in zip(keys, asked, strict=True) if yes])
    known.fill([row for row, yes in zip(rows, asked, strict=True) if yes], 0)
    cache = RowCache(1 << 22)
    cache.put_many(known, 0, len(known))
    cache.get_many(batch, 0, len(batch), -1)
    batch.own()
    return batch


@settings(deadline=None, max_examples=300)
@given(founds(SCALARS + TEXTS), st.booleans())
def test_json_straight_from_rows(found: Found, down: bool) -> None:
    native = text_of(found.plan).native
    assert native is not None
    if down:
        found.unavailable, found.stale = 'the "store" is away', 3
    assert native.decode(found.rows, found.n, found.now_us, text_of(found.plan).ttls) is not None
    assert render_json(found) == render_columns(decode_columns(found))


@settings(deadline=None, max_examples=300)
@given(founds(SCALARS + LISTS))
def test_arrow_straight_from_rows(found: Found) -> None:
    for _ in range(2):  # the second of the same template
        made = render_arrow(found)
        assert isinstance(made, bytes), "written by the native filler"
        got, wanted = table_of(made), table_of(write_columns(decode_columns(found)))
        assert got.schema.equals(wanted.schema, check_metadata=True)
        assert [c.null_count for c in got.columns] == [c.null_count for c in wanted.columns]
        for mine, theirs in zip(got.columns, wanted.columns, strict=True):
            assert bits_of(mine) == bits_of(theirs)


def table_of(stream: Any) -> pa.Table:
    table = pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
    table.validate(full=True)
    return table


def bits_of(column: pa.ChunkedArray) -> list[str]:
    """Values with nan told from nan by nothing, and null from both."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [repr(value) for value in column.to_pylist()]


def one(kind: DType, value: Any, n: int = 1) -> Found:
    layout = Layout(1, ("f",), (kind,))
    keys = [key_of(0, i) for i in range(n)]
    stamps = np.full(n, NOW_US)
    rows = RowEncoder(layout).encode(keys, [pa.array([value] * n, arrow_type(kind))], stamps, stamps)
    decoder = RowDecoder({1: layout}, ("f",), {})
    read = ViewRead("v", 1, ("id",), ("int64",), None, None, ("f",), None, decoder)  # type: ignore[arg-type]
    plan = ReadPlan(
        "svc", 7, (OutputColumn("f", str(kind), 0, 0),), (read,), {"id": "int64"}, "0123456789abcdef"
    )
    return Found(plan, n, filled(keys, list(rows), [True] * n), NOW_US)


@pytest.mark.parametrize("kind", ["bytes", "list<float32>"])
def test_json_of_other_types_goes_the_general_way(kind: str) -> None:
    found = one(parse_dtype(kind), {"bytes": b"a", "list<float32>": [1.0]}[kind])
    assert text_of(found.plan).native is None
    assert render_json(found) == render_columns(decode_columns(found))


@pytest.mark.parametrize("kind", ["string", "bytes", "list<float32>"])
def test_arrow_of_varying_widths_is_written_by_pyarrow(kind: str) -> None:
    found = one(parse_dtype(kind), {"string": "a", "bytes": b"a", "list<float32>": [1.0]}[kind])
    stream = render_arrow(found)
    assert not isinstance(stream, bytes)
    assert table_of(stream).num_rows == 1


@pytest.mark.parametrize("text", ["", 'a"\\', "\x00\x1f\x7f\b\f\n\r\t", "zażółć \u2028 \U0001f680"])
def test_texts_are_escaped_as_orjson_does(text: str) -> None:
    found = one(DType("string"), text, 3)
    assert render_json(found) == render_columns(decode_columns(found))


def test_a_large_answer_between_small_ones() -> None:
    found = one(DType("float64"), 1.5)
    for n in (1, 100_000, 3):
        large = one(DType("float64"), 0.25, n)
        found.rows, found.n = large.rows, n
        assert render_json(found) == render_columns(decode_columns(found))


def test_a_corrupt_row_is_no_answer() -> None:
    found = one(DType("float64"), 1.5, 2)
    rows = found.rows.rows()
    assert rows[1] is not None
    found.rows = filled([key_of(0, 0), key_of(0, 1)], [rows[0], rows[1][:-1] + b"!"], [True, True])
    for render in (render_json, render_arrow):
        with pytest.raises(CodecError, match="0:1"):
            render(found)


def test_templates_are_kept_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = arrow_answer._Templates()
    monkeypatch.setattr(arrow_answer, "KEPT_BYTES", 20_000)
    for n in range(1, 200):
        found = one(DType("float64"), 1.0, n)
        kept = templates.of(found.plan, n)
        assert kept is not None and table_of(kept.filler.fill(found.rows, NOW_US, kept.ttls)).num_rows == n
    assert templates._bytes <= 20_000 and len(templates._kept) < 20
