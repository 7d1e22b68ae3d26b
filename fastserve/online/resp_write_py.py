"""The bytes of Redis writes and what their replies come to: the readable twin of _ext/resp_write.pyx.

    script        EVALSHA sha n | key … | row … | channel | message | px …       newest wins; px only where rows expire
    fresh         MULTI | MSETNX key row … | PUBLISH channel message | EXEC       all of them, if none is there yet
    fresh, px     MULTI | SET key row NX [PX px] | … | PUBLISH … | EXEC           each of them that is not there yet

The message is what changes.py says, of all the command's keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import hiredis
import numpy as np
import numpy.typing as npt

from fastserve.batch.batch_py import ReadBatch
from fastserve.errors import CodecError
from fastserve.online.changes import pack_keys

MAX_LINE: Final = 4096
_BUFFER_BYTES: Final = 64 * 1024

Milliseconds: TypeAlias = npt.NDArray[np.int64] | None


def rows_end(batch: ReadBatch, start: int, max_keys: int, max_bytes: int) -> int:
    """Where the command that begins with row `start` ends: after max_keys rows, or before it exceeds max_bytes."""
    size, end = 0, start
    for row in batch.rows(start, start + max_keys):
        assert row is not None
        size += len(row)
        if end > start and size > max_bytes:
            break
        end += 1
    return end


def encode_script(
    head: Sequence[bytes], batch: ReadBatch, start: int, stop: int, px: Milliseconds, channel: bytes
) -> bytes:
    """One run of the newest-wins script over a range of rows.

    Args:
        head: ``EVALSHA`` and the sum, or ``EVAL`` and the script.
        batch: keys with their rows.
        px: int64[len(batch)], how long each row lives, 0 for ever; None where all of them do.
    """
    keys = batch.keys(start, stop)
    command: tuple[Any, ...] = (*head, len(keys), *keys, *batch.rows(start, stop), channel, pack_keys(keys))
    if px is not None:
        command = (*command, *px[start:stop].tolist())
    data: bytes = hiredis.pack_command(command)
    return data


def encode_fresh(batch: ReadBatch, start: int, stop: int, px: Milliseconds, channel: bytes) -> bytes:
    """The transaction that writes the rows whose keys are not there; see the module's docstring."""
    keys, rows = batch.keys(start, stop), batch.rows(start, stop)
    commands: list[tuple[Any, ...]] = [("MULTI",)]
    if px is None:
        commands.append(("MSETNX", *(part for pair in zip(keys, rows, strict=True) for part in pair)))
    else:
        for key, row, life in zip(keys, rows, px[start:stop].tolist(), strict=True):
            commands.append(("SET", key, row, "NX", *(("PX", life) if life else ())))
    commands += [("PUBLISH", channel, pack_keys(keys)), ("EXEC",)]
    return b"".join(map(hiredis.pack_command, commands))


def encode_command(words: Sequence[bytes], batches: Sequence[ReadBatch], *, rows: bool) -> bytes:
    """A command of these words, and of the keys of batches; each with its row, if that is asked for.

    Raises:
        CodecError: a row is not there.
    """
    command: list[Any] = list(words)
    for batch in batches:
        if not rows:
            command += batch.keys()
            continue
        for i, (key, row) in enumerate(zip(batch.keys(), batch.rows(), strict=True)):
            if row is None:
                raise CodecError(f"row {i} is not there")
            command += (key, row)
    packed: Any = tuple(command)
    data: bytes = hiredis.pack_command(packed)
    return data


def encode_publish(channel: bytes, batches: Sequence[ReadBatch]) -> bytes:
    """PUBLISH of the change message of the keys of batches."""
    keys = [key for batch in batches for key in batch.keys()]
    command: Any = ("PUBLISH", channel, pack_keys(keys))
    data: bytes = hiredis.pack_command(command)
    return data


class Replies:
    """Replies as they arrive, one command's after the other's. None is larger than a line, or an array of lines."""

    def __init__(self) -> None:
        self._data = b""  # the lines that have come
        self._buffer = bytearray(_BUFFER_BYTES)
        self._lines: list[bytes] = []  # of the command that is being answered

    @property
    def rest(self) -> int:
        """Bytes that came and were not taken."""
        return len(self._data)

    def clear(self) -> None:
        """Another connection: nothing has come."""
        self._data, self._lines = b"", []

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return memoryview(self._buffer)

    def buffer_updated(self, size: int) -> None:
        """Take the bytes."""
        self._data += self._buffer[:size]

    def take(self, queued: int) -> int | str | None:
        """The next command's outcome; None while it is not whole.

        Args:
            queued: 0 for a script; else how many commands its transaction has, PUBLISH included.

        Returns:
            The script's number, or how many rows the transaction set (MSETNX counts as one); the error's text.

        Raises:
            CodecError: these are no such replies; the connection is of no use any more.
        """
        lines = self._lines
        while len(lines) < (2 * queued + 2 if queued else 1):
            line = self._line()
            if line is None:
                return None
            lines.append(line)
            if len(lines) == queued + 2 and line[:1] == b"-":
                break  # EXEC was refused: there are no elements
        self._lines = []
        return _script(lines[0]) if not queued else _transaction(lines, queued)

    def _line(self) -> bytes | None:
        line, found, rest = self._data.partition(b"\r\n")
        if len(line) > MAX_LINE:
            raise CodecError("a line has no end")
        if not found:
            return None
        self._data = rest
        if line[:1] not in (b"+", b"-", b":", b"$", b"*"):
            raise CodecError("no reply begins like this")
        return line


def _script(line: bytes) -> int | str:
    if line[:1] == b"-":
        return line[1:].decode("utf-8", "replace")
    if line[:1] != b":":
        raise CodecError("no reply to a script begins like this")
    return _number(line)


def _transaction(lines: Sequence[bytes], queued: int) -> int | str:
    """Lines: one for MULTI, one for each queued command, EXEC's head, its elements."""
    for line in lines:
        if line[:1] == b"-":
            return line[1:].decode("utf-8", "replace")
    if any(line[:1] != b"+" for line in lines[: queued + 1]) or lines[queued + 1] != b"*%d" % queued:
        raise CodecError("no reply to a transaction begins like this")
    done = 0
    for line in lines[queued + 2 : -1]:
        if line[:1] == b"+":
            done += 1
        elif line[:1] == b":":
            done += _number(line)
        elif line != b"$-1":
            raise CodecError("a transaction's element is none of ours")
    return done


def _number(line: bytes) -> int:
    if not line[1:].isdigit() or len(line) > 11:
        raise CodecError("no number follows the colon")
    return int(line[1:])
