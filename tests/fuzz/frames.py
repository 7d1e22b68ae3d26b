"""Inputs of the HTTP/2 targets: a short notation for frames, so that a mutation of it still is frames.

0x00 … 0x0f   type, then flags, stream, size, and so many bytes of payload
0x10 … 0x1f   the same, the payload 64 times over
0x20 … 0x7f   something the server's or the client's own side does; one argument follows
0x80 … 0xff   so many bytes (op - 0x7f) as they are
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Of an input's first byte, [how]; the rest of it is the target's own.
BARE = 0x04  # nothing before it
PLAIN = 0x08  # the input is the stream: no notation
REPEATED, ACTION, RAW = 0x10, 0x20, 0x80


def steps(data: bytes) -> Iterator[bytes | tuple[int, int]]:
    """Bytes to feed, or (action, argument)."""
    at, end = 0, len(data)
    while at < end:
        op = data[at]
        if op >= RAW:
            yield data[at + 1 : at + op - RAW + 2]
            at += op - RAW + 2
        elif op >= ACTION:
            yield op - ACTION, data[at + 1] if at + 1 < end else 0
            at += 2
        elif at + 4 > end:
            return
        else:
            flags, stream, size = data[at + 1], data[at + 2], data[at + 3]
            payload = data[at + 4 : at + 4 + size]
            at += 4 + size
            if op >= REPEATED:
                payload *= 64
            yield frame(op & 0x0F, flags, stream, payload)


def converse(side: Any, data: bytes, start: bytes) -> bytes:
    """Play an input to a session and its owner, to the end; all the bytes that were fed.

    Args:
        side: `take` is given each step, and then comes `end`.
        data: [how] and what follows, not empty.
        start: comes first, unless it says BARE.
    """
    how, rest = data[0], data[1:]
    parts = [b"" if how & BARE else start, *([rest] if how & PLAIN else steps(rest))]
    for part in parts:
        side.take(part)
    side.end()
    return b"".join(part for part in parts if isinstance(part, bytes))


def output_of(session: Any) -> bytes:
    """All that it still wants to send."""
    found = b""
    for _ in range(100):
        output = session.data_to_send(1 << 18)
        if not output:
            return found
        found += output
    raise AssertionError("it never stops sending")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def continues(stream: bytes) -> bool:
    """Whether a header block goes on in a CONTINUATION frame, or should.

    libnghttp2 (1.61, and Debian's 1.52) counts one each time that it is given a part of such a frame's head, and allows
    8: so with them it does matter where the bytes are cut.
    """
    at = stream.find(b"SM\r\n\r\n") + 6 if stream.startswith(b"PRI") else 0
    while at + 9 <= len(stream):
        kind, flags = stream[at + 3], stream[at + 4]
        if kind == 9 or (kind in (1, 5) and not flags & 4):
            return True
        at += 9 + int.from_bytes(stream[at : at + 3])
    return False


def check_output(output: bytes, preface: bytes = b"") -> None:
    """Whole frames, of types and sizes that may be sent."""
    assert output.startswith(preface[: len(output)])
    at = len(preface)
    while at < len(output):
        assert at + 9 <= len(output), "the output ends in a frame's head"
        size = int.from_bytes(output[at : at + 3])
        assert size <= 16384 and output[at + 3] <= 9, "no frame of ours"
        at += 9 + size
        assert at <= len(output), "the output ends in a frame"


def written(*parts: bytes | tuple[int, int, int, bytes] | tuple[int, int]) -> bytes:
    """The notation of frames (type, flags, stream, payload), actions (action, argument) and bytes; for seeds."""
    out = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            for at in range(0, len(part), 128):
                piece = part[at : at + 128]
                out += bytes([RAW + len(piece) - 1]) + piece
        elif len(part) == 2:
            out += bytes([ACTION + part[0], part[1]])
        else:
            kind, flags, stream, payload = part
            out += bytes([kind, flags, stream, len(payload)]) + payload
    return bytes(out)
