"""HTTP/1.1 on aiohttp."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from fastserve.client.options import Endpoint, Options
from fastserve.client.transport import too_large
from fastserve.client.wire import Answer
from fastserve.errors import ServerError, UnreachableError

READ_BYTES = 1 << 18


class H1Transport:
    """aiohttp's connection pool; see transport.py.

    Args:
        endpoint: where the server is.
        options: TLS files and limits.

    Raises:
        ConfigError: the TLS files cannot be loaded.
    """

    def __init__(self, endpoint: Endpoint, options: Options) -> None:
        self._endpoint = endpoint
        self._max_answer = options.max_answer_bytes
        tls = options.ssl_context("http/1.1") if endpoint.tls else True
        # Calls take turns in their order. aiohttp's own limit gives a connection that comes free to whoever asks next,
        # so that under load a call that waits may wait for ever.
        self._turns = asyncio.Semaphore(options.max_connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=options.max_connections, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
        )

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One request, one answer."""
        url = URL(f"{self._endpoint}{path}", encoded=True)
        where = str(self._endpoint)
        try:
            async with (
                self._turns,
                self._session.request(
                    method, url, headers=headers, data=body or None, allow_redirects=False
                ) as response,
            ):
                data = bytearray()
                async for chunk in response.content.iter_chunked(READ_BYTES):
                    data += chunk
                    if len(data) > self._max_answer:
                        response.close()
                        raise too_large(self._max_answer)
                return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, data)
        except aiohttp.ClientConnectorError as error:
            hint = "is the server running there?"
            raise UnreachableError(f"cannot connect: {error}", where=where, hint=hint) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError) as error:
            message = f"the connection was lost: {error or type(error).__name__}"
            raise UnreachableError(message, where=where, sent=True) from error
        except aiohttp.ClientError as error:
            raise ServerError(f"the answer is no HTTP/1.1: {error}", where=where) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
