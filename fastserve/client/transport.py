"""The one seam between a client and the network: a request out, a complete answer in."""

from __future__ import annotations

from typing import Protocol

from fastserve.client.wire import Answer
from fastserve.errors import ServerError


class Transport(Protocol):
    """Sends requests over connections that it keeps."""

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """The answer. Cancelling gives the request up, at the server too where the protocol can say so.

        Raises:
            UnreachableError: no connection, or it was lost; `sent` says whether the request may have arrived.
            ServerError: the answer is too large, or no HTTP.
        """

    async def close(self) -> None:
        """Close all connections; requests in flight fail."""


class NoHttp2Error(Exception):
    """The server chose HTTP/1.1 when TLS began."""


def too_large(max_bytes: int) -> ServerError:
    """An answer of more than `max_bytes`."""
    return ServerError(
        f"the answer is larger than {max_bytes:,} bytes",
        hint="ask for fewer entities or features at once, or raise max_answer_bytes",
    )
