"""Replies of Redis to writes: [size of a chunk, what was sent, …] and, after a 255, the stream.

What was sent: 0 for a script, n for a transaction of n commands. Whole or in chunks, and in the twin, the outcomes
must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastserve._native.resp_write import Replies
from fastserve.errors import CodecError
from fastserve.online.resp_write_py import Replies as PyReplies

MOST = 20  # commands of a transaction


def replies(data: bytes) -> None:
    """See the module."""
    head, _, stream = data.partition(b"\xff")
    if len(head) < 2:
        return
    sent = [n % MOST for n in head[1:]]
    whole = outcomes(Replies(), sent, stream, len(stream) or 1)
    torn = outcomes(Replies(), sent, stream, 1 + head[0] % 48 + len(stream) // 16)
    twin = outcomes(PyReplies(), sent, stream, len(stream) or 1)
    assert whole == torn, f"{whole} in one piece, {torn} in chunks"
    assert whole == twin, f"{whole}, the twin {twin}"


def outcomes(reader: Any, sent: list[int], stream: bytes, chunk: int) -> list[object]:
    """What came of each command, up to the one that is not whole or broken."""
    found: list[object] = []
    for at in range(0, len(stream), chunk):
        feed(reader, stream[at : at + chunk])
        while len(found) < len(sent):
            try:
                outcome = reader.take(sent[len(found)])
            except CodecError:
                return [*found, "broken"]
            if outcome is None:
                break
            found.append(outcome)
    return found


def feed(reader: Any, data: bytes) -> None:
    while data:
        buffer = reader.get_buffer(-1)
        size = min(len(buffer), len(data))
        if not size:
            return
        buffer[:size] = data[:size]
        reader.buffer_updated(size)
        data = data[size:]


def talks() -> Iterator[bytes]:
    """To begin with."""
    for head, stream in (
        (b"\1\0", b":100\r\n"),
        (b"\1\0\0", b"-NOSCRIPT no\r\n:7\r\n"),
        (b"\3\2\0", b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:0\r\n:1\r\n"),
        (b"\3\4", b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n+OK\r\n$-1\r\n+OK\r\n:0\r\n"),
        (b"\5\2\2", b"+OK\r\n-OOM x\r\n+QUEUED\r\n-EXECABORT y\r\n-NOPERM\r\n:1\r\n:0\r\n-ERR EXEC\r\n"),
    ):
        yield head + b"\xff" + stream
