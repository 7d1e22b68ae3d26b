"""The contract of an HTTP/2 client session without I/O. Twins: _ext/h2_client.pyx (libnghttp2) and h2_py.py (`h2`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
HeaderPairs: TypeAlias = Sequence[tuple[bytes, bytes]]

TOO_LARGE: Final = -1
"""In place of an error code: the answer passed `max_answer_bytes`, and we gave it up."""
INITIAL_MAX_STREAMS: Final = 100
"""Assumed until the server's SETTINGS say what it takes (RFC 9113 6.5.2 recommends no less)."""
STREAM_WINDOW: Final = 4 * 1024 * 1024
CONNECTION_WINDOW: Final = 32 * 1024 * 1024
MAX_HEADER_BYTES: Final = 64 * 1024


class Owner(Protocol):
    """What a session calls, from `feed`, `data_to_send` and `cancel` only."""

    def on_answer(
        self, stream_id: int, status: int, headers: list[tuple[bytes, bytes]], body: Buffer
    ) -> None:
        """A complete answer."""

    def on_failed(self, stream_id: int, error_code: int, processed: bool) -> None:
        """No answer will come: a reset (its code), or TOO_LARGE.

        `processed` is False where the server promises that it did nothing: REFUSED_STREAM, or a GOAWAY that does not
        count the stream in. Such a request may be sent again whatever it does.
        """


class Session(Protocol):
    """One HTTP/2 connection, client side: requests in, bytes out, bytes in, answers out.

    Attributes:
        in_flight: requests without a complete answer.
        max_streams: how many the server takes at once.
        draining: the server said GOAWAY: no new requests; those in flight may still be answered.
        broken: the server broke the protocol, and `data_to_send` has said goodbye; nothing more will be read.
    """

    def __init__(self, owner: Owner, max_answer_bytes: int) -> None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def max_streams(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def broken(self) -> bool: ...
    def request(self, headers: HeaderPairs, body: bytes) -> int:
        """Begin a request, pseudo headers first; its stream id. RuntimeError when there are no ids left."""

    def cancel(self, stream_id: int) -> None:
        """RST_STREAM(CANCEL): nobody waits for the answer. Neither callback follows."""

    def ping(self) -> None:
        """Ask for a sign of life: some bytes will come back."""

    def feed(self, data: Buffer) -> None:
        """Take received bytes; complete answers and failures go to the owner before it returns."""

    def data_to_send(self, max_bytes: int) -> bytes:
        """The next output, about `max_bytes`; b"": none."""

    def close(self) -> None:
        """The transport is gone: let go of the owner and the requests. Neither callback follows."""
