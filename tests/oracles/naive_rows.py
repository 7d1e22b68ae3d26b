"""docs/row-format.md once more, one row and one value at a time; nothing here is shared with the codec.

A value is None, or: a bool; an int for int32, int64 and timestamp; the *bits* as an int for float32 and
float64; str; bytes; a list of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTHS = {"bool": 1, "int32": 4, "int64": 8, "float32": 4, "float64": 8, "timestamp": 8}


def crc32c(data: bytes) -> int:
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _item(kind: str, value: Any) -> bytes:
    if kind == "string":
        return value.encode()
    if kind == "bytes":
        return value
    return (int(value) % 2 ** (8 * WIDTHS[kind])).to_bytes(WIDTHS[kind], "little")


def _heap(kind: str, value: Any) -> bytes:
    if not isinstance(value, list):
        return _item(kind, value)
    items = [_item(kind, one) for one in value]
    if kind in WIDTHS:
        return b"".join(items)
    ends = [sum(map(len, items[: i + 1])) for i in range(len(items))]
    return b"".join(n.to_bytes(4, "little") for n in [len(items), *ends]) + b"".join(items)


def encode_row(
    key: bytes, layout_id: int, dtypes: Sequence[Any], values: Sequence[Any], event: int, created: int
) -> bytes:
    """The row of one entity."""
    bitmap = sum(1 << i for i, value in enumerate(values) if value is not None)
    fixed = ends = heap = b""
    for dtype, value in zip(dtypes, values, strict=True):
        if dtype.item in WIDTHS and not (dtype.is_list and dtype.length is None):
            n = dtype.length or 1
            items = [0] * n if value is None else value if dtype.is_list else [value]
            fixed += b"".join(_item(dtype.item, one) for one in items)
        else:
            heap += b"" if value is None else _heap(dtype.item, value)
            ends += len(heap).to_bytes(4, "little")
    head = bytes([1, 0]) + layout_id.to_bytes(2, "little")
    body = (event + 2**63).to_bytes(8, "big") + (created + 2**63).to_bytes(8, "big")
    body += bitmap.to_bytes((len(values) + 7) // 8, "little") + fixed + ends + heap
    return head + crc32c(key + head + body).to_bytes(4, "little") + body


def row_status(event: int | None, now: int, ttl: int | None) -> str:
    """What a read at `now` says of a row, by name."""
    if event is None or event > now:
        return "NOT_FOUND"
    if ttl is not None and not event > now - ttl:
        return "OUTSIDE_MAX_AGE"
    return "PRESENT"


def key_text(view: str, parts: Sequence[Any]) -> bytes:
    """The key of one entity; view is the id in base 36."""
    return f"{view}:".encode() + b"|".join(map(_part, parts))


def _part(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, str):
        return b"".join(
            b"%%%02X" % c if c < 0x20 or c == 0x7F or chr(c) in "%|" else bytes([c]) for c in value.encode()
        )
    return b"".join(bytes([c]) if 0x21 <= c <= 0x7E and chr(c) not in "%|" else b"%%%02X" % c for c in value)
