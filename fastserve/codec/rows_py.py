"""Online rows: the readable twin of _ext/rows.pyx, and docs/row-format.md as code.

0  version  1  flags  2  layout id  4  CRC-32C  8  event time  16  created time
24 presence bitmap | fixed section | ends of the heap fields | heap
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.batch.batch_py import ReadBatch
from fastserve.codec.decoded import (
    BLOB,
    BLOBS,
    FIXED,
    DecodedRows,
    FieldPlan,
    corrupt,
    heap_parts,
    make_plan,
    unavailable_rows,
)
from fastserve.codec.fields import check_columns, encode_defaults, field_bytes
from fastserve.codec.layout import FORMAT_VERSION, HEADER_BYTES, Layout
from fastserve.codec.status import NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT, UNAVAILABLE, Status
from fastserve.errors import CodecError, InvalidDataError, TooLargeError

_SIGN: Final = 1 << 63
TORN: Final = "the checksum is wrong: the row is torn, corrupt or belongs to another key"
_U32_MAX: Final = 2**32 - 1
_HEAD: Final = struct.Struct("<BBH")
_CRC: Final = struct.Struct("<I")
_ORDER: Final = struct.Struct(">QQ")
_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, bits reversed


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE: Final = _crc_table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C (Castagnoli); pass the CRC of what came before to go on from there."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_header(row: bytes) -> tuple[int, int, int]:
    """(layout id, event_ts, created_ts) of a row; the checksum is not looked at.

    Raises:
        CodecError: when the bytes are too short or of another format version.
    """
    _check_version(b"", row)
    event_ts, created_ts = _ORDER.unpack_from(row, 8)
    return _HEAD.unpack_from(row)[2], event_ts - _SIGN, created_ts - _SIGN


def _check_version(key: bytes, row: bytes) -> None:
    if len(row) < HEADER_BYTES:
        raise corrupt(key, f"the row is cut short: {len(row)} bytes", None, 0)
    if row[0] != FORMAT_VERSION or row[1]:
        raise corrupt(key, f"unknown row format, version {row[0]}, flags {row[1]}", None, 0)


class RowEncoder:
    """Writes rows of one layout.

    Args:
        layout: the field list, in row order.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def encode(
        self,
        keys: Sequence[bytes],
        columns: Sequence[pa.Array],
        event_ts: npt.NDArray[np.int64],
        created_ts: npt.NDArray[np.int64],
    ) -> list[bytes]:
        """One row per key.

        Args:
            keys: the n online keys; each row's checksum covers its key.
            columns: one Arrow array per field, of exactly the field's Arrow type, n long.
            event_ts: int64[n], microseconds UTC.
            created_ts: int64[n], microseconds UTC.

        Raises:
            InvalidDataError: for columns of another type, number or length; a null item in a list.
            TooLargeError: for a row whose heap exceeds 4 GiB.
        """
        check_columns(self.layout, columns, len(keys))
        stamps = [check_stamps(name, array, len(keys)).tolist() for name, array in
                  (("event_ts", event_ts), ("created_ts", created_ts))]  # fmt: skip
        fields = [
            field_bytes(name, dtype, column)
            for name, dtype, column in zip(self.layout.names, self.layout.dtypes, columns, strict=True)
        ]
        return [
            pack_row(self.layout, key, [column[i] for column in fields], stamps[0][i], stamps[1][i])
            for i, key in enumerate(keys)
        ]

    def encode_into(
        self,
        batch: ReadBatch,
        columns: Sequence[pa.Array],
        event_ts: npt.NDArray[np.int64],
        created_ts: npt.NDArray[np.int64],
    ) -> None:
        """One row per key of a batch, set there; see `encode`.

        Raises:
            TooLargeError: for a row of more than 4 GiB, too.
        """
        for i, row in enumerate(self.encode(batch.keys(), columns, event_ts, created_ts)):
            batch.set(i, row, 0, 0)


def pack_row(
    layout: Layout, key: bytes, values: Sequence[bytes | None], event_ts: int, created_ts: int
) -> bytes:
    """A key's row of field bytes, None for null.

    Raises:
        TooLargeError: its heap exceeds 4 GiB.
    """
    bitmap = bytearray((len(values) + 7) // 8)
    fixed, ends, heap = bytearray(), bytearray(), bytearray()
    for i, (value, dtype) in enumerate(zip(values, layout.dtypes, strict=True)):
        if value is not None:
            bitmap[i // 8] |= 1 << i % 8
        if dtype.width:
            fixed += bytes(dtype.width) if value is None else value
            continue
        heap += value or b""
        if len(heap) > _U32_MAX:
            raise TooLargeError("a row's heap is more than 4 GiB", where=f"key {key!r}")
        ends += _CRC.pack(len(heap))
    head = _HEAD.pack(FORMAT_VERSION, 0, layout.layout_id)
    body = _ORDER.pack(event_ts + _SIGN, created_ts + _SIGN) + bitmap + fixed + ends + heap
    return head + _CRC.pack(crc32c(body, crc32c(key + head))) + body


def check_stamps(name: str, array: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """The stamps, once they are known to be int64[n].

    Raises:
        InvalidDataError: otherwise.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != (n,):
        raise InvalidDataError(f"{name} must be an int64 numpy array of length {n}")
    return array


class RowDecoder:
    """Reads the rows of one view version, whichever of its layouts they were written with.

    Args:
        layouts: layout id -> Layout, every one the view version ever had.
        names: the fields wanted, in output order.
        defaults: field name -> the declared default; a missing name or None means no default.

    Raises:
        CodecError: for a name that no layout has, one with two types, a default of another type.
    """

    def __init__(
        self, layouts: Mapping[int, Layout], names: Sequence[str], defaults: Mapping[str, object]
    ) -> None:
        self.plan = make_plan(layouts, names, encode_defaults(layouts, names, defaults))

    def unavailable(self, n: int) -> DecodedRows:
        """The answer for n entities whose store did not answer: all null, all UNAVAILABLE."""
        return unavailable_rows(self.plan, n)

    def decode(
        self,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        *,
        now_us: int,
        ttl_us: int | None,
    ) -> DecodedRows:
        """Values and statuses of n entities.

        A row counts when ``event_ts <= now_us`` and, with a ttl, ``event_ts > now_us - ttl_us``.
        Without a row (NOT_FOUND, also one from the future) or with one too old (OUTSIDE_MAX_AGE,
        its time stamps kept) a value is its default or null. A stored null is NULL_VALUE and null,
        whatever the default. A field younger than the row's layout has its default and PRESENT,
        or is null and NULL_VALUE.

        Raises:
            CodecError: for a row that is cut, corrupt, of another key, format or unknown layout.
        """
        if len(keys) != len(rows):
            raise CodecError(f"{len(keys)} keys but {len(rows)} rows")
        batch = ReadBatch(keys)
        batch.fill(rows, 0)
        return self.decode_batch(batch, 0, len(keys), now_us=now_us, ttl_us=ttl_us)

    def decode_batch(
        self, batch: ReadBatch, start: int, stop: int, *, now_us: int, ttl_us: int | None
    ) -> DecodedRows:
        """The same for the keys and rows of a range of a batch, where they lie.

        A row that is UNKNOWN yet is UNAVAILABLE and null, whatever the default. The checksum of a row that comes from
        the cache was looked at before it went there.
        """
        keys, rows, states = batch.keys(start, stop), batch.rows(start, stop), batch.states(start, stop)
        out = DecodedRows(self.plan, len(rows))
        values: list[list[bytes | None]] = [
            self._one(out, i, key, row, now_us, ttl_us) if states[i] else self._unknown(out, i)
            for i, (key, row) in enumerate(zip(keys, rows, strict=True))
        ]
        for f, field in enumerate(self.plan.fields):
            _fill(out, f, field, keys, [row[f] for row in values])
        return out

    def _one(
        self,
        out: DecodedRows,
        i: int,
        key: bytes,
        row: bytes | None,
        now_us: int,
        ttl_us: int | None,
    ) -> list[bytes | None]:
        """The field bytes of entity i, None for null; sets its statuses and stamps."""
        status: Status = NOT_FOUND
        if row is not None:
            layout = self._check(key, row)
            _, event_ts, created_ts = read_header(row)
            if event_ts <= now_us:
                out.event_ts[i], out.created_ts[i] = event_ts, created_ts
                fresh = ttl_us is None or event_ts > now_us - ttl_us
                status = PRESENT if fresh else OUTSIDE_MAX_AGE
        out.row_status[i] = status
        if row is not None and status == PRESENT:
            sources = self.plan.sources[layout.layout_id]
            stored = field_values(layout, key, row)
            values = [
                field.default if source < 0 else stored[source]
                for field, source in zip(self.plan.fields, sources, strict=True)
            ]
            out.statuses[:, i] = [NULL_VALUE if value is None else PRESENT for value in values]
        else:
            values = [field.default for field in self.plan.fields]
            out.statuses[:, i] = status
        out.valid[:, i] = [value is not None for value in values]
        return values

    def _unknown(self, out: DecodedRows, i: int) -> list[bytes | None]:
        """Entity i of which the store said nothing."""
        out.row_status[i] = UNAVAILABLE
        out.statuses[:, i] = UNAVAILABLE
        return [None] * len(self.plan.fields)

    def _check(self, key: bytes, row: bytes) -> Layout:
        wrong = refused(key, row)
        if wrong is not None:
            raise wrong
        layout_id = _HEAD.unpack_from(row)[2]
        layout = self.plan.layouts.get(layout_id)
        if layout is None:
            raise corrupt(key, "the layout is unknown", layout_id, 2)
        return layout


def refused(key: bytes, row: bytes) -> CodecError | None:
    """What is wrong with the header or the checksum of a key's row, if anything is."""
    try:
        _check_version(key, row)
    except CodecError as error:
        return error
    if _CRC.unpack_from(row, 4)[0] != crc32c(row[8:], crc32c(key + row[:4])):
        return corrupt(key, TORN, _HEAD.unpack_from(row)[2], 4)
    return None


def field_values(layout: Layout, key: bytes, row: bytes) -> list[bytes | None]:
    """Every field's bytes in layout order, None for null, of a row whose header and checksum are right.

    The heap's ends are checked here: rising, the last one the row's end.

    Raises:
        CodecError: the row does not fit its layout.
    """
    start = layout.heap_start
    if len(row) < start:
        raise corrupt(key, f"the row is cut short: {len(row)} bytes", layout.layout_id, len(row))
    ends = [0, *struct.unpack_from(f"<{layout.n_heap}I", row, layout.ends_start)]
    if sorted(ends) != ends or start + ends[-1] != len(row):
        raise corrupt(key, "the heap does not fit the row", layout.layout_id, layout.ends_start)
    found: list[bytes | None] = []
    for i, dtype in enumerate(layout.dtypes):
        if not row[HEADER_BYTES + i // 8] >> i % 8 & 1:
            found.append(None)
        elif dtype.width:
            found.append(row[layout.offsets[i] : layout.offsets[i] + dtype.width])
        else:
            slot = layout.heap_slots[i]
            found.append(row[start + ends[slot] : start + ends[slot + 1]])
    return found


def _fill(
    out: DecodedRows,
    f: int,
    field: FieldPlan,
    keys: Sequence[bytes],
    values: Sequence[bytes | None],
) -> None:
    """Put one field's bytes where DecodedRows keeps them."""
    if field.kind == FIXED:
        packed = b"".join(bytes(field.dtype.width) if v is None else v for v in values)
        target = out.blocks[field.dtype.item][field.slot] if field.slot >= 0 else out._others[f][0]
        source = np.frombuffer(packed, np.uint8 if target.dtype == np.bool_ else target.dtype)
        target[...] = source.reshape(target.shape)
        return
    blobs = [b"" if value is None else value for value in values]
    if field.kind == BLOB:
        out._others[f] = heap_parts(field, [len(blob) for blob in blobs], [], b"".join(blobs))
    elif field.kind == BLOBS:
        lists = [
            [] if value is None else _split(field, key, value)
            for key, value in zip(keys, values, strict=True)
        ]
        items = [item for row in lists for item in row]
        counts = [len(row) for row in lists]
        out._others[f] = heap_parts(field, counts, [len(i) for i in items], b"".join(items))
    else:
        width = field.dtype.scalar.width
        for key, blob in zip(keys, blobs, strict=True):
            if len(blob) % width:
                raise bad_list(field.name, key)
        counts = [len(blob) // width for blob in blobs]
        out._others[f] = heap_parts(field, counts, [], b"".join(blobs))


def _split(field: FieldPlan, key: bytes, blob: bytes) -> list[bytes]:
    """The items of a list of strings or bytes."""
    count = _CRC.unpack_from(blob)[0] if len(blob) >= 4 else _U32_MAX
    start = 4 + 4 * count
    if start > len(blob) or field.dtype.length not in (None, count):
        raise bad_list(field.name, key)
    ends = [0, *struct.unpack_from(f"<{count}I", blob, 4)]
    if sorted(ends) != ends or start + ends[-1] != len(blob):
        raise bad_list(field.name, key)
    return [blob[start + a : start + b] for a, b in pairwise(ends)]


def bad_list(name: str, key: bytes) -> CodecError:
    """The error for a list whose bytes are not one."""
    return CodecError(f"the list {name!r} does not fit its bytes", where=f"row of key {key!r}")
