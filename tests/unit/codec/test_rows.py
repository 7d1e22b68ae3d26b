from __future__ import annotations

import importlib
import re
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.codec.layout import Layout
from fastserve.codec.status import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT, UNAVAILABLE
from fastserve.errors import CodecError, InvalidDataError
from fastserve.types import (
    SCALARS,
    Array,
    Bool,
    Bytes,
    DType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
    arrow_type,
    parse_dtype,
)
from tests.oracles.naive_rows import encode_row, row_status
from tests.unit.codec.columns import INT64, Table, array_of, tables, values_of

INT64_MAX = 2**63 - 1
DOCS = Path(__file__).parents[3] / "docs" / "row-format.md"
EVERY = [DType(item) for item in SCALARS] + [Array(i, n) for i in SCALARS for n in (None, 2)]


def encode(rows: ModuleType, table: Table, layout_id: int = 3) -> list[bytes]:
    layout = Layout(layout_id, table.names, tuple(table.dtypes))
    return rows.RowEncoder(layout).encode(table.keys, table.arrays(), *table.stamp_arrays())


def decoder(rows: ModuleType, dtypes: list[DType], layout_id: int = 3, **defaults: Any) -> Any:
    names = tuple(f"f{i}" for i in range(len(dtypes)))
    return rows.RowDecoder({layout_id: Layout(layout_id, names, tuple(dtypes))}, names, defaults)


# ---- round trip --------------------------------------------------------------------------------


@given(table=tables())
def test_rows_are_as_documented(rows: ModuleType, table: Table) -> None:
    wanted = [
        encode_row(key, 3, table.dtypes, [column[i] for column in table.columns], *table.stamps[i])
        for i, key in enumerate(table.keys)
    ]
    found = encode(rows, table)
    assert found == wanted
    assert [rows.read_header(row) for row in found] == [(3, *stamps) for stamps in table.stamps]


@given(table=tables())
def test_every_bit_comes_back(rows: ModuleType, table: Table) -> None:
    out = decoder(rows, table.dtypes).decode(table.keys, encode(rows, table), now_us=INT64_MAX, ttl_us=None)
    assert out.n == table.n
    assert out.row_status.tolist() == [PRESENT] * table.n
    assert list(zip(out.event_ts.tolist(), out.created_ts.tolist(), strict=True)) == table.stamps
    for f, (dtype, column) in enumerate(zip(table.dtypes, table.columns, strict=True)):
        array = out.columns[f].to_arrow()
        array.validate(full=True)
        assert array.type == arrow_type(dtype)
        assert values_of(dtype, array) == column
        assert out.columns[f].valid.tolist() == [value is not None for value in column]
        assert out.statuses[f].tolist() == [NULL_VALUE if v is None else PRESENT for v in column]


@given(table=tables(max_fields=4), data=st.data())
def test_slices_of_larger_arrays(rows: ModuleType, table: Table, data: st.DataObject) -> None:
    """Offsets of arrays, of their children and of the bits of booleans."""
    wanted = encode(rows, table)
    lead = data.draw(st.integers(1, 9))
    arrays = []
    for dtype, column in zip(table.dtypes, table.columns, strict=True):
        whole = array_of(dtype, [column[0] if column else None] * lead + column + [None])
        arrays.append(whole[lead : lead + table.n])
    layout = Layout(3, table.names, tuple(table.dtypes))
    assert rows.RowEncoder(layout).encode(table.keys, arrays, *table.stamp_arrays()) == wanted


@given(table=tables())
def test_fields_of_a_subset_in_another_order(rows: ModuleType, table: Table) -> None:
    layout = Layout(3, table.names, tuple(table.dtypes))
    names = table.names[::-2]
    out = rows.RowDecoder({3: layout}, names, {}).decode(
        table.keys, encode(rows, table), now_us=INT64_MAX, ttl_us=None
    )
    assert [column.name for column in out.columns] == list(names)
    for column in out.columns:
        f = layout.index[column.name]
        assert values_of(table.dtypes[f], column.to_arrow()) == table.columns[f]


def test_shapes_and_dtypes_of_columns(rows: ModuleType) -> None:
    dtypes = [Float32, Int64, Float32, Array(Float32, 3), String, Array(Int32), Array(String), Bool]
    values = [[1065353216], [7], [0], [[0, 0, 1065353216]], ["é"], [[1, 2]], [["a", "bc"]], [True]]
    table = Table(dtypes, [[v[0], None] for v in values], [b"1", b"2"], [(0, 0)] * 2)
    out = decoder(rows, dtypes).decode(table.keys, encode(rows, table), now_us=0, ttl_us=None)
    assert out.statuses.shape == out.valid.shape == (8, 2)
    assert {name: (b.dtype.str, b.shape) for name, b in out.blocks.items()} == {
        "float32": ("<f4", (2, 2)), "int64": ("<i8", (1, 2)), "bool": ("|b1", (1, 2))
    }  # fmt: skip
    assert out.blocks["float32"].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    first, second, third, fixed, text, items, texts, flag = out.columns
    assert first.values.tolist() == [1.0, 0.0] and first.values.base is not None, "a view of the block"
    assert (second.values.tolist(), third.values.tolist()) == ([7, 0], [0.0, 0.0])
    assert fixed.values.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert (text.offsets.tolist(), bytes(text.data)) == ([0, 2, 2], "é".encode())
    assert (items.offsets.tolist(), items.values.tolist()) == ([0, 2, 2], [1, 2])
    assert (texts.offsets.tolist(), texts.item_offsets.tolist(), bytes(texts.data)) == (
        [0, 2, 2], [0, 1, 3], b"abc"
    )  # fmt: skip
    assert flag.values.tolist() == [True, False] and flag.values.dtype == np.bool_
    assert text.to_pylist() == ["é", None]
    assert texts.to_pylist() == [["a", "bc"], None]


def test_large_batches_and_values(rows: ModuleType) -> None:
    n = 2_000 if rows.__name__.startswith("fastserve._native") else 200
    rng = np.random.default_rng(5)
    texts = [rng.bytes(int(size)).hex() for size in rng.integers(0, 90, n)]
    big = [b"x" * 1_000_000 if i == 7 else b"" for i in range(n)]
    table = Table([String, Bytes], [texts, big], [b"7:%d" % i for i in range(n)], [(i, -i) for i in range(n)])
    if n == 200:
        table.columns[1][7] = b"x" * 10_000  # the twin's checksum goes byte by byte
    out = decoder(rows, table.dtypes).decode(table.keys, encode(rows, table), now_us=n, ttl_us=None)
    assert [column.to_pylist() for column in out.columns] == table.columns


# ---- statuses, defaults, layouts ---------------------------------------------------------------


@given(
    stamps=st.lists(st.none() | INT64 | st.integers(-3, 3), max_size=6),
    now=INT64 | st.integers(-3, 3),
    ttl=st.none() | st.integers(0, 5) | st.integers(0, INT64_MAX),
    default=st.none() | st.just(9),
)
def test_status_and_default_follow_the_online_rule(
    rows: ModuleType, stamps: list[int | None], now: int, ttl: int | None, default: int | None
) -> None:
    table = Table([Int64], [[5] * len(stamps)], [b"%d" % i for i in range(len(stamps))],
                  [(ts or 0, 4) for ts in stamps])  # fmt: skip
    stored = [None if ts is None else row for ts, row in zip(stamps, encode(rows, table), strict=True)]
    out = decoder(rows, [Int64], f0=default).decode(table.keys, stored, now_us=now, ttl_us=ttl)
    names = [row_status(ts, now, ttl) for ts in stamps]
    assert [PRESENT.__class__(s).name for s in out.row_status] == names
    assert out.statuses[0].tolist() == out.row_status.tolist()
    assert out.columns[0].to_pylist() == [5 if name == "PRESENT" else default for name in names]
    known = [name != "NOT_FOUND" for name in names]
    assert out.event_ts.tolist() == [ts if k else 0 for ts, k in zip(stamps, known, strict=True)]
    assert out.created_ts.tolist() == [4 if k else 0 for k in known]


DEFAULTS: list[tuple[DType, Any, Any]] = [
    (Bool, False, False),
    (Int32, -1, -1),
    (Int64, 2**53 + 1, 2**53 + 1),
    (Float32, 0.5, 0.5),
    (Float64, -0.0, -0.0),
    (Timestamp, "2020-01-02T03:04:05Z", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (Timestamp, 1_000_000, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
    (String, "", ""),
    (String, "é", "é"),
    (Bytes, b"\0", b"\0"),
    (Array(Int32), [], []),
    (Array(Int32), (1, 2), [1, 2]),
    (Array(Float32, 2), [1, 2], [1.0, 2.0]),
    (Array(Bool, 2), [True, False], [True, False]),
    (Array(String), ["a", ""], ["a", ""]),
    (Array(Bytes, 2), [b"a", b""], [b"a", b""]),
    (Array(Timestamp), [0], [datetime(1970, 1, 1, tzinfo=UTC)]),
]


@pytest.mark.parametrize(("dtype", "default", "wanted"), DEFAULTS)
def test_defaults(rows: ModuleType, dtype: DType, default: Any, wanted: Any) -> None:
    """A default stands in for no row and for a field younger than the row, never for a stored null."""
    layouts = {1: Layout(1, ("a",), (Int64,)), 2: Layout(2, ("a", "b"), (Int64, dtype))}
    one, two = pa.array([1]), pa.array([2])
    stamps = np.array([5]), np.array([6])
    old = rows.RowEncoder(layouts[1]).encode([b"k1"], [one], *stamps)
    null = rows.RowEncoder(layouts[2]).encode([b"k2"], [two, pa.nulls(1, arrow_type(dtype))], *stamps)
    keys, stored = [b"k0", b"k1", b"k2"], [None, *old, *null]
    out = rows.RowDecoder(layouts, ["b", "a"], {"b": default}).decode(keys, stored, now_us=5, ttl_us=1)
    assert out.columns[0].to_pylist() == [wanted, wanted, None]
    assert out.statuses[0].tolist() == [NOT_FOUND, PRESENT, NULL_VALUE]
    assert out.columns[1].to_pylist() == [None, 1, 2]
    assert out.statuses[1].tolist() == [NOT_FOUND, PRESENT, PRESENT]
    for none in ({}, {"b": None}):
        out = rows.RowDecoder(layouts, ["b"], none).decode(keys, stored, now_us=5, ttl_us=1)
        assert out.columns[0].to_pylist() == [None, None, None]
        assert out.statuses[0].tolist() == [NOT_FOUND, NULL_VALUE, NULL_VALUE]
    late = rows.RowDecoder(layouts, ["b"], {"b": default}).decode(keys, stored, now_us=6, ttl_us=1)
    assert late.statuses[0].tolist() == [NOT_FOUND, OUTSIDE_MAX_AGE, OUTSIDE_MAX_AGE]
    assert late.columns[0].to_pylist() == [wanted] * 3


def test_unavailable(rows: ModuleType) -> None:
    out = decoder(rows, EVERY, f0=True).unavailable(2)
    assert out.row_status.tolist() == [UNAVAILABLE] * 2
    assert (out.statuses == UNAVAILABLE).all()
    for dtype, column in zip(EVERY, out.columns, strict=True):
        array = column.to_arrow()
        array.validate(full=True)
        assert (array.type, array.to_pylist()) == (arrow_type(dtype), [None, None])


def test_empty_batches(rows: ModuleType) -> None:
    table = Table(EVERY, [[] for _ in EVERY], [], [])
    assert encode(rows, table) == []
    out = decoder(rows, EVERY).decode([], [], now_us=0, ttl_us=None)
    assert out.n == 0
    assert [column.to_pylist() for column in out.columns] == [[]] * len(EVERY)


def test_no_fields(rows: ModuleType) -> None:
    table = Table([], [], [b"k"], [(1, 2)])
    row = encode(rows, table)
    assert len(row[0]) == 24
    out = decoder(rows, []).decode([b"k"], row, now_us=1, ttl_us=None)
    assert (out.columns, out.row_status.tolist(), out.statuses.shape) == ([], [PRESENT], (0, 1))


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("items", [["a", None], [None]])
@pytest.mark.parametrize("length", [None, True])
def test_a_null_inside_a_list(rows: ModuleType, items: list[str | None], length: bool | None) -> None:
    dtype = Array(String, len(items) if length else None)
    for item, values in ((dtype, items), (Array(Int64, dtype.length), [i and 1 for i in items])):
        column = pa.array([None, values], arrow_type(item))
        encoder = rows.RowEncoder(Layout(1, ("a",), (item,)))
        with pytest.raises(InvalidDataError) as caught:
            encoder.encode([b"1", b"2"], [column], np.zeros(2, np.int64), np.zeros(2, np.int64))
        assert caught.value.where == "column 'a', row 1"


def test_a_list_of_items_declared_not_null(rows: ModuleType) -> None:
    """As Delta tables and others hand lists out: the same type but for the name and nullability."""
    for dtype, kind in (
        (Array(Int64), pa.list_(pa.field("element", pa.int64(), nullable=False))),
        (Array(Int64, 1), pa.list_(pa.field("element", pa.int64(), nullable=False), 1)),
    ):
        encoder = rows.RowEncoder(Layout(1, ("a",), (dtype,)))
        stamps = np.zeros(1, np.int64)
        plain = pa.array([[1]], arrow_type(dtype))
        assert encoder.encode([b"1"], [pa.array([[1]], kind)], stamps, stamps) == encoder.encode(
            [b"1"], [plain], stamps, stamps
        )


BAD_COLUMNS = [
    (Int64, pa.array([1], pa.int32())),
    (Float32, pa.array([1.0], pa.float64())),
    (Timestamp, pa.array([1], pa.timestamp("us"))),
    (Timestamp, pa.array([1], pa.timestamp("ms", "UTC"))),
    (String, pa.array(["a"], pa.large_string())),
    (String, pa.array([b"a"])),
    (Bytes, pa.array(["a"])),
    (Array(Int64), pa.array([1])),
    (Array(Int64), pa.array([[1]], pa.large_list(pa.int64()))),
    (Array(Int64), pa.array([[1]], pa.list_(pa.int64(), 1))),
    (Array(Int64, 2), pa.array([[1]], pa.list_(pa.int64(), 1))),
    (Array(Int64, 1), pa.array([[1]], pa.list_(pa.int64()))),
    (Int64, pa.array([1, 2])),
    (Int64, pa.chunked_array([[1]])),
    (Int64, [1]),
    (Int64, pa.nulls(1)),
]


@pytest.mark.parametrize(("dtype", "column"), BAD_COLUMNS)
def test_columns_that_do_not_fit(rows: ModuleType, dtype: DType, column: Any) -> None:
    encoder = rows.RowEncoder(Layout(1, ("a",), (dtype,)))
    stamps = np.zeros(1, np.int64)
    with pytest.raises(InvalidDataError) as caught:
        encoder.encode([b"1"], [column], stamps, stamps)
    assert caught.value.where == "column 'a'"


def test_batches_that_do_not_fit(rows: ModuleType) -> None:
    encoder = rows.RowEncoder(Layout(1, ("a",), (Int64,)))
    column, stamps = pa.array([1]), np.zeros(1, np.int64)
    for columns in ([], [column, column]):
        with pytest.raises(InvalidDataError, match="1 fields"):
            encoder.encode([b"1"], columns, stamps, stamps)
    for bad in (np.zeros(2, np.int64), np.zeros(1), np.zeros((1, 1), np.int64), [0]):
        with pytest.raises(InvalidDataError, match="event_ts"):
            encoder.encode([b"1"], [column], bad, stamps)
        with pytest.raises(InvalidDataError, match="created_ts"):
            encoder.encode([b"1"], [column], stamps, bad)
    with pytest.raises(CodecError, match="2 keys but 1 rows"):
        decoder(rows, [Int64]).decode([b"1", b"2"], [None], now_us=0, ttl_us=None)


def test_decoders_that_cannot_be(rows: ModuleType) -> None:
    one = {1: Layout(1, ("a",), (Int64,))}
    with pytest.raises(CodecError, match="in none of the layouts"):
        rows.RowDecoder(one, ["b"], {})
    with pytest.raises(CodecError, match="float32 and int64"):
        rows.RowDecoder({**one, 2: Layout(2, ("a",), (Float32,))}, ["a"], {})
    for dtype, default in (
        (Int64, "x"), (Int64, 1.5), (Int64, 2**63), (Int32, 2**31), (String, 5), (Array(Int64), 5),
        (Array(Int64), [None]), (Array(Int64, 2), [1]), (Timestamp, "soon"), (Array(Timestamp), 5),
        (Bytes, "a"), (String, b"a"), (Bool, 1), (Array(Int32), [1.5]), (Array(String), "ab"),
    ):  # fmt: skip
        with pytest.raises(CodecError, match="the default") as caught:
            rows.RowDecoder({1: Layout(1, ("a",), (dtype,))}, ["a"], {"a": default})
        assert caught.value.where == "field 'a'"


@pytest.mark.parametrize(
    ("names", "dtypes", "layout_id"),
    [(("a", "a"), (Int64, Int64), 1), (("a",), (), 1), ((), (), -1), ((), (), 65_536)],
)
def test_layouts_that_cannot_be(names: Any, dtypes: Any, layout_id: int) -> None:
    with pytest.raises(CodecError):
        Layout(layout_id, names, dtypes)


# ---- corrupt rows ------------------------------------------------------------------------------

TABLE = Table(EVERY, [[None if d == Int32 else _v] for d, _v in (
    (d, [{"bool": True, "string": "é", "bytes": b"\xff"}.get(d.item, 1)] * 2 if d.is_list
     else {"bool": True, "string": "text", "bytes": b"\xff"}.get(d.item, 1)) for d in EVERY)],
    [b"7:1"], [(5, 6)])  # fmt: skip


def test_any_flipped_bit_is_an_error(rows: ModuleType) -> None:
    (row,) = encode(rows, TABLE)
    read = decoder(rows, EVERY)
    for at in range(8 * len(row)):
        torn = bytearray(row)
        torn[at // 8] ^= 1 << at % 8
        with pytest.raises(CodecError) as caught:
            read.decode([b"7:1"], [bytes(torn)], now_us=9, ttl_us=None)
        assert "b'7:1'" in caught.value.where and "offset" in caught.value.where


def test_torn_and_misdelivered_rows(rows: ModuleType) -> None:
    (row,) = encode(rows, TABLE)
    read = decoder(rows, EVERY)
    for bad in [*(row[:n] for n in range(len(row))), row + b"\0", row[24:] + row[:24]]:
        with pytest.raises(CodecError):
            read.decode([b"7:1"], [bad], now_us=9, ttl_us=None)
    with pytest.raises(CodecError, match="another key") as caught:
        read.decode([b"7:1", b"7:2"], [row, row], now_us=9, ttl_us=None)
    assert caught.value.where == "row of key b'7:2', layout 3, offset 4"
    with pytest.raises(CodecError, match="layout is unknown") as caught:
        decoder(rows, EVERY, layout_id=4).decode([b"7:1"], [row], now_us=9, ttl_us=None)
    assert "layout 3, offset 2" in caught.value.where
    for bad in (b"", row[:23], b"\2" + row[1:], row[:1] + b"\1" + row[2:]):
        with pytest.raises(CodecError):
            rows.read_header(bad)


def resealed(rows: ModuleType, key: bytes, row: bytes) -> bytes:
    """The row with a checksum that is right, so that what lies behind it is reached."""
    crc = rows.crc32c(row[8:], rows.crc32c(key + row[:4]))
    return row[:4] + crc.to_bytes(4, "little") + row[8:]


@settings(max_examples=400)
@given(data=st.data())
def test_bytes_that_no_encoder_wrote(rows: ModuleType, data: st.DataObject) -> None:
    """Mutated and arbitrary rows under a right checksum: an error or a value, never a crash."""
    row = bytearray(encode(rows, TABLE)[0])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(24, len(row) - 1))
        row[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFE, 0xFF]))
    row = row[: data.draw(st.integers(24, len(row)))] if data.draw(st.booleans()) else row
    row += data.draw(st.binary(max_size=6))
    if data.draw(st.booleans()):
        row = row[:24] + data.draw(st.binary(max_size=300))
    try:
        out = decoder(rows, EVERY).decode(
            [b"7:1"], [resealed(rows, b"7:1", bytes(row))], now_us=INT64_MAX, ttl_us=None
        )
    except CodecError:
        return
    for column in out.columns:
        if column.dtype.item != "string":  # UTF-8 is the encoder's word, sealed by the checksum
            column.to_arrow().validate(full=True)
        elif column.dtype.length is None:
            column.to_arrow().validate()


@settings(max_examples=400)
@given(data=st.data())
def test_twin_and_native_agree_on_bytes_that_no_encoder_wrote(data: st.DataObject) -> None:
    native = pytest.importorskip("fastserve._native.rows")
    from fastserve.codec import rows_py

    body = bytearray(encode(rows_py, TABLE)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(24, len(body) - 1))] = data.draw(st.integers(0, 255))
    row = resealed(native, b"7:1", bytes(body))

    def read(rows: ModuleType) -> Any:
        try:
            out = decoder(rows, EVERY).decode([b"7:1"], [row], now_us=9, ttl_us=None)
        except CodecError as error:
            return str(error)
        arrays = [[getattr(c, name) for name in ("values", "offsets", "item_offsets", "data")]
                  for c in out.columns]  # fmt: skip
        return (
            out.statuses.tolist(),
            out.valid.tolist(),
            [None if a is None else (a.dtype, a.tobytes()) for column in arrays for a in column],
        )

    assert read(native) == read(rows_py)


# ---- checksums and test vectors ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
     (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C)],
)  # fmt: skip
def test_crc32c_of_rfc_3720(rows: ModuleType, data: bytes, crc: int) -> None:
    assert rows.crc32c(data) == crc
    for cut in range(len(data)):
        assert rows.crc32c(data[cut:], rows.crc32c(data[:cut])) == crc


@given(data=st.binary(max_size=100), start=st.integers(0, 2**32 - 1))
def test_crc32c_without_the_instruction(data: bytes, start: int) -> None:
    native = pytest.importorskip("fastserve._native.rows")
    assert native.crc32c_portable(data, start) == native.crc32c(data, start)


def vectors() -> list[tuple[str, ...]]:
    """(key, layout, types, values as Python, event, created, row as hex) from docs/row-format.md."""
    text = DOCS.read_text().split("## Test vectors")[1]
    return [tuple(cell.strip().strip("`").replace(r"\|", "|") for cell in line.split(" | "))
            for line in re.findall(r"^\| (`.*`) \|$", text, re.M)]  # fmt: skip


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector[2])
def test_documented_vectors(rows: ModuleType, vector: tuple[str, ...]) -> None:
    key, layout_id, types, values, event, created, row = vector
    dtypes = [parse_dtype(one) for one in types.split(", ")] if types else []
    columns = [pa.array([v], arrow_type(d)) for d, v in zip(dtypes, eval(values), strict=True)]
    names = tuple(f"f{i}" for i in range(len(dtypes)))
    layout = Layout(int(layout_id), names, tuple(dtypes))
    stamps = np.array([int(event)]), np.array([int(created)])
    assert rows.RowEncoder(layout).encode([key.encode()], columns, *stamps)[0].hex() == row.replace(" ", "")


# ---- batches -----------------------------------------------------------------------------------


def test_a_range_of_a_batch_is_decoded_where_it_lies(rows: ModuleType) -> None:
    read_batch = batches(rows)
    stored = encode(rows, TABLE)
    batch = read_batch([b"6:0", *TABLE.keys, b"8:1"])
    batch.fill([b"not looked at", *stored, None], 0)
    n = len(stored)
    whole = decoder(rows, EVERY).decode(TABLE.keys, stored, now_us=9, ttl_us=None)
    part = decoder(rows, EVERY).decode_batch(batch, 1, 1 + n, now_us=9, ttl_us=None)
    assert part.statuses.tolist() == whole.statuses.tolist()
    assert [c.to_pylist() for c in part.columns] == [c.to_pylist() for c in whole.columns]


def test_what_nobody_answered_for_is_unavailable_and_never_a_default(rows: ModuleType) -> None:
    layout = Layout(1, ("a", "b"), (Int64, String))
    reader = rows.RowDecoder({1: layout}, ["a", "b"], {"a": 7, "b": "x"})
    batch = batches(rows)([b"7:1", b"7:2"])
    out = reader.decode_batch(batch, 0, 2, now_us=9, ttl_us=None)
    assert out.statuses.tolist() == [[UNAVAILABLE] * 2] * 2 and out.row_status.tolist() == [UNAVAILABLE] * 2
    assert [c.to_pylist() for c in out.columns] == [[None, None], [None, None]]
    batch.fill([None, None], 0)
    out = reader.decode_batch(batch, 0, 2, now_us=9, ttl_us=None)
    assert [c.to_pylist() for c in out.columns] == [[7, 7], ["x", "x"]]


@given(present=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), max_size=40))
def test_runs_of_fields_with_nulls_anywhere(rows: ModuleType, present: list[list[bool]]) -> None:
    """Fields that are copied as one run, in rows that have all of them and in rows that do not."""
    names = tuple("abcdefghijkl")
    layout = Layout(1, names, (Float32,) * 7 + (Int64,) * 5)
    n = len(present)
    arrays = [
        pa.array([10 * i + f if row[f] else None for i, row in enumerate(present)], arrow_type(dtype))
        for f, dtype in enumerate(layout.dtypes)
    ]
    keys, stamps = [b"7:%d" % i for i in range(n)], np.zeros(n, np.int64)
    stored = rows.RowEncoder(layout).encode(keys, arrays, stamps, stamps)
    for wanted in (names, names[::-1], names[2:9], names[5:] + names[:5]):
        out = rows.RowDecoder({1: layout}, wanted, {}).decode(keys, stored, now_us=9, ttl_us=None)
        for column in out.columns:
            assert column.to_pylist() == arrays[names.index(column.name)].to_pylist()


def batches(rows: ModuleType) -> Any:
    """The ReadBatch that a decoder takes: the twin's is no memory."""
    return importlib.import_module(
        "fastserve.batch.batch_py" if rows.__name__.endswith("_py") else "fastserve._native.batch"
    ).ReadBatch
