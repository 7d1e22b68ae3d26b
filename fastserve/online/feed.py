"""The change feed of Redis: a subscription of its own connection, kept up for as long as the store is open.

    told(message)      each change message; what is on its way to a reader is flagged first
    listening(True)    the server has confirmed the subscription: from here on nothing is missed
    listening(False)   the connection is gone, or silent: a peer that vanished is noticed within 2 s

redis-py's own subscriber takes some 50 us a message; at thousands of writes a second that is a good part of the core
that serves. Here a message costs hiredis and two calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.backoff import ExponentialWithJitterBackoff

from fastserve.batch import ReadBatch
from fastserve.errors import CodecError, StoreError
from fastserve.online.fetcher import Fetcher
from fastserve.online.pump import Endpoint, attach, connect

log = logging.getLogger(__name__)

PING_S: Final = 0.4
SILENT_PINGS: Final = 3  # as many without a byte from the server, and the feed counts as lost
_BACKOFF: Final = ExponentialWithJitterBackoff(base=0.05, cap=2.0)


class ChangeFeed:
    """See the module's docstring.

    Args:
        endpoint: the server.
        channel: where writers publish what they changed.
        fetcher: whose keys in flight a message flags.
        told, listening: see OnlineStore.on_changes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channel: bytes,
        fetcher: Fetcher,
        told: Callable[[bytes], None],
        listening: Callable[[bool], None],
    ) -> None:
        self._endpoint = endpoint
        self._channel = channel
        self._fetcher = fetcher
        self._told = told
        self._listening = listening
        self._up = False
        self._confirmations = 0
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Unsubscribe; nobody is told anything any more."""
        self._up = False
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        """Subscribe, and again whenever that is lost, waiting longer the more often it fails."""
        failures = 0
        while True:
            try:
                reason = await self._subscribe()
            except StoreError as error:
                reason = error.message
            if self._confirmations:
                failures = self._confirmations = 0
            if not failures:
                log.warning("no change feed from Redis at %s: %s; trying again", self._endpoint.label, reason)
            failures += 1
            await asyncio.sleep(_BACKOFF.compute(min(failures, 16)))

    async def _subscribe(self) -> str:
        """One connection's life; why it ended."""
        transport = await connect(self._endpoint)
        subscriber = _Subscriber(self._channel, self._message, self._confirmed, self._lost)
        try:
            attach(transport, subscriber)
            return await subscriber.lost
        finally:
            subscriber.end("closed")

    def _confirmed(self) -> None:
        self._up = True
        self._confirmations += 1
        self._listening(True)
        log.info("following the changes of Redis at %s", self._endpoint.label)

    def _lost(self) -> None:
        if self._up:
            self._up = False
            self._listening(False)

    def _message(self, message: bytes) -> None:
        try:
            if self._fetcher.waiting_since is not None:
                self._fetcher.forget(ReadBatch.from_packed(message))
        finally:
            self._told(message)


class _Subscriber(asyncio.Protocol):
    """One connection's subscription; `lost` resolves with the reason when it is of no use any more."""

    def __init__(
        self,
        channel: bytes,
        message: Callable[[bytes], None],
        confirmed: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._channel = channel
        self._message = message
        self._confirmed = confirmed
        self._ended = ended
        self._reader = hiredis.Reader()
        self._silent = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(self._channel), self._channel))
        self._timer = self._loop.call_later(PING_S, self._ping)

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        try:
            self._reader.feed(data)
            while self._transport is not None and (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, CodecError) as error:
            # Nobody knows what a message says that cannot be read: what is on its way may have changed.
            self.end(f"what came cannot be read: {error}")

    def _take(self, reply: Any) -> None:
        kind = reply[0] if isinstance(reply, list) and reply else None
        if kind == b"message":
            self._message(reply[2])
        elif kind == b"subscribe":
            self._confirmed()
        elif kind != b"pong":
            self.end(f"it answered: {reply}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("it closed the connection")

    def end(self, reason: str) -> None:
        """Drop the connection, once."""
        transport, self._transport = self._transport, None
        if self._timer is not None:
            self._timer.cancel()
        if transport is not None:
            transport.abort()
        if not self.lost.done():
            self.lost.set_result(reason)
            self._ended()

    def _ping(self) -> None:
        # Counted in pings and not in seconds: when this process was held up, what has come is read before the next.
        if self._silent >= SILENT_PINGS:
            self.end(f"silent for {SILENT_PINGS * PING_S:g} s")
            return
        self._silent += 1
        assert self._transport is not None
        self._transport.write(b"*1\r\n$4\r\nPING\r\n")
        self._timer = self._loop.call_later(PING_S, self._ping)
