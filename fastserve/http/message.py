"""The seam between the front end and whoever answers: a Request in, a Response out, bytes on both sides.

    def handler(request: Request) -> Response | Awaitable[Response]: ...

- A ``Response`` is answered in the same callback that parsed the request: no Task, no Future.
- An awaitable (an ``asyncio.Future`` is cheapest; a coroutine costs a Task) is answered when it is
  done. It gets ``.cancel()`` when the client resets the stream or the connection ends; its result
  is then never written.
- A handler that raises, or whose awaitable raises, is answered with 500 and logged with its
  traceback; the connection survives. Turning known errors into 4xx is the handler's business.

The handler runs on the event loop and must not block it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")

HeaderList: TypeAlias = Sequence[tuple[bytes, bytes]]


class Request:
    """One complete request.

    Attributes:
        method: upper-case as sent, e.g. ``POST``.
        path: without the query, percent-encoding untouched, e.g. ``/online-features/batch``.
        query: raw text after ``?``, or ``""``.
        headers: (name, value) pairs in order; names lower-case, pseudo headers removed. Two requests
            may share the same tuple objects; never the same list.
        body: all of it, already de-chunked; ``b""`` when there is none.
    """

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: list[tuple[bytes, bytes]] | None = None,
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers: list[tuple[bytes, bytes]] = [] if headers is None else headers
        self.body = body

    def header(self, name: bytes) -> bytes | None:
        """The first value of header `name` (lower-case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        target = f"{self.path}?{self.query}" if self.query else self.path
        return f"<Request {self.method} {target} {len(self.body)} B>"


class CheckedHeaders(tuple[tuple[bytes, bytes], ...]):
    """Headers that many answers have: checked here, once, and not again for each answer.

    Raises:
        ValueError: a name is no lower-case token, or a value holds control characters.
    """

    __slots__ = ()

    def __new__(cls, headers: Iterable[tuple[bytes, bytes]]) -> CheckedHeaders:
        made = super().__new__(cls, headers)
        for name, value in made:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"response header {name!r} cannot be sent")
        return made


class Response:
    """One complete answer. The front end adds content-length, date and connection.

    Args:
        status: 200..599.
        content_type: of the body; ``""`` leaves the header out.
        body: bytes, bytearray or C-contiguous memoryview. It is read while it is being sent, with no
            copy of the whole: do not change it after it is handed over.
        headers: further (lower-case name, value) pairs, at most 60; those that are always the same as CheckedHeaders.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        content_type: str | bytes,
        body: Buffer,
        headers: HeaderList = (),
    ) -> None:
        self.status = status
        self.content_type = (
            content_type if content_type.__class__ is bytes else str(content_type).encode("latin-1")
        )
        self.body = body
        self.headers = headers

    def __repr__(self) -> str:
        return f"<Response {self.status} {memoryview(self.body).nbytes} B>"


Handler: TypeAlias = Callable[[Request], "Response | Awaitable[Response]"]


def split_target(target: bytes) -> tuple[str, str]:
    """(path, query) of an origin-form or absolute-form request target."""
    if not target.startswith(b"/") and b"://" in target:
        scheme_end = target.index(b"://") + 3
        slash = target.find(b"/", scheme_end)
        mark = target.find(b"?", scheme_end)
        if slash < 0 or 0 <= mark < slash:
            target = b"/" + (target[mark:] if mark >= 0 else b"")
        else:
            target = target[slash:]
    path, _, query = target.decode("latin-1").partition("?")
    return path, query
