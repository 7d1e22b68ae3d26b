"""What clients send: bodies, queries and headers, checked before anybody acts on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from fastserve.control.shapes import Shape
from fastserve.errors import Problem, RequestError
from fastserve.registry.jobs import MAX_ID
from fastserve.timeutil import parse_timestamp

MAX_BODY: Final = 4 << 20


class UnsupportedTypeError(RequestError):
    """The body is not sent as JSON."""


async def read_json(request: web.Request, shape: Shape) -> Any:
    """The body, of a shape.

    Raises:
        UnsupportedTypeError: the content type is another. That browsers ask before they send JSON to another site
            keeps pages from talking to a control plane on the reader's machine.
        RequestError: no JSON, or of another shape; names the first problem and counts the others.
    """
    if request.content_type != "application/json":
        raise UnsupportedTypeError(
            f"the body is {request.content_type[:100]!r}",
            where="content-type",
            hint="send JSON, with the header content-type: application/json",
        )
    body = await request.read()
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}", where="$") from None
    refuse(list(shape(value, "$")))
    return value


def refuse(problems: list[Problem]) -> None:
    """Raise RequestError for the first problem, if there is any."""
    if problems:
        first, more = problems[0], len(problems) - 1
        text = f"{first.message} (and {more} more)" if more else first.message
        raise RequestError(text, where=first.where, hint=first.fix)


def query_of(request: web.Request, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Query parameters by name, each made of its text by its parser; those not given are not there.

    Raises:
        RequestError: an unknown parameter, one given twice, or one its parser raises ValueError for.
    """
    found: dict[str, Any] = {}
    for name, text in request.query.items():
        where = f"?{name[:100]}"
        if name not in known:
            raise RequestError(
                "unknown parameter", where=where, hint=f"parameters: {', '.join(known) or 'none'}"
            )
        if name in found:
            raise RequestError("is given twice", where=where, hint="give it once")
        try:
            found[name] = known[name](text)
        except ValueError as error:
            raise RequestError(f"{text[:100]!r} {error}", where=where) from None
    return found


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
            raise ValueError(f"is no whole number from {low} to {high}")
        return int(text)

    return parse


def word(*known: str) -> Callable[[str], str]:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in known:
            raise ValueError(f"is none of {', '.join(known)}")
        return text

    return parse


def moment(text: str) -> int:
    """A parser of times: microseconds UTC."""
    try:
        return parse_timestamp(text if len(text) <= 100 else "")
    except (ValueError, OverflowError):
        raise ValueError("is no time: write it like 2013-01-01 or 2013-01-01T05:00:00Z") from None


def path_id(request: web.Request) -> int:
    """The job number in the path; 0, which no job has, for what is none."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise RequestError(f"{text[:100]!r} is no job number", where="path", hint=f"1 to {MAX_ID}")
    return int(text)


def idempotency_key(request: web.Request) -> str | None:
    """The header Idempotency-Key: 1 to 200 printable ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise RequestError(
            "is no key", where="idempotency-key", hint="use 1 to 200 printable ASCII characters"
        )
    return key
