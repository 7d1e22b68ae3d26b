"""Sockets of the attacks and of the good client beside them, cleartext or TLS with ALPN; blocking, no event loop."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from bench.attack_kinds import MOST, PREFACE, Fields

H2: Final = "h2"
H1: Final = "http/1.1"
WAIT_S: Final = 20.0
STEP: Final = 20  # pieces sent before it is looked whether the server has had enough


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    port: int
    tls: bool = False


def connect(address: Address, protocol: str = H2) -> socket.socket:
    """A connection, the handshake done.

    Raises:
        OSError: there is none to be had.
    """
    sock = socket.create_connection(("127.0.0.1", address.port), timeout=WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return sock
    wrapped = _context(protocol).wrap_socket(sock, server_hostname="localhost")
    assert wrapped.selected_alpn_protocol() == protocol
    return wrapped


@cache
def _context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


class GoodClient:
    """One HTTP/2 connection that asks one request again and again, one at a time.

    Args:
        fields: the request's head.
        body: the request's.
        answer: what every answer must be; b"" for whatever the first is.
    """

    def __init__(
        self,
        address: Address,
        fields: Fields,
        body: bytes = b"",
        answer: bytes = b"",
    ) -> None:
        self._sock = connect(address)
        self._encoder = Encoder()
        self._fields = list(fields)
        self._body = body
        self._wanted = answer
        self._stream_id = 1
        self._input = b""
        self._sock.sendall(PREFACE + SettingsFrame(0, {4: MOST}).serialize())
        self._sock.sendall(WindowUpdateFrame(0, window_increment=MOST - 65_535).serialize())

    def ask(self, fields: Fields = (), *, any_answer: bool = False) -> bytes:
        """One answer.

        Args:
            fields: another request's head.
            any_answer: it need not be the usual one.

        Raises:
            RuntimeError: another answer than it should be, or none.
        """
        flags = ["END_HEADERS"] if self._body else ["END_HEADERS", "END_STREAM"]
        data = HeadersFrame(
            self._stream_id, self._encoder.encode(fields or self._fields), flags=flags
        ).serialize()
        if self._body:
            data += DataFrame(self._stream_id, self._body, flags=["END_STREAM"]).serialize()
        self._sock.sendall(data)
        answer = self._answer()
        self._stream_id += 2
        if any_answer:
            return answer
        self._wanted = self._wanted or answer
        if answer != self._wanted:
            raise RuntimeError(f"another answer than the first: {answer[:200]!r}")
        return answer

    def _answer(self) -> bytes:
        body, done = b"", False
        while not done:
            kind, flags, stream_id, payload = self._frame()
            if kind == 4 and not flags & 1:
                self._sock.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
            if kind in (3, 7):
                raise RuntimeError(f"RST_STREAM or GOAWAY: {payload!r}")
            if stream_id == self._stream_id and kind in (0, 1):
                body += payload if kind == 0 else b""
                done = bool(flags & 1)
        return body

    def _frame(self) -> tuple[int, int, int, bytes]:
        while len(self._input) < 9 or len(self._input) < 9 + int.from_bytes(self._input[:3]):
            more = self._sock.recv(1 << 16)
            if not more:
                raise RuntimeError("the server has closed the connection of a good client")
            self._input += more
        head, size = self._input[:9], int.from_bytes(self._input[:3])
        payload, self._input = self._input[9 : 9 + size], self._input[9 + size :]
        return head[3], head[4], int.from_bytes(head[5:9]) & MOST, payload

    def close(self) -> None:
        """Leave."""
        self._sock.close()


class Attacker:
    """A connection that sends what it is told, and looks now and then whether it is still wanted.

    Attributes:
        pieces: frames, or chunks, or lines sent.
        output: all that the server said.
        ended: a GOAWAY with an error, or the end of the connection, has come.
    """

    def __init__(self, address: Address, protocol: str = H2) -> None:
        self._sock = connect(address, protocol)
        self._h2 = protocol == H2
        self.pieces = 0
        self.output = b""
        self.ended = False

    def send(self, data: bytes, pieces: int = 0) -> None:
        """Send, unless the server has gone."""
        try:
            self._sock.sendall(data)
        except (OSError, ssl.SSLError):
            self.ended = True
        self.pieces += pieces

    def look(self, wait_s: float = 0.0) -> bool:
        """Read what is there, or comes soon; whether the server has ended the connection."""
        while not self.ended and self._readable(wait_s):
            wait_s = 0.0
            try:
                self._sock.setblocking(False)
                more = self._sock.recv(1 << 16)
            except ssl.SSLWantReadError:  # no data of the server's, but TLS's own
                continue
            except (OSError, ssl.SSLError):
                more = b""
            finally:
                self._sock.settimeout(WAIT_S)
            self.output += more
            self.ended = not more or (self._h2 and self._goaway())
        return self.ended

    def _readable(self, wait_s: float) -> bool:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return bool(select.select([self._sock], [], [], wait_s)[0])

    def _goaway(self) -> bool:
        """Whether a GOAWAY with an error is among the whole frames of the output."""
        at = 0
        while at + 17 <= len(self.output):
            if self.output[at + 3] == 7 and self.output[at + 13 : at + 17] != bytes(4):
                return True
            at += 9 + int.from_bytes(self.output[at : at + 3])
        return False

    def flood(self, steps: Iterable[tuple[bytes, int]], good: GoodClient, most: int) -> int:
        """Send in step with the server until it ends the connection; the pieces that took.

        After some pieces the good client is served twice. The server has then read all that was sent before: it
        looks at every socket in turn. So nothing is in flight, and what was sent is what it took.

        Raises:
            RuntimeError: `most` pieces were sent and the server still listens.
        """
        settled = 0
        for data, n in steps:
            self.send(data, n)
            if self.pieces - settled >= STEP:
                settled = self.pieces
                if self.settle(good):
                    return self.pieces
            if self.pieces > most:
                break
        if self.settle(good) or self.look(1.0):
            return self.pieces
        raise RuntimeError(f"still open after {self.pieces}")

    def settle(self, good: GoodClient) -> bool:
        """Until the server has read all; whether it has ended the connection."""
        good.ask()
        good.ask()
        return self.look()

    def until_ended(self, drip: bytes, every_s: float, give_up_s: float) -> float:
        """Send a byte of `drip` now and then; seconds until the server ended it.

        Raises:
            RuntimeError: it has not.
        """
        begun, at = time.monotonic(), 0
        while time.monotonic() - begun < give_up_s:
            if self.look(every_s):
                return time.monotonic() - begun
            if drip:
                self.send(drip[at % len(drip) : at % len(drip) + 1])
                at += 1
        raise RuntimeError(f"still open after {give_up_s} s")

    def close(self) -> None:
        """Leave."""
        self._sock.close()
