"""The hot reads of Redis, without I/O: the readable twin of _ext/resp.pyx.

    fetch of a tick     [k1 k2]  [k2 k3]  [k4 … k250]          batches with unknown rows
    in flight           k1, k2, … -> who waits: (batch, row)   a key in flight is awaited, not asked again
    requests            MGET k1 … k100, MGET k101 … k200, …    made once, at the end of the tick
    replies             in the order of the MGETs; a batch's `done` is called with its last one; after a slice of
                        time the replies that are left wait for the loop's next turn, and it reads other sockets

A batch that was abandoned, or failed, is skipped when rows for it come; who waits for the same keys gets them. An
error the server answers to one MGET fails the batches that wait for its keys, and no others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import hiredis

from fastserve.batch.batch_py import CHANGED, UNKNOWN, ReadBatch
from fastserve.errors import CodecError, StoreError, StoreUnavailableError

MAX_KEYS: Final = 100  # of an MGET: with more, client and server take turns instead of overlapping
SLICE_US: Final = 1_800  # of a turn of the loop: readers make whole answers in it
SAME_TURN_US: Final = 100  # between two reads of one turn: libuv reads on while a read fills its buffer
_BUFFER_BYTES: Final = 128 * 1024

ErrorFactory: TypeAlias = Callable[[], StoreError]


@dataclass(slots=True)
class _Call:
    """One fetch: `unanswered` of its rows are to come; `settled`: done was called."""

    batch: ReadBatch
    done: Callable[[StoreError | None], None]
    unanswered: int = 0
    settled: bool = False

    @property
    def wanted(self) -> bool:
        return not self.settled and not self.batch.abandoned


@dataclass(slots=True)
class _Slot:
    """One key in flight."""

    key: bytes
    asked_us: int
    waiters: list[tuple[_Call, int]] = field(default_factory=list)
    changed: bool = False

    @property
    def wanted(self) -> bool:
        return any(call.wanted for call, _ in self.waiters)


class Fetcher:
    """See the module's docstring.

    Args:
        label: of the server, for messages.
        wake: called when keys are queued; then `requests` is to be called at the end of the tick, or later when
            there is a connection, or else `fail_all`.
        slice_us: no further reply is looked at after so long.
    """

    def __init__(self, label: str, wake: Callable[[], None], slice_us: int = SLICE_US) -> None:
        self._label = label
        self._wake = wake
        self._slice_ns = slice_us * 1_000
        self._over_ns = 0  # when this turn's slice is over
        self._left_at_ns = 0  # when the last bytes were done with
        self._woken = False
        self._closed: ErrorFactory | None = None
        self._queued: list[_Slot] = []
        self._sent: deque[tuple[float, list[_Slot]]] = deque()
        self._flights: dict[bytes, _Slot] = {}
        self._unsent: set[bytes] = set()
        self._reader = hiredis.Reader()
        self._buffer = bytearray(_BUFFER_BYTES)

    def fetch(self, batch: ReadBatch, done: Callable[[StoreError | None], None], now_us: int) -> bool:
        """See OnlineStore."""
        if self._closed is not None:
            raise self._closed()
        if not batch.missing:
            return True
        call = _Call(batch, done)
        for i, (key, state) in enumerate(zip(batch.keys(), batch.states(), strict=True)):
            if state == UNKNOWN:
                slot = self._flights.get(key)
                if slot is None:
                    slot = self._flights[key] = _Slot(key, now_us)
                    self._queued.append(slot)
                    self._unsent.add(key)
                slot.waiters.append((call, i))
                call.unanswered += 1
        if self._queued and not self._woken:
            self._wake()
            self._woken = True
        return False

    def forget(self, changed: ReadBatch) -> None:
        """These keys were written: those asked for before come flagged CHANGED, and later reads ask again."""
        for key in changed.keys():
            if key in self._flights and key not in self._unsent:
                self._flights.pop(key).changed = True

    def requests(self, now: float) -> bytes:
        """The MGETs of the keys that are queued, as RESP; they count as sent from here on.

        Args:
            now: the loop's time, for `waiting_since`.
        """
        queued, self._queued, self._woken = self._queued, [], False
        self._unsent.clear()
        wanted = [slot for slot in queued if slot.wanted]
        for slot in queued:
            if not slot.wanted:
                self._land(slot)
        commands = []
        for i in range(0, len(wanted), MAX_KEYS):
            slots = wanted[i : i + MAX_KEYS]
            self._sent.append((now, slots))
            command: tuple[Any, ...] = ("MGET", *(slot.key for slot in slots))
            commands.append(hiredis.pack_command(command))
        return b"".join(commands)

    @property
    def queued(self) -> int:
        """How many keys wait for the tick's end, or for a connection."""
        return len(self._queued)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest MGET without a reply was sent; None when nothing is on the way."""
        return self._sent[0][0] if self._sent else None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; see asyncio.BufferedProtocol."""
        return memoryview(self._buffer)

    def buffer_updated(self, size: int) -> bool:
        """Take the bytes; calls the `done` of who has all rows now.

        Returns:
            Whether time was up before they were: call it again in the loop's next turn, with 0.

        Raises:
            CodecError: they are no reply to what was asked. The connection is of no use any more: `fail_sent`.
        """
        now = time.monotonic_ns()
        if not size or now - self._left_at_ns > SAME_TURN_US * 1_000:
            self._over_ns = now + self._slice_ns
        self._reader.feed(bytes(self._buffer[:size]))
        try:
            return self._take_replies()
        finally:
            self._left_at_ns = time.monotonic_ns()

    def _take_replies(self) -> bool:
        """Those that are whole; whether time was up before."""
        while self._sent:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                raise CodecError(str(error)) from error
            if reply is False:
                return False
            self._take(reply)
            if self._sent and self._reader.has_data() and time.monotonic_ns() >= self._over_ns:
                return True
        if self._reader.has_data():
            raise CodecError("it answers what nobody asked")
        return False

    def fail_sent(self, make_error: ErrorFactory) -> None:
        """The connection is lost: who waits for its replies fails. What is queued stays so."""
        self._reader = hiredis.Reader()
        sent, self._sent = self._sent, deque()
        self._fail((slot for _, slots in sent for slot in slots), make_error)

    def fail_all(self, make_error: ErrorFactory) -> None:
        """There is no connection: all who wait fail."""
        queued, self._queued, self._woken = self._queued, [], False
        self._unsent.clear()
        sent, self._sent = self._sent, deque()
        self._reader = hiredis.Reader()
        self._fail([slot for _, slots in sent for slot in slots] + queued, make_error)

    def close(self, make_error: ErrorFactory) -> None:
        """All who wait fail, and so does every later fetch."""
        self._closed = make_error
        self.fail_all(make_error)

    def _take(self, reply: object) -> None:
        _, slots = self._sent[0]
        if isinstance(reply, hiredis.ReplyError):
            text = f"Redis at {self._label} answered: {reply}"
            self._sent.popleft()
            self._fail(slots, lambda: StoreUnavailableError(text))
            return
        if not isinstance(reply, list) or not all(row is None or isinstance(row, bytes) for row in reply):
            raise CodecError("no reply to MGET begins like this")
        if len(reply) != len(slots):
            raise CodecError(f"{len(reply)} rows for {len(slots)} keys")
        self._sent.popleft()
        ready: list[_Call] = []
        for slot, row in zip(slots, reply, strict=True):
            self._land(slot)
            for call, i in slot.waiters:
                call.unanswered -= 1
                if call.wanted:
                    call.batch.set(i, row, CHANGED if slot.changed else 0, slot.asked_us)
                    if not call.unanswered:
                        call.settled = True
                        ready.append(call)
        self._call(ready, None)

    def _fail(self, slots: Iterable[_Slot], make_error: ErrorFactory) -> None:
        failed: list[_Call] = []
        for slot in slots:
            self._land(slot)
            for call, _ in slot.waiters:
                if call.wanted:
                    call.settled = True
                    failed.append(call)
        self._call(failed, make_error)

    def _land(self, slot: _Slot) -> None:
        """The next read of the slot's key asks anew."""
        if self._flights.get(slot.key) is slot:
            del self._flights[slot.key]

    @staticmethod
    def _call(calls: Iterable[_Call], make_error: ErrorFactory | None) -> None:
        for call in calls:
            if call.batch.abandoned:
                continue
            try:
                call.done(None if make_error is None else make_error())
            except Exception as error:  # it must not raise; but if it does, the others must hear
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a reader of the online store raised", "exception": error}
                )
