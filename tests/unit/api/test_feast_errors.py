"""Feast's error body: a JSON string with JSON in it, and honest statuses."""

from __future__ import annotations

import json

import pytest

from fastserve import errors
from fastserve.api.errors import error_response
from fastserve.api.feast_errors import feast_error

NOT_FOUND = errors.UnknownObjectError


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (NOT_FOUND.of("feature view", "a", ["b"]), 404, "FeatureViewNotFoundException"),
        (NOT_FOUND.of("feature service", "a", ["b"]), 404, "FeatureServiceNotFoundException"),
        (NOT_FOUND.of("push source", "a", ["b"]), 422, "PushSourceNotFoundException"),
        (NOT_FOUND.of("entity", "a", ["b"]), 404, "EntityNotFoundException"),
        (NOT_FOUND.of("feature of view 'v'", "a", ["b"]), 404, "FeastObjectNotFoundException"),
        (errors.RequestError("no"), 422, "FeastError"),
        (errors.InvalidDataError("no"), 422, "FeastError"),
        (errors.InvalidEntityError("no"), 422, "FeastError"),
        (errors.TooLargeError("no"), 413, "FeastError"),
        (errors.OverloadedError("no"), 429, "FeastError"),
        (errors.StoreUnavailableError("no"), 503, "FeastError"),
        (errors.StoreTimeoutError("no"), 503, "FeastError"),
        (errors.OfflineStoreError("no"), 503, "FeastError"),
        (errors.MaterializeError("no"), 503, "FeastError"),
        (errors.CodecError("no"), 500, "FeastError"),
    ],
)
def test_class_and_status(error: errors.FastserveError, status: int, name: str) -> None:
    answer = feast_error(error)
    assert (answer.status, answer.content_type) == (status, b"application/json")
    inner = json.loads(bytes(answer.body))
    assert isinstance(inner, str), "Feast's client parses the body twice"
    assert json.loads(inner) == {"module": "feast.errors", "class": name, "message": str(error)}


def test_place_and_hint_are_in_the_message() -> None:
    answer = feast_error(errors.InvalidDataError("is null", where="column 'a', row 3", hint="leave it out"))
    message = json.loads(json.loads(bytes(answer.body)))["message"]
    assert message == "column 'a', row 3: is null\n  hint: leave it out"


def test_an_error_of_ours_tells_nothing_of_the_inside() -> None:
    answer = feast_error(KeyError("secret"))
    assert answer.status == 500 and b"secret" not in bytes(answer.body)


def test_overload_says_when_to_come_again_in_both_tongues() -> None:
    error = errors.OverloadedError("busy", retry_after_s=3)
    for answer in (feast_error(error), error_response(error)):
        assert answer.status == 429
        assert (b"retry-after", b"3") in answer.headers
