"""What a hostile HTTP/1.1 client sends: generators of (bytes, pieces in them), as attack_kinds.py has for HTTP/2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, repeat
from typing import Final

CHUNKED: Final = b"POST /wait HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
Pieces = Iterator[tuple[bytes, int]]


def lines() -> Iterator[bytes]:
    """Header lines without an end, each of its own name."""
    return (b"x-%d: %b\r\n" % (i, b"v" * 500) for i in count())


def flood(first: bytes, more: Callable[[], Iterator[bytes]]) -> Pieces:
    """What begins well, and does not end."""
    return ((piece, 1) for piece in chain([first], more()))


# name -> what comes first, and what comes then for ever
FLOODS: Final[dict[str, Callable[[], Pieces]]] = {
    name: partial(flood, first, more)
    for name, first, more in (
        ("one_byte_chunks", CHUNKED, partial(repeat, b"1\r\nx\r\n")),
        # A byte of body, 500 of what is to be ignored.
        ("chunk_extensions", CHUNKED, partial(repeat, b"1;" + b"x" * 500 + b"\r\nx\r\n")),
        ("endless_chunk_line", CHUNKED + b"1;", partial(repeat, b"x" * 1_000)),
        ("trailers", CHUNKED + b"0\r\n", lines),
        ("headers", b"GET / HTTP/1.1\r\nhost: h\r\n", lines),
        ("endless_header", b"GET / HTTP/1.1\r\nhost: h\r\nx: ", partial(repeat, b"v" * 1_000)),
        ("endless_target", b"GET /", partial(repeat, b"x" * 1_000)),
        # Before a request, which RFC 9112 2.2 wants ignored.
        ("empty_lines", b"\r\n" * 500, partial(repeat, b"\r\n" * 500)),
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
