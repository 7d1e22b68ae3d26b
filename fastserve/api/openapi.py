"""The data plane's OpenAPI document, served as it is checked in."""

from __future__ import annotations

from pathlib import Path

from fastserve.api.router import Routes
from fastserve.http.message import Request, Response

DOCUMENT = Path(__file__).with_name("openapi.json")


def openapi_routes() -> Routes:
    """The route that serves it; it is read once, now."""
    answer = DOCUMENT.read_bytes()

    def serve(request: Request) -> Response:
        return Response(200, "application/json", answer)

    return {"/openapi.json": ("GET", serve)}
