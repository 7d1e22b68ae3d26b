"""The peer of bench.front_end: an RSGI application that answers ready bytes; `granian bench.granian_app:app`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_BODY = Path(os.environ.get("BENCH_BODY", os.devnull)).read_bytes()
_HEADERS = [("content-type", "application/octet-stream")]


async def app(scope: Any, protocol: Any) -> None:
    """Read the request, answer."""
    await protocol()
    protocol.response_bytes(200, _HEADERS, _BODY)
