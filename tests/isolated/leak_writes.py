"""Writes: keys by round, rows into a batch, commands of it, replies whole, torn, wrong and of another connection."""

import numpy as np
import pyarrow as pa

from fastserve._native.batch import ReadBatch
from fastserve._native.key_set import KeySet
from fastserve._native.resp_write import (
    Replies,
    encode_command,
    encode_fresh,
    encode_publish,
    encode_script,
    rows_end,
)
from fastserve._native.row_encoder import RowEncoder
from fastserve.codec.layout import Layout
from fastserve.errors import CodecError, InvalidDataError
from fastserve.types import Array, Float32, Int64
from tests.isolated.meter import run

NATIVES = ("key_set", "resp_write")
N = 9
LAYOUT = Layout(1, ("a", "b"), (Int64, Array(Float32)))
COLUMNS = [pa.array([1, 2, None] * 3), pa.array([[1.5], None, []] * 3, pa.list_(pa.float32()))]
BROKEN = [COLUMNS[0], pa.array([[None]] * N, pa.list_(pa.float32()))]
ENCODER, STAMPS, PX = RowEncoder(LAYOUT), np.arange(N), np.arange(N)
KEPT = Replies()
STREAMS = [
    (0, b":9\r\n"),
    (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:0\r\n"),
    (2, b"+OK\r\n-OOM no room\r\n+QUEUED\r\n-EXECABORT\r\n"),
    (2, b"+OK\r\n-OOM no room\r\n+QUE"),
    (0, b"?\r\n"),
]


def once(i: int) -> None:
    seen = KeySet(4 + i % 9)
    batch = ReadBatch([b"7:%d" % n for n in range(N)])
    assert not seen.mark(batch).any()
    seen.next_round()
    assert seen.mark(batch).any()
    try:
        ENCODER.encode_into(batch, BROKEN if i % 5 == 0 else COLUMNS, STAMPS, STAMPS)
    except InvalidDataError:
        return
    px = PX if i % 2 else None
    assert rows_end(batch, 0, 5, 1 << 20) == 5
    assert encode_script((b"EVALSHA", b"x"), batch, 0, N, px, b"!") and encode_fresh(batch, 2, N, px, b"!")
    assert encode_command([b"MSET"], [batch, batch], rows=i % 2) and encode_publish(b"!", [batch])
    try:
        encode_command([b"MSET"], [ReadBatch([b"7:0"])], rows=True)
    except CodecError:
        pass
    try:
        encode_fresh(ReadBatch([b"7:0"]), 0, 1, None, b"!")
    except CodecError:
        pass
    replies(KEPT if i % 8 else Replies(), *STREAMS[i // 8 % len(STREAMS)])


def replies(reader: Replies, queued: int, data: bytes) -> None:
    for at in range(0, len(data), 7):
        piece = data[at : at + 7]
        reader.get_buffer(-1)[: len(piece)] = piece
        reader.buffer_updated(len(piece))
        try:
            reader.take(queued)
        except CodecError:
            break
    reader.clear()


if __name__ == "__main__":
    run(once)
