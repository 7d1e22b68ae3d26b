"""HTTP/2 where the server offers it when TLS begins, HTTP/1.1 where it does not."""

from __future__ import annotations

from collections.abc import Callable

from fastserve.client.transport import NoHttp2Error, Transport
from fastserve.client.wire import Answer


class Negotiated:
    """A transport that begins with HTTP/2 and changes, once, to HTTP/1.1 when the server has no HTTP/2.

    Args:
        http2: tried first; raises NoHttp2Error before anything is sent.
        make_http1: what to take then.
    """

    def __init__(self, http2: Transport, make_http1: Callable[[], Transport]) -> None:
        self._http2 = http2
        self._http1: Transport | None = None
        self._make_http1 = make_http1

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One request, one answer."""
        if self._http1 is None:
            try:
                return await self._http2.send(method, path, headers, body)
            except NoHttp2Error:
                pass
        if self._http1 is None:  # of many that find out, one makes it
            self._http1 = self._make_http1()
        return await self._http1.send(method, path, headers, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._http2.close()
        if self._http1 is not None:
            await self._http1.close()
