"""Replies of Redis.

    tokens     the input is the stream
    fetcher    [how, size of a chunk] and the stream; or, with SCRIPT in `how`, a script: [op, …]

Whole or in chunks the outcome must be the same; and no rows may be told that hiredis, in the twin, does not read.
"""

from __future__ import annotations

import re
from typing import Any

from fastserve._native.batch import ReadBatch
from fastserve._native.resp import Fetcher
from fastserve.batch.batch_py import ReadBatch as PyReadBatch
from fastserve.errors import CodecError, StoreError, StoreUnavailableError
from fastserve.online.fetcher_py import Fetcher as PyFetcher
from tests.fuzz.sampling import EVERY_TIME, sampled

HUGE = re.compile(rb"\*[0-9]{7}")  # an array for which hiredis makes a list of that size at once
SCRIPT = 0x80
MANY = 0x50  # both bits: 100 keys more, so that there are two MGETs
FOLLOWED = 0x20  # another read waits for some of the same keys
KEYS = 0x0F


def tokens(data: bytes) -> None:
    """The checks are in tokens.pyx."""
    from tests.fuzz.tokens import tokens as read

    read(data)


def fetcher(data: bytes) -> None:
    """See the module."""
    if len(data) < 2:
        return
    how, chunk, stream = data[0], data[1], data[2:]
    if how & SCRIPT:
        script(data[1:])
        return
    whole = Talk(native_fetcher(0), ReadBatch)
    whole.begin(how)
    whole.feed(stream, len(stream) or 1)
    torn = Talk(native_fetcher(1), ReadBatch)
    torn.begin(how)
    torn.feed(stream, 1 + chunk % 48 + len(stream) // 16)
    assert whole.outcome() == torn.outcome(), f"{whole.outcome()} in one piece, {torn.outcome()} in chunks"
    if sampled(data, 64) and not HUGE.search(stream):
        twin = Talk(PyFetcher("here", ignored), PyReadBatch)
        twin.begin(how)
        twin.feed(stream, len(stream) or 1)
        agree(whole, twin)
    whole.end()
    torn.end()


def ignored() -> None:
    """Nobody has to be woken: requests() is called when it suits."""


KEPT = [Fetcher("here", ignored), Fetcher("here", ignored)]


def native_fetcher(number: int) -> Any:
    """A fuzz run keeps two: a receive buffer costs more than all else, and what fail_all leaves must not show."""
    return Fetcher("here", ignored) if EVERY_TIME else KEPT[number]


LOST = StoreUnavailableError("lost")
OPS = 60  # of a script


def lost() -> StoreError:
    return LOST


class Read:
    """A fetch: how often done was called, and with what."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.told: list[str | None] = []
        self.seen: list[bytes | None] | None = None

    def done(self, error: StoreError | None) -> None:
        self.told.append(None if error is None else str(error))
        if error is None:
            self.seen = self.batch.rows()


class Talk:
    """A fetcher that was asked for keys, and is fed."""

    def __init__(self, fetcher: Any, make_batch: Any) -> None:
        self.fetcher = fetcher
        self.make_batch = make_batch
        self.reads: list[Read] = []
        self.broken = False

    def fetch(self, keys: list[bytes]) -> None:
        read = Read(self.make_batch(keys))
        self.reads.append(read)
        self.fetcher.fetch(read.batch, read.done, len(self.reads))

    def begin(self, how: int) -> None:
        names = [b"%d" % i for i in range((how & KEYS) + (100 if how & MANY == MANY else 0))]
        if names:
            self.fetch(names)
            if how & FOLLOWED:
                self.fetch([b"other", *names[:3], names[-1]])
        self.fetcher.requests(1.0)

    def feed(self, data: bytes, size: int) -> None:
        at = 0
        try:
            while at < len(data) and not self.broken:
                buffer = self.fetcher.get_buffer(-1)
                chunk = data[at : at + min(size, len(buffer))]
                buffer[: len(chunk)] = chunk
                at += len(chunk)
                more = self.fetcher.buffer_updated(len(chunk))
                while more:
                    more = self.fetcher.buffer_updated(0)
        except CodecError:
            self.broken = True
            self.fetcher.fail_sent(lost)

    def outcome(self) -> object:
        return self.broken, [(read.told, read.seen, read.batch.states()) for read in self.reads]

    def end(self) -> None:
        self.fetcher.fail_all(lost)
        for read in self.reads:
            assert len(read.told) == 1 or (read.batch.abandoned and not read.told), "told twice, or never"
            assert read.told != [None] or read.batch.missing == 0, "told, but not of all rows"


def agree(native: Talk, twin: Talk) -> None:
    """hiredis is more patient: what ours refuses it may still wait for, or pass over."""
    if native.broken:
        for one, other in zip(native.reads, twin.reads, strict=True):
            if one.told == other.told == [None]:
                assert one.seen == other.seen, f"{one.seen}, hiredis reads {other.seen}"
        return
    assert not twin.broken, "hiredis refuses it"
    assert native.outcome() == twin.outcome(), f"{native.outcome()}, the twin {twin.outcome()}"


# ---- scripts: reads come and go while replies do -----------------------------------------------


def script(data: bytes) -> None:
    play(Talk(native_fetcher(0), ReadBatch), data).end()


def play(talk: Talk, data: bytes) -> Talk:
    """Ops of a byte, 3 bits and an argument of 5; after FEED that many bytes of the stream follow."""
    at = 0
    for _ in range(OPS):
        if at >= len(data):
            break
        op, n = data[at] >> 5, data[at] & 31
        at += 1
        if op <= 2:  # the likeliest
            if not talk.broken:
                talk.feed(data[at : at + n], n)
            at += n
        elif op == 3:
            talk.fetch([b"%d" % (n + i) for i in range(1 + n % 5)])
        elif op == 4:
            talk.fetcher.requests(float(at))
            talk.broken = False
        elif op == 5:
            talk.fetcher.forget(talk.make_batch([b"%d" % n, b"%d" % (n + 1)]))
        elif op == 6 and talk.reads:
            talk.reads[n % len(talk.reads)].batch.abandon()
        elif op == 7:
            (talk.fetcher.fail_sent if n & 1 else talk.fetcher.fail_all)(lost)
        assert talk.fetcher.queued >= 0
    return talk
