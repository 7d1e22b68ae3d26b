"""Waking up on time: event loops round to milliseconds, which a load test would count as the server's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """One Linux timerfd on the running event loop, exact to some 50 µs. Close it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(self._fd, self._rang)

    async def until(self, at_ns: int) -> None:
        """Return at a time of time.monotonic_ns(), or at once when it is over. One wait at a time."""
        if at_ns <= time.monotonic_ns():
            return
        self._waiter = self._loop.create_future()
        spec = struct.pack("4q", 0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        if _libc.timerfd_settime(self._fd, _ABSOLUTE, spec, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await self._waiter

    def close(self) -> None:
        """Let go of the timer."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
