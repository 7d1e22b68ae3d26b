"""Answers the front end gives by itself, in the error envelope every fastserve error has, and the date."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

import orjson

from fastserve.http.limits import Limits
from fastserve.http.message import HeaderList, Response

JSON = b"application/json"


def error_response(
    status: int, code: str, message: str, *, where: str = "", hint: str = "", headers: HeaderList = ()
) -> Response:
    """``{"error": {"code", "message", "where", "hint"}}`` with `status`."""
    error = {"code": code, "message": message, "where": where, "hint": hint}
    return Response(status, JSON, orjson.dumps({"error": error}), headers)


INTERNAL = error_response(
    500,
    "internal",
    "internal error",
    hint="this is a fault of the server, and its log has the details; a retry may help",
)


OVERLOADED = error_response(
    429,
    "overloaded",
    "the server is at its limit",
    hint="send it again after a moment, or to another server",
    headers=((b"retry-after", b"1"),),
)


@lru_cache(maxsize=16)
def rejections(limits: Limits) -> dict[int, Response]:
    """Status -> the answer to a request that never reaches the handler."""
    kib = limits.max_header_bytes // 1024
    texts = {
        400: ("malformed", "this is not a well-formed HTTP request", "see RFC 9110, RFC 9112"),
        408: (
            "timeout",
            "the request did not arrive in time",
            f"send the head within {limits.header_timeout_s:g} s, "
            f"the body within {limits.body_timeout_s:g} s",
        ),
        411: ("length_required", "a body needs a length", "send content-length, 0 for no body"),
        413: (
            "too_large",
            "the request body is too large",
            f"send at most {limits.max_body_bytes} bytes in a request and "
            f"{limits.max_buffered_body_bytes} at once on a connection; split the batch",
        ),
        414: (
            "target_too_long",
            "path and query are too long",
            f"send at most {limits.max_target_bytes} bytes; put the data into a POST body",
        ),
        417: ("expectation", "only `expect: 100-continue` is known", "leave the header out"),
        431: ("headers_too_large", "the request head is too large", f"send at most {kib} KiB"),
        501: (
            "not_implemented",
            "this method or transfer-encoding is not implemented",
            "use content-length or `transfer-encoding: chunked`; CONNECT is not served",
        ),
    }
    replies = {
        status: error_response(status, code, message, hint=hint)
        for status, (code, message, hint) in texts.items()
    }
    replies[429] = OVERLOADED
    replies[500] = INTERNAL
    return replies


_date_second = -1
_date = b""


def http_date() -> bytes:
    """The value of the Date header now (RFC 9110 5.6.7); made once a second."""
    global _date_second, _date
    second = int(time.time())
    if second != _date_second:
        _date_second = second
        _date = formatdate(second, usegmt=True).encode("ascii")
    return _date
