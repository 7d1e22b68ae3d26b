"""JSON answers, and errors in the envelope that both planes share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import orjson
from aiohttp import web

from fastserve.api.errors import error_response, json_error
from fastserve.control.requests import UnsupportedTypeError
from fastserve.errors import FastserveError
from fastserve.http.message import Response

log = logging.getLogger(__name__)
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """A JSON document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=named
    )


@web.middleware
async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of ours, of aiohttp and of nobody's, in one shape; none shows a traceback."""
    try:
        return await handler(request)
    except UnsupportedTypeError as error:
        answer = json_error(415, "unsupported_type", error.message, where=error.where, hint=error.hint)
    except FastserveError as error:
        answer = error_response(error)
    except web.HTTPException as error:
        return _of_aiohttp(request, error)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        answer = json_error(500, "internal", "internal error", hint="the server's log has the cause")
    return _answer(answer)


def _answer(found: Response) -> web.Response:
    headers = {name.decode(): value.decode() for name, value in found.headers}
    return web.Response(
        body=bytes(found.body),
        status=found.status,
        content_type=found.content_type.decode(),
        headers=headers,
    )


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = _answer(
            json_error(
                405,
                "method_not_allowed",
                f"{request.method[:20]} is not for {request.path[:200]}",
                hint=f"use {allowed}",
            )
        )
        answer.headers["Allow"] = allowed
        return answer
    codes = {404: "not_found", 413: "too_large"}
    texts = {404: f"no such path {request.path[:200]!r}", 413: "the body is larger than 4 MiB"}
    hint = "GET /openapi.json lists the paths" if error.status == 404 else ""
    code, message = codes.get(error.status, "bad_request"), texts.get(error.status, error.reason)
    return _answer(json_error(error.status, code, message, hint=hint))
