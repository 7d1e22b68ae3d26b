"""Rows of an online store, to columns and to a matrix: [how] and for each row its size and bytes.

A row's checksum would keep nearly all inputs out, so with SEALED in `how` it is made right, and so is the header.
"""

from __future__ import annotations

from typing import Any

from fastserve._native.batch import ReadBatch
from fastserve._native.matrix import MatrixDecoder
from fastserve._native.rows import RowDecoder, crc32c
from fastserve.batch.batch_py import ReadBatch as PyReadBatch
from fastserve.codec.layout import Layout
from fastserve.codec.matrix_py import MatrixDecoder as PyMatrixDecoder
from fastserve.codec.matrix_py import matrix_shape
from fastserve.codec.rows_py import RowDecoder as PyRowDecoder
from fastserve.errors import CodecError
from fastserve.types import Array, DType
from tests.fuzz.sampling import sampled

SEALED = 0x01
NUMBERS = 0x02  # of the layouts that a matrix can hold
NOW = 1 << 60
TTLS = (None, 1 << 61)


def layouts(*dtypes: DType) -> tuple[dict[int, Layout], tuple[str, ...]]:
    """Three: of all fields, without the last two, and of the same in another order."""
    names = tuple(f"f{i}" for i in range(len(dtypes)))
    return {
        1: Layout(1, names[:-2], dtypes[:-2]),
        2: Layout(2, names, dtypes),
        3: Layout(3, names[::-1], dtypes[::-1]),
    }, names


F4, F8, BOOL, TEXT = DType("float32"), DType("float64"), DType("bool"), DType("string")
NUMERIC = layouts(*[F4] * 9, BOOL, F8, DType("int32"), F4, Array("float32", 3), F4, BOOL)
MIXED = layouts(
    *(TEXT, F4, F4, DType("int64"), DType("timestamp"), DType("bytes"), Array("float32"), Array("string")),
    *(Array("bool"), Array("string", 2), Array("int32", 2), Array("bool", 3), F8, TEXT),
)
DECODERS = {
    kind: {
        numbers: kind(known, names, defaults)
        for numbers, (known, names), defaults in (
            (True, NUMERIC, {"f14": 1.5, "f15": True}),
            (False, MIXED, {"f13": "none"}),
        )
    }
    for kind in (RowDecoder, PyRowDecoder)
}
COLUMNS = [(0, field) for field in range(len(NUMERIC[1]))]
SHAPE = matrix_shape([DECODERS[PyRowDecoder][True]], COLUMNS, NUMERIC[1])
MATRIX = MatrixDecoder([DECODERS[RowDecoder][True]], SHAPE)
PY_MATRIX = PyMatrixDecoder([DECODERS[PyRowDecoder][True]], SHAPE)


def decode(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    how, (keys, rows) = data[0], given(data)
    numbers = bool(how & NUMBERS)
    columns(keys, rows, numbers, TTLS[how >> 2 & 1], sampled(data, 64))
    if numbers:
        matrix(keys, rows, TTLS[how >> 2 & 1], sampled(data, 64))


def given(data: bytes) -> tuple[list[bytes], list[bytes | None]]:
    """The rows of an input, and keys for them; some are empty."""
    keys: list[bytes] = []
    rows: list[bytes | None] = []
    at = 1
    while at < len(data) and len(rows) < 40:
        key = b"k%d" % len(rows) if at % 3 else b""
        size = data[at]
        keys.append(key)
        rows.append(None if size == 255 else stored(key, data[at + 1 : at + 1 + size], data[0] & SEALED))
        at += 1 if size == 255 else 1 + size
    return keys, rows


def stored(key: bytes, row: bytes, sealed: int) -> bytes:
    if not sealed or len(row) < 24:
        return row
    head = bytes([1, 0, 1 + row[2] % 3, 0])
    return head + crc32c(row[8:], crc32c(head, crc32c(key))).to_bytes(4, "little") + row[8:]


def columns(keys: list[bytes], rows: list[Any], numbers: bool, ttl: int | None, twin: bool) -> None:
    seen = answer(DECODERS[RowDecoder][numbers], keys, rows, ttl)
    if twin:
        expected = answer(DECODERS[PyRowDecoder][numbers], keys, rows, ttl)
        assert seen == expected, f"{seen}, the twin {expected}"


def answer(decoder: Any, keys: list[bytes], rows: list[Any], ttl: int | None) -> object:
    """All that comes of it, as something to compare."""
    try:
        out = decoder.decode(keys, rows, now_us=NOW, ttl_us=ttl)
    except CodecError as error:
        return str(error)
    read: list[object] = [out.row_status.tobytes(), out.statuses.tobytes(), out.valid.tobytes()]
    for column in out.columns:
        for part in (column.values, column.offsets, column.item_offsets, column.data):
            read.append(None if part is None else part.tobytes())
    return read


def matrix(keys: list[bytes], rows: list[Any], ttl: int | None, twin: bool) -> None:
    seen = matrix_of(MATRIX, ReadBatch, keys, rows, ttl)
    if twin:
        expected = matrix_of(PY_MATRIX, PyReadBatch, keys, rows, ttl)
        assert seen == expected, f"{seen!r}, the twin {expected!r}"


def matrix_of(decoder: Any, make_batch: Any, keys: list[bytes], rows: list[Any], ttl: int | None) -> object:
    batch = make_batch(keys)
    batch.fill(rows, 0)
    try:
        return decoder.decode(batch, len(keys), NOW, [ttl])
    except CodecError as error:
        return str(error).partition(",")[0]  # of which key; the twin says more
