"""An error answer -> the exception class of fastserve.errors, with the place and the hint the server gave."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from fastserve import errors
from fastserve.errors import FastserveError, OverloadedError, RequestError, ServerError

# The codes of fastserve/api/errors.py, the other way round. What stands in neither table goes by its status class.
_BY_CODE: Final[dict[str, type[FastserveError]]] = {
    "not_found": errors.UnknownObjectError,
    "invalid_entity": errors.InvalidEntityError,
    "invalid_data": errors.InvalidDataError,
    "too_large": errors.TooLargeError,
    "bad_request": RequestError,
    "schema_mismatch": errors.SchemaMismatchError,
    "overloaded": OverloadedError,
    "store_timeout": errors.StoreTimeoutError,
    "store_unavailable": errors.StoreUnavailableError,
    "corrupt_row": errors.CodecError,
}
_BY_STATUS: Final[dict[int, type[FastserveError]]] = {
    404: errors.UnknownObjectError,
    413: errors.TooLargeError,
    422: errors.InvalidDataError,
    429: OverloadedError,
}
_HINTS: Final = {
    401: "give a valid token: token=…",
    403: "this token may not do that; ask for one that may",
    502: "a proxy cannot reach the server",
    504: "a proxy waited too long for the server",
}


def error_of(status: int, headers: Mapping[str, str], body: bytes | bytearray) -> FastserveError:
    """The exception for an answer that is no success.

    Understood are fastserve's envelope ``{"error": {"code", "message", "where", "hint"}}`` and Feast's JSON string
    with ``{"module", "class", "message"}``; anything else, e.g. a proxy's page, goes by its status.
    """
    code, message, where, hint = _read(body)
    cls = (
        _BY_CODE.get(code) or _BY_STATUS.get(status) or (RequestError if 400 <= status < 500 else ServerError)
    )
    message = message or f"HTTP {status} without an explanation"
    hint = hint or _HINTS.get(status, "")
    if issubclass(cls, ServerError):
        return cls(message, where=where, hint=hint, status=status)
    if issubclass(cls, OverloadedError):
        return cls(message, where=where, hint=hint, retry_after_s=round(retry_after_s(headers)) or 1)
    return cls(message, where=where, hint=hint)


def _read(body: bytes | bytearray) -> tuple[str, str, str, str]:
    """(code, message, where, hint), '' for what is not there."""
    try:
        data: Any = orjson.loads(body)
        if isinstance(data, str) and data.startswith("{"):
            data = orjson.loads(data)
    except orjson.JSONDecodeError:
        text = bytes(body[:200]).decode("utf-8", "replace").strip()
        return "", "" if text.startswith("<") else text, "", ""
    if isinstance(data, dict):
        envelope = data.get("error")
        found = envelope if isinstance(envelope, dict) else data
        code, message, where, hint = (
            found[name] if isinstance(found.get(name), str) else ""
            for name in ("code", "message", "where", "hint")
        )
        if str(data.get("class", "")).endswith("NotFoundException"):  # Feast's, whatever its status is
            code = "not_found"
        if not message and isinstance(envelope or data.get("detail"), str):
            message = envelope or data["detail"]
        return code, message, where, hint
    return "", data if isinstance(data, str) else "", "", ""


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3: seconds or a date); 0 without one."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
