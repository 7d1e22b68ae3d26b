"""The header block of an answer, for the HTTP/2 session on the `h2` library."""

from __future__ import annotations

import re
from typing import Final

from fastserve.http.message import Response
from fastserve.http.replies import http_date

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def render(response: Response) -> tuple[list[tuple[bytes, bytes]], memoryview]:
    """The header block and the body; ValueError or TypeError when they cannot be sent."""
    status = response.status
    if not 200 <= status <= 599:
        raise ValueError(f"response status {status} is not within 200..599")
    if len(response.headers) > 60:
        raise ValueError("more than 60 response headers")
    head = [(b":status", b"%d" % status)]
    if response.content_type:
        head.append((b"content-type", bytes(response.content_type)))
    head += response.headers
    for name, value in head[1:]:
        if not _NAME.fullmatch(name):
            raise ValueError(f"response header name {name!r} is not a token")
        if _BAD_VALUE.search(value):
            raise ValueError(f"response header {name!r} holds control characters")
    body = memoryview(response.body).cast("B")
    head.append((b"date", http_date()))
    if status != 204:
        head.append((b"content-length", b"%d" % len(body)))
    return head, body
