"""Path and method -> handler. A route table is a mapping of path -> (method, handler).

A path may hold one ``{placeholder}`` for one segment; the handler finds the segment by `segment_of`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar
from urllib.parse import unquote

from fastserve.api.errors import error_response, json_error
from fastserve.errors import FastserveError
from fastserve.http.message import Request, Response

Answer: TypeAlias = Response | asyncio.Future[Response]
Handle: TypeAlias = Callable[[Request], Answer]
Routes: TypeAlias = Mapping[str, tuple[str, Handle]]
T = TypeVar("T")


class Router:
    """The front end's handler: finds the route and calls it.

    Every FastserveError that a handler raises becomes its 4xx or 503 envelope.

    Args:
        tables: route tables; no path stands in two of them.
    """

    def __init__(self, *tables: Routes) -> None:
        self._routes = {path: route for table in tables for path, route in table.items()}
        self._patterns = [
            (path.partition("{")[0], path.partition("}")[2], route)
            for path, route in self._routes.items()
            if "{" in path
        ]

    @property
    def table(self) -> dict[str, str]:
        """Path -> method of every route."""
        return {path: method for path, (method, _) in self._routes.items()}

    def __call__(self, request: Request) -> Answer:
        """Answer a request."""
        try:
            return self._dispatch(request)
        except FastserveError as error:
            return error_response(error)

    def _dispatch(self, request: Request) -> Answer:
        route = self._routes.get(request.path) or self._matched(request.path)
        if route is None:
            known = ", ".join(self._routes)
            return json_error(404, "not_found", f"no such path {request.path!r}", hint=f"paths: {known}")
        method, handle = route
        if request.method != method and not (method == "GET" and request.method == "HEAD"):
            return json_error(
                405,
                "method_not_allowed",
                f"{request.method} is not for {request.path}",
                hint=f"use {method}",
                headers=((b"allow", method.encode()),),
            )
        return handle(request)

    def _matched(self, path: str) -> tuple[str, Handle] | None:
        for prefix, suffix, route in self._patterns:
            if path.startswith(prefix) and path.endswith(suffix) and len(path) >= len(prefix) + len(suffix):
                return route
        return None


def segment_of(path: str, pattern: str) -> str:
    """What stands for the placeholder of `pattern` in a path that it matched; percent-decoded."""
    prefix, _, rest = pattern.partition("{")
    suffix = rest.partition("}")[2]
    return unquote(path[len(prefix) : len(path) - len(suffix)])


def then(
    source: asyncio.Future[T],
    render: Callable[[T], Response],
    fail: Callable[[FastserveError], Response] = error_response,
) -> asyncio.Future[Response]:
    """The future response to a future value; cancelling it cancels the value. No task is made."""
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def settle(done: asyncio.Future[T]) -> None:
        if answer.done() or done.cancelled():
            return
        try:
            answer.set_result(render(done.result()))
        except FastserveError as error:
            answer.set_result(fail(error))
        except Exception as error:
            answer.set_exception(error)

    source.add_done_callback(settle)
    answer.add_done_callback(lambda done: done.cancelled() and source.cancel())
    return answer
