"""The contract of an HTTP/2 session without I/O. Twins: _ext/h2.pyx (libnghttp2) and h2_py.py (`h2`)."""

from __future__ import annotations

from typing import Protocol

from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from fastserve.http.message import Buffer, Request, Response
from fastserve.http.stats import Stats


class Owner(Protocol):
    """What a session calls. It never calls while libnghttp2 is on the stack, so submit() is allowed."""

    stats: Stats
    rejections: dict[int, Response]
    gate: Gate

    def on_request(self, stream_id: int, request: Request) -> Response | None:
        """A complete request; None means that `Session.submit` will follow."""

    def on_cancel(self, stream_id: int) -> None:
        """The stream of a request that was answered with None is gone."""

    def on_failure(self, error: Exception) -> Response:
        """A response could not be sent (no buffer, bad header): what to send instead."""


class Session(Protocol):
    """One HTTP/2 connection, server side: bytes in, requests out, responses in, bytes out.

    Attributes:
        in_flight: requests begun and not fully answered.
        pending_bytes: of answers not yet given out by `data_to_send`.
        buffered_body_bytes: of request bodies held.
        budget: tokens left for control frames.
        end_reason: why it ended (endings.py); "" while it goes on, or when the client ended it.
        terminated: the last GOAWAY is queued or sent, and input is ignored.
        closed: nothing is left to read or write; close the transport after the last output.
    """

    def __init__(self, owner: Owner, limits: Limits, now: float) -> None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def buffered_body_bytes(self) -> int: ...
    @property
    def budget(self) -> int: ...
    @property
    def terminated(self) -> bool: ...
    @property
    def end_reason(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def feed(self, data: Buffer, now: float) -> None:
        """Take received bytes, the client preface first; complete requests go to the owner."""

    def submit(self, stream_id: int, response: Response) -> None:
        """Answer a request that waits for it; nothing happens when it is gone or answered."""

    def data_to_send(self, max_bytes: int) -> bytes:
        """The next output: stops once `max_bytes` are reached (so up to a frame more); b"": none."""

    def expire(self, now: float) -> None:
        """Answer 408 where a body is overdue; end the connection when a head is."""

    def grant(self, tokens: int) -> None:
        """Give back tokens of the control frame budget for time passed."""

    def start_drain(self) -> None:
        """First GOAWAY (all stream ids still accepted) and a PING; its answer brings the last one."""

    def finish_drain(self) -> None:
        """Last GOAWAY: no new streams; `closed` becomes true when the open ones are done."""

    def terminate(self, error_code: int, reason: str = "") -> None:
        """GOAWAY with `error_code`; then nothing more is read, and answers are dropped."""

    def close(self) -> None:
        """The transport is gone: let go of the owner, the requests and the answers."""
