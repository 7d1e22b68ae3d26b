"""Inputs to begin with, when there is no corpus:  python -m tests.fuzz.seeds"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from hpack import Encoder

from bench.attack_kinds import FLOODS, flood_bytes
from fastserve.codec.layout import Layout
from fastserve.codec.rows_py import RowEncoder
from tests.fuzz import answers, corpus, rows, shapes, tiles, writes
from tests.fuzz.frames import written
from tests.unit.codec.columns import array_of

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/p?q=1"), (":authority", "h")]
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def replies() -> Iterator[bytes]:
    yield b"*2\r\n$1\r\na\r\n$-1\r\n"
    yield b"*3\r\n$0\r\n\r\n$12\r\nhello world!\r\n$-1\r\n"
    yield b"-ERR it loads\r\n*1\r\n$3\r\nabc\r\n"
    yield b"*100\r\n" + b"$1\r\nx\r\n" * 100 + b"*2\r\n$-1\r\n$-1\r\n"
    yield b"*2\r\n$536870913\r\n"


def h2_server() -> Iterator[bytes]:
    def head(encoder: Encoder, *extra: tuple[str, str]) -> bytes:
        return bytes(encoder.encode([*REQUEST, *extra]))

    for how in range(4):
        encoder = Encoder()
        yield bytes([how]) + written(
            (HEADERS, END_HEADERS, 1, head(encoder, ("content-length", "5"))),
            (DATA, 0, 1, b"abc"),
            (DATA, END_STREAM, 1, b"de"),
            (HEADERS, END_HEADERS | END_STREAM, 3, head(encoder, ("x-y", "z"))),
            *((action, action) for action in range(12)),
        )
        yield bytes([how]) + written(
            (HEADERS, 0, 1, head(encoder, ("expect", "100-continue"))[:7]),
            (CONTINUATION, END_HEADERS, 1, head(encoder)[7:]),
            (SETTINGS, 0, 0, struct.pack(">HIHI", 4, 10, 1, 0)),
            (PING, 0, 0, bytes(8)),
            (WINDOW, 0, 0, struct.pack(">I", 1000)),
            (DATA, 8, 1, bytes([3]) + b"abcdef"),
            (RESET, 0, 1, bytes(4)),
            (GOAWAY, 0, 0, bytes(8)),
            (PRIORITY, 0, 1, bytes(5)),
        )
        for name in FLOODS:
            yield bytes([how | 8]) + flood_bytes(name, 12)


def h2_client() -> Iterator[bytes]:
    encoder = Encoder()
    head = bytes(encoder.encode([(":status", "200"), ("content-length", "3"), ("x", "y")]))
    yield b"\0" + written(
        (HEADERS, END_HEADERS, 1, head),
        (DATA, END_STREAM, 1, b"abc"),
        (HEADERS, END_HEADERS, 3, bytes(encoder.encode([(":status", "100")]))),
        (HEADERS, END_HEADERS | END_STREAM, 3, bytes(encoder.encode([(":status", "503")]))),
        (RESET, 0, 5, bytes([0, 0, 0, 7])),
        *((action, 1) for action in range(7)),
    )
    yield b"\0" + written(
        (SETTINGS, 0, 0, struct.pack(">HI", 3, 10)),
        (SETTINGS, ACK, 0, b""),
        (HEADERS, 0, 1, head[:2]),
        (CONTINUATION, END_HEADERS, 1, head[2:]),
        (DATA, 0, 1, b"a"),
        (HEADERS, END_HEADERS | END_STREAM, 1, bytes(encoder.encode([("grpc", "0")]))),
        (WINDOW, 0, 0, bytes([0, 0, 0, 9])),
        (GOAWAY, 0, 0, bytes([0, 0, 0, 3, 0, 0, 0, 0])),
        (PING, ACK, 0, bytes(8)),
        (PUSH, END_HEADERS, 1, bytes([0, 0, 0, 2])),
    )


VALUES = {
    "bool": True, "int32": -5, "int64": 1 << 40, "float32": 0x3F800000, "float64": 1 << 62,
    "timestamp": 77, "string": "a text", "bytes": b"\0\xff",
}  # fmt: skip


def stored_rows(known: dict[int, Layout], how: int) -> Iterator[bytes]:
    """Rows full and half full, fresh and old: alone, together, and with one that is missing."""
    for layout in known.values():
        values = [
            [VALUES[d.item]] * (2 if d.length is None else d.length) if d.is_list else VALUES[d.item]
            for d in layout.dtypes
        ]
        pairs = list(zip(layout.dtypes, values, strict=True))
        full = [array_of(d, [value]) for d, value in pairs]
        half = [array_of(d, [value if i % 2 else None]) for i, (d, value) in enumerate(pairs)]
        made = [
            RowEncoder(layout).encode([b"k0"], arrays, np.array([stamp]), np.array([0]))[0]
            for arrays in (full, half)
            for stamp in (1_600_000_000_000_000, -(1 << 61))
        ]
        for row in made:
            yield bytes([how | rows.SEALED]) + bytes([len(row)]) + row
        joined = b"".join(bytes([len(row)]) + row for row in made)
        for ttl in (0, 4):
            yield bytes([how | rows.SEALED | ttl]) + b"\xff" + joined
            yield bytes([how | ttl]) + joined


def bodies() -> Iterator[bytes]:
    for template, items in zip(shapes.TEMPLATES, (b"1, -20,3", b'"a","bc"', b"7"), strict=True):
        yield template
        yield template.replace(b"[1]", b"[%b]" % items).replace(b'["a"]', b"[%b]" % items)


def tile_rows() -> Iterator[bytes]:
    """Of one, a few and many events, some of them at one instant."""
    for number, of in enumerate(tiles.PARTS):
        for times in ([95], [60, 60, 95, 101], [5, 21, 21, 22, 39, 55, 70, 71, 99]):
            out = of.twin.batch([tiles.KEY])
            n = len(times)
            columns = [
                pa.concat_arrays([column] * (n - 1) + [pa.nulls(1, column.type)]) for column in of.columns
            ]
            of.twin.build.build_into(
                out, np.zeros(n, np.int64), np.array(times), columns, end_us=200, created_us=0
            )
            yield bytes([number]) + out.rows()[0][8:]


def main() -> None:
    """Add them to the corpus."""
    found = {
        "tokens": list(replies()),
        "resp": [
            *(bytes([how, 3]) + reply for how in (1, 2, 3, 0x22, 0x43, 0x63) for reply in replies()),
            bytes([0x80, 0x62, 0x80, 31, *b"*2\r\n$1\r\na\r\n$-1\r\n", 0x61, 0xA2, 0xC0, 0x80, 0xE1, 0xE0]),
        ],
        "h2_server": list(h2_server()),
        "h2_client": list(h2_client()),
        "rows": [*stored_rows(rows.NUMERIC[0], rows.NUMBERS), *stored_rows(rows.MIXED[0], 0)],
        "answers": [*stored_rows(answers.NUMERIC[0], rows.NUMBERS), *stored_rows(answers.PLAIN[0], 0)],
        "shapes": list(bodies()),
        "writes": list(writes.talks()),
        "tiles": list(tile_rows()),
        "changes": [b"", b"\1\0a", b"\2\0ab\0\0\1\0c", b"\5\0ab"],
    }
    for target, inputs in found.items():
        corpus.save(target, [*corpus.load(target), *inputs])


if __name__ == "__main__":
    main()
