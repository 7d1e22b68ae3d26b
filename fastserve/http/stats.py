"""Plain counters of one server, for whoever renders metrics. One event loop writes them: no lock."""

from __future__ import annotations

from fastserve.http.endings import Endings


class Stats:
    """Counts since the server was made.

    Attributes:
        connections: accepted, ever.
        open_connections: now.
        requests: handed to the handler.
        bytes_in, bytes_out: on the transport, after TLS is taken off.
        protocol_errors: malformed requests, and HTTP/2 connections ended for a violation or abuse.
        cancelled: awaitables cancelled because the client went away.
        rejected: requests and connections turned away by a limit or a time-out.
        handler_errors: handlers that raised.
        endings: connections that the server ended, by reason.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "cancelled",
        "connections",
        "endings",
        "handler_errors",
        "open_connections",
        "protocol_errors",
        "rejected",
        "requests",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.protocol_errors = 0
        self.cancelled = 0
        self.rejected = 0
        self.handler_errors = 0
        self.endings = Endings()

    def as_dict(self) -> dict[str, int]:
        """Name -> count."""
        counts = {name: getattr(self, name) for name in self.__slots__ if name != "endings"}
        return counts | {f"ended_{reason}": n for reason, n in self.endings.counts.items()}
