"""The Writer without a server: which commands, how many at a time, who is told what."""

from __future__ import annotations

from dataclasses import dataclass, field

import hiredis
import numpy as np
import pytest

from fastserve.batch import ReadBatch
from fastserve.errors import CodecError, StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.online.writer import ASK_EVERY, FRESH_FROM, FRESH_KEYS, MAX_BYTES, SCRIPT_KEYS, WINDOW, Writer

FRESH_OK = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:0\r\n"
FRESH_NO = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n:0\r\n"


@dataclass
class Write:
    """One write and what came of it."""

    told: list[tuple[StoreError | None, int]] = field(default_factory=list)

    def done(self, error: StoreError | None, written: int) -> None:
        self.told.append((error, written))


class Peer:
    """A writer, and the server it talks to."""

    def __init__(self) -> None:
        self.woken = 0
        self.writer = Writer("here", b"!there", self._wake)
        self._reader = hiredis.Reader()

    def _wake(self) -> None:
        self.woken += 1

    def write(self, n: int, size: int = 100, prefix: str = "7", px: bool = False) -> Write:
        batch, made = ReadBatch([f"{prefix}:{i}".encode() for i in range(n)]), Write()
        batch.fill([bytes(size)] * n, 0)
        self.writer.write(batch, np.ones(n, np.int64) if px else None, made.done)
        return made

    def asked(self, now: float = 1.0) -> list[tuple[str, int]]:
        """Flush: each command as (name, keys); a transaction is its first one of writing."""
        self._reader.feed(self.writer.requests(now))
        found: list[tuple[str, int]] = []
        while (command := self._reader.gets()) is not False:
            name = command[0].decode()
            if name == "MSETNX":
                found.append((name, len(command) // 2))
            elif name in ("EVALSHA", "EVAL"):
                found.append((name, int(command[2])))
        return found

    def answer(self, data: bytes) -> None:
        buffer = self.writer.get_buffer(-1)
        buffer[: len(data)] = data
        self.writer.buffer_updated(len(data))


def test_a_small_batch_goes_through_the_script_100_keys_a_run() -> None:
    peer = Peer()
    write = peer.write(250)
    assert peer.woken == 1 and peer.writer.queued == 1
    assert peer.asked() == [("EVALSHA", 100), ("EVALSHA", 100), ("EVALSHA", 50)] and peer.writer.queued == 0
    peer.answer(b":100\r\n:7\r\n")
    assert write.told == []
    peer.answer(b":50\r\n")
    assert write.told == [(None, 157)] and peer.writer.waiting_since is None


def test_no_more_than_a_window_is_on_the_way() -> None:
    peer = Peer()
    write = peer.write(999, size=2_000)
    sent = len(peer.asked())
    assert sent == 1 + WINDOW // (SCRIPT_KEYS * 2_040) and peer.asked() == []
    peer.answer(b":1\r\n" * (sent - 1))
    assert peer.woken == 2, "it asks to be sent for when there is room"
    left = 1
    while left:
        left += len(peer.asked())
        assert left <= sent
        peer.answer(b":1\r\n")
        left -= 1
    assert write.told == [(None, 10)] and peer.asked() == []


def test_a_run_is_bounded_in_bytes_and_a_row_may_be_larger() -> None:
    peer = Peer()
    peer.write(3, size=MAX_BYTES // 2)
    assert [peer.asked(), peer.answer(b":2\r\n"), peer.asked()] == [[("EVALSHA", 2)], None, [("EVALSHA", 1)]]
    peer.answer(b":1\r\n")
    peer.write(1, size=2 * MAX_BYTES)
    assert peer.asked() == [("EVALSHA", 1)]


def test_an_unknown_script_is_sent_along() -> None:
    peer = Peer()
    write = peer.write(150)
    peer.asked()
    peer.answer(b"-NOSCRIPT unknown\r\n:50\r\n")
    assert peer.asked() == [("EVAL", 100)] and write.told == []
    peer.answer(b":100\r\n")
    assert write.told == [(None, 150)]


def test_what_is_fresh_shows_by_asking() -> None:
    peer = Peer()
    first = peer.write(FRESH_FROM)
    assert peer.asked() == [("MSETNX", FRESH_KEYS), *[("EVALSHA", SCRIPT_KEYS)] * 8]
    peer.answer(FRESH_OK + b":100\r\n" * 8)
    assert first.told == [(None, FRESH_FROM)]
    peer.write(FRESH_FROM)
    assert peer.asked() == [("MSETNX", FRESH_KEYS)] * 5
    peer.answer(FRESH_OK * 5)
    small = peer.write(FRESH_FROM - 1)
    assert {name for name, _ in peer.asked()} == {"EVALSHA"}
    peer.answer(b":0\r\n" * 10)
    assert small.told == [(None, 0)]


def test_rows_in_the_way_are_sent_again_through_the_script() -> None:
    peer = Peer()
    write = peer.write(FRESH_FROM)
    peer.asked()
    peer.answer(FRESH_NO + b":100\r\n" * 8)
    assert write.told == [] and peer.asked() == [("EVALSHA", 100), ("EVALSHA", 100)]
    peer.answer(b":1\r\n:2\r\n")
    assert write.told == [(None, 803)]
    asked = []
    while len(asked) <= ASK_EVERY:
        peer.write(FRESH_FROM)
        sent = peer.asked()
        asked += [name for name, _ in sent]
        peer.answer(b"".join(FRESH_OK if name == "MSETNX" else b":0\r\n" for name, _ in sent))
    assert asked.index("MSETNX") == ASK_EVERY


def test_of_rows_that_expire_only_those_in_the_way_count_again() -> None:
    peer = Peer()
    write = peer.write(FRESH_FROM, px=True)
    assert len(peer.asked()) == 8
    elements = b"+OK\r\n" * 150 + b"$-1\r\n" * 50
    peer.answer(b"+OK\r\n" + b"+QUEUED\r\n" * 201 + b"*201\r\n" + elements + b":0\r\n" + b":0\r\n" * 8)
    assert peer.asked() == [("EVALSHA", 100)] * 2
    peer.answer(b":0\r\n:9\r\n")
    assert write.told == [(None, 159)]


def test_a_refused_transaction_is_the_scripts_to_tell() -> None:
    peer = Peer()
    write = peer.write(FRESH_FROM)
    peer.asked()
    peer.answer(b"+OK\r\n-OOM no room\r\n+QUEUED\r\n-EXECABORT\r\n" + b":100\r\n" * 8)
    peer.asked()
    peer.answer(b"-OOM no room\r\n-OOM no room\r\n")
    [(error, _)] = write.told
    assert isinstance(error, StoreUnavailableError) and "OOM no room" in error.message


def test_an_error_fails_one_batch_and_its_rest_is_not_sent() -> None:
    peer = Peer()
    bad, good = peer.write(500, size=20_000, prefix="bad"), peer.write(10)
    sent = peer.asked()
    peer.answer(b"-READONLY it is a replica\r\n" + b":1\r\n" * (len(sent) - 1))
    [(error, _)] = bad.told
    assert isinstance(error, StoreUnavailableError) and "READONLY" in error.message
    assert peer.asked() == [("EVALSHA", 10)]
    peer.answer(b":10\r\n")
    assert good.told == [(None, 10)]


def test_a_lost_connection_fails_what_was_on_its_way_only() -> None:
    peer = Peer()
    sent = peer.write(500, size=20_000)
    queued = peer.write(10)
    peer.asked()
    peer.writer.fail_sent(lambda: StoreTimeoutError("late"))
    assert [type(error) for error, _ in sent.told] == [StoreTimeoutError] and queued.told == []
    assert peer.asked() == [("EVALSHA", 10)] and peer.writer.waiting_since == 1.0
    peer.writer.fail_all(lambda: StoreUnavailableError("gone"))
    assert [type(error) for error, _ in queued.told] == [StoreUnavailableError]
    peer.writer.close(lambda: StoreUnavailableError("closed"))
    with pytest.raises(StoreUnavailableError, match="closed"):
        peer.write(1)


def test_while_replies_come_the_server_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer()
    monkeypatch.setattr("fastserve.online.writer.time.monotonic", lambda: 5.0)
    peer.write(250)
    peer.asked(now=1.0)
    assert peer.writer.waiting_since == 1.0
    peer.answer(b":100\r\n")
    assert peer.writer.waiting_since == 5.0
    peer.answer(b":100\r\n:50\r\n")
    assert peer.writer.waiting_since is None
    peer.write(1)
    peer.asked(now=7.0)
    assert peer.writer.waiting_since == 7.0


def test_an_empty_batch_is_done_at_once() -> None:
    peer = Peer()
    assert peer.write(0).told == [(None, 0)] and peer.woken == 0


@pytest.mark.parametrize("data", [b"+PONG\r\n", b":10\r\n:10\r\n"])
def test_what_answers_nothing_breaks_the_connection(data: bytes) -> None:
    peer = Peer()
    peer.write(10)
    peer.asked()
    with pytest.raises(CodecError):
        peer.answer(data)
