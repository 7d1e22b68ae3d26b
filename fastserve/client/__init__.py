"""The client: features over HTTP/2 or HTTP/1.1, for asyncio (`AsyncClient`) and for everybody else (`Client`).

    with Client("http://127.0.0.1:6566") as client:
        features = client.get_online_features(service="ranking", entities={"user_id": [1, 2]})

It needs no server code: fastserve.errors, types and timeutil, orjson, and one of h2, libnghttp2, aiohttp. What an
answer is turned into (numpy, Arrow, pandas, polars) is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastserve.client.aio import AsyncClient
    from fastserve.client.features import FeatureRow, Features
    from fastserve.client.options import Options, Retry
    from fastserve.client.sync import Client
    from fastserve.client.tensor import Tensor
    from fastserve.client.wire import Health

__all__ = ["AsyncClient", "Client", "FeatureRow", "Features", "Health", "Options", "Retry", "Tensor"]

_HOME = {
    "AsyncClient": "aio",
    "Client": "sync",
    "FeatureRow": "features",
    "Features": "features",
    "Health": "wire",
    "Options": "options",
    "Retry": "options",
    "Tensor": "tensor",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _HOME:
        return getattr(import_module(f"fastserve.client.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fastserve.client' has no attribute {name!r}")
