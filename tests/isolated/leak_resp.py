"""Reads of Redis without Redis: replies, errors, what is no reply, readers that gave up, lost connections."""

from fastserve._native.batch import ReadBatch
from fastserve._native.resp import Fetcher
from fastserve.errors import CodecError, StoreError, StoreUnavailableError
from tests.isolated.meter import run

NATIVES = ("resp",)
KEYS = [b"7:%d" % i for i in range(6)]
ROWS = b"".join(b"$40\r\n%b\r\n" % bytes(40) if i % 2 else b"$-1\r\n" for i in range(5))
TOLD: list[StoreError | None] = []


def lost() -> StoreError:
    return StoreUnavailableError("lost")


def ignored() -> None:
    pass


def feed(fetcher: Fetcher, data: bytes) -> None:
    for at in range(0, len(data), 100):
        piece = data[at : at + 100]
        fetcher.get_buffer(-1)[: len(piece)] = piece
        more = fetcher.buffer_updated(len(piece))
        while more:
            more = fetcher.buffer_updated(0)


KEPT = Fetcher("here", ignored)
REPLIES = [b"*6\r\n$200\r\n%b\r\n" % bytes(200) + ROWS, b"-ERR no\r\n", b"*6\r\n:1\r\n", b"*6\r\n$-1\r\n$9"]


def once(i: int) -> None:
    fetcher = KEPT if i % 8 else Fetcher("here", ignored)
    TOLD.clear()
    first, second = ReadBatch(KEYS), ReadBatch(KEYS[2:])
    fetcher.fetch(first, TOLD.append, i)
    fetcher.fetch(second, TOLD.append, i)
    fetcher.requests(1.0)
    if i % 5 == 0:
        first.abandon()
    if i % 7 == 0:
        fetcher.forget(second)
    kind = i // 8 % 4
    try:
        feed(fetcher, REPLIES[kind])
    except CodecError:
        assert kind == 2
    if kind > 1:
        fetcher.fail_sent(lost) if fetcher is KEPT else fetcher.close(lost)
    elif i % 8 == 0:
        fetcher.fetch(ReadBatch([b"in flight when it goes"]), TOLD.append, i)
    assert len(TOLD) == (1 if i % 5 == 0 else 2), (i, TOLD)


if __name__ == "__main__":
    run(once)
