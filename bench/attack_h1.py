"""What a hostile HTTP/1.1 client sends: generators of (bytes, pieces in them), as attack_kinds.py has for HTTP/2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

CHUNKED: Final = b"POST /wait HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
Pieces = Iterator[tuple[bytes, int]]


def one_byte_chunks() -> Pieces:
    """A body in chunks of a byte."""
    yield CHUNKED, 1
    while True:
        yield b"1\r\nx\r\n", 1


def chunk_extensions() -> Pieces:
    """A byte of body, 500 of what is to be ignored."""
    yield CHUNKED, 1
    while True:
        yield b"1;" + b"x" * 500 + b"\r\nx\r\n", 1


def endless_chunk_line() -> Pieces:
    """One chunk's extension without an end."""
    yield CHUNKED + b"1;", 1
    while True:
        yield b"x" * 1_000, 1


def trailers() -> Pieces:
    """After the last chunk, without an end."""
    yield CHUNKED + b"0\r\n", 1
    for i in count():
        yield b"x-%d: %b\r\n" % (i, b"v" * 500), 1


def headers() -> Pieces:
    """Without an end."""
    yield b"GET / HTTP/1.1\r\nhost: h\r\n", 1
    for i in count():
        yield b"x-%d: %b\r\n" % (i, b"v" * 500), 1


def endless_header() -> Pieces:
    """One line without an end."""
    yield b"GET / HTTP/1.1\r\nhost: h\r\nx: ", 1
    while True:
        yield b"v" * 1_000, 1


def endless_target() -> Pieces:
    """A request line without an end."""
    yield b"GET /", 1
    while True:
        yield b"x" * 1_000, 1


def empty_lines() -> Pieces:
    """Before a request, which RFC 9112 2.2 wants ignored."""
    while True:
        yield b"\r\n" * 500, 1


FLOODS: Final[dict[str, Callable[[], Pieces]]] = {
    flood.__name__: flood
    for flood in (
        one_byte_chunks,
        chunk_extensions,
        endless_chunk_line,
        trailers,
        headers,
        endless_header,
        endless_target,
        empty_lines,
    )
}

_SECOND: Final = b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"
_POST: Final = b"POST / HTTP/1.1\r\nhost: h\r\n"
# One proxy reads one request in it, another two: refused, and nothing behind it is looked at.
SMUGGLING: Final = {
    "both lengths": _POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + _SECOND,
    "both, the other order": _POST
    + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"
    + _SECOND,
    "two lengths": _POST + b"content-length: 0\r\ncontent-length: 39\r\n\r\n" + _SECOND,
    "a list of lengths": _POST + b"content-length: 0, 39\r\n\r\n" + _SECOND,
    "a signed length": _POST + b"content-length: +39\r\n\r\n" + _SECOND,
    "a hexadecimal length": _POST + b"content-length: 0x10\r\n\r\n" + _SECOND,
    "an unknown coding": _POST + b"transfer-encoding: xchunked\r\n\r\n" + _SECOND,
    "chunked twice": _POST
    + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    + _SECOND,
    "chunked, then another": _POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + _SECOND,
    "a space before the colon": _POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + _SECOND,
    "a folded header": _POST + b"x: a\r\n transfer-encoding: chunked\r\n\r\n" + _SECOND,
    "a bare CR": _POST + b"x: a\rtransfer-encoding: chunked\r\n\r\n" + _SECOND,
    "a chunk size too large": CHUNKED + b"ffffffffffffffff1\r\nx\r\n" + _SECOND,
    "a negative chunk size": CHUNKED + b"-1\r\nx\r\n" + _SECOND,
    "a chunk longer than it says": CHUNKED + b"1\r\nxxxx\r\n0\r\n\r\n" + _SECOND,
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    + _SECOND,
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n" + _SECOND,
}
