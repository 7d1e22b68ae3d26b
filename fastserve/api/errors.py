"""Error class -> HTTP status and code; the one place that knows both."""

from __future__ import annotations

from typing import Final

import orjson

from fastserve import errors
from fastserve.http.message import Response

# The first class that matches decides, so subclasses stand before their bases.
_STATUS: Final[tuple[tuple[type[errors.FastserveError], int, str], ...]] = (
    (errors.UnknownObjectError, 404, "not_found"),
    (errors.InvalidEntityError, 422, "invalid_entity"),
    (errors.InvalidDataError, 422, "invalid_data"),
    (errors.TooLargeError, 413, "too_large"),
    (errors.SchemaMismatchError, 409, "schema_mismatch"),
    (errors.RequestError, 400, "bad_request"),
    (errors.OverloadedError, 429, "overloaded"),
    (errors.StoreTimeoutError, 503, "store_timeout"),
    (errors.StoreError, 503, "store_unavailable"),
    (errors.OfflineStoreError, 503, "offline_store_unavailable"),
    (errors.DefinitionError, 422, "invalid_definitions"),
    (errors.BreakingChangeError, 409, "breaking_change"),
    (errors.RegistryConflictError, 409, "conflict"),
    (errors.RegistryError, 503, "registry_unavailable"),
    (errors.AlreadyRunningError, 409, "already_running"),
    (errors.CodecError, 500, "corrupt_row"),
)


def status_of(error: errors.FastserveError) -> tuple[int, str]:
    """The HTTP status of an error, and its code in the envelope."""
    for cls, status, code in _STATUS:
        if isinstance(error, cls):
            return status, code
    return 500, "internal"


def headers_of(error: errors.FastserveError) -> tuple[tuple[bytes, bytes], ...]:
    """Headers that an error brings: when to come again after a 429."""
    if isinstance(error, errors.OverloadedError):
        return ((b"retry-after", b"%d" % error.retry_after_s),)
    return ()


def error_response(error: errors.FastserveError) -> Response:
    """The JSON answer ``{"error": {"code", "message", "where", "hint"}}`` with its status.

    An error that is several has them under ``problems`` too, each with where, message and fix.
    """
    status, code = status_of(error)
    response = json_error(
        status, code, error.message, where=error.where, hint=error.hint, headers=headers_of(error)
    )
    if isinstance(error, (errors.DefinitionError, errors.BreakingChangeError)):
        body = orjson.loads(response.body)
        body["error"]["problems"] = [
            {"where": one.where, "message": one.message, "fix": one.fix} for one in error.problems
        ]
        response.body = orjson.dumps(body)
    return response


def json_error(
    status: int,
    code: str,
    message: str,
    *,
    where: str = "",
    hint: str = "",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    """An answer in the error envelope."""
    body = {"error": {"code": code, "message": message, "where": where, "hint": hint}}
    return Response(status, "application/json", orjson.dumps(body), headers)
