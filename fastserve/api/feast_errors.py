"""Errors as Feast's feature server tells them, for the endpoints that speak its language.

The body is a JSON *string* that holds JSON: an object with `module`, `class` and `message`. Feast's client imports the
class from the module and calls it with the message alone, so only classes that take one argument are named.
"""

from __future__ import annotations

from typing import Final

import orjson

from fastserve import errors
from fastserve.api.errors import headers_of, status_of
from fastserve.http.message import Response

_MODULE: Final = "feast.errors"
_BASE: Final = "FeastError"
# The kind of object that UnknownObjectError.of names -> Feast's class and the status Feast gives it.
_UNKNOWN: Final[tuple[tuple[str, str, int], ...]] = (
    ("unknown feature view ", "FeatureViewNotFoundException", 404),
    ("unknown feature service ", "FeatureServiceNotFoundException", 404),
    ("unknown push source ", "PushSourceNotFoundException", 422),
    ("unknown entity ", "EntityNotFoundException", 404),
)


def feast_error(error: Exception) -> Response:
    """The answer to a failed request of a Feast client.

    Status: 404 for unknown objects (422 for a push source, as Feast has it), 422 for what does not fit, 413, 429
    with Retry-After, 503 for a store that does not answer. Only what is no error of fastserve is 500, and then the
    message says nothing of the inside.

    Args:
        error: what was raised; its message, place and hint make up the text.
    """
    if not isinstance(error, errors.FastserveError):
        return _answer(500, _BASE, "internal error", ())
    status, name = _kind(error)
    return _answer(status, name, str(error), headers_of(error))


def _kind(error: errors.FastserveError) -> tuple[int, str]:
    if isinstance(error, errors.UnknownObjectError):
        for start, name, status in _UNKNOWN:
            if error.message.startswith(start):
                return status, name
        return 404, "FeastObjectNotFoundException"
    if isinstance(
        error, errors.MaterializeError
    ):  # other writers of the offline table were faster, all the time
        return 503, _BASE
    status = status_of(error)[0]
    return (422 if status == 400 else status), _BASE


def _answer(status: int, name: str, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> Response:
    detail = orjson.dumps({"module": _MODULE, "class": name, "message": message}).decode()
    return Response(status, "application/json", orjson.dumps(detail), headers)
