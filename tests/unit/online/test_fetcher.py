"""The Fetcher without a server, both twins: what is asked, who is told what, and replies torn anywhere."""

from __future__ import annotations

import asyncio
import importlib
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.batch.batch_py import ABSENT, CHANGED, FOUND, UNKNOWN
from fastserve.errors import CodecError, StoreError, StoreTimeoutError, StoreUnavailableError

TWINS = {
    "py": ("fastserve.online.fetcher_py", "fastserve.batch.batch_py"),
    "native": ("fastserve._native.resp", "fastserve._native.batch"),
}


def twin(name: str) -> Any:
    fetcher, batch = map(importlib.import_module, TWINS[name])
    return SimpleNamespace(Fetcher=fetcher.Fetcher, ReadBatch=batch.ReadBatch)


@pytest.fixture(params=["py", "native"], scope="module")
def impl(request: pytest.FixtureRequest) -> Any:
    if request.param == "native" and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    return twin(request.param)


def array(rows: list[bytes | None]) -> bytes:
    """The reply to an MGET."""
    return b"*%d\r\n" % len(rows) + b"".join(
        b"$-1\r\n" if row is None else b"$%d\r\n%s\r\n" % (len(row), row) for row in rows
    )


@dataclass
class Read:
    """One fetch and what came of it."""

    batch: Any
    told: list[StoreError | None] = field(default_factory=list)
    seen: list[bytes | None] | None = None  # the rows while done ran

    def done(self, error: StoreError | None) -> None:
        self.told.append(error)
        self.seen = self.batch.rows()
        self.batch.own()  # rows lie in the receive buffer, which is another's once this has returned


class Peer:
    """A fetcher, and the server it talks to."""

    def __init__(self, impl: Any, **options: int) -> None:
        self.impl = impl
        self.woken = 0
        self.fetcher = impl.Fetcher("here", self._wake, **options)

    def _wake(self) -> None:
        self.woken += 1

    def fetch(self, *keys: bytes, now: int = 7) -> Read:
        read = Read(self.impl.ReadBatch(keys))
        assert self.fetcher.fetch(read.batch, read.done, now) is False
        return read

    def asked(self, now: float = 1.0) -> list[list[bytes]]:
        """Flush: the keys of each MGET."""
        reader = hiredis.Reader()
        reader.feed(self.fetcher.requests(now))
        commands = []
        while (command := reader.gets()) is not False:
            assert command[0] == b"MGET"
            commands.append(command[1:])
        return commands

    def feed(self, data: bytes, cuts: list[int] | None = None) -> None:
        ends = [*sorted(cut for cut in cuts or [] if 0 < cut < len(data)), len(data)]
        for start, end in zip([0, *ends], ends, strict=False):
            while start < end:
                buffer = self.fetcher.get_buffer(-1)
                size = min(len(buffer), end - start)
                buffer[:size] = data[start : start + size]
                while self.fetcher.buffer_updated(size):
                    size, start = 0, start + size
                start += size


def test_when_time_is_up_the_replies_that_are_left_wait_for_the_next_turn(impl):
    peer = Peer(impl, slice_us=0)
    first, second, third = peer.fetch(b"1"), peer.fetch(b"2"), peer.fetch(b"1", b"2", *names(*range(3, 103)))
    assert [len(keys) for keys in peer.asked()] == [100, 2]
    data = array([b"a", b"b"] + [b"row"] * 98) + array([b"last"] * 2)
    buffer = peer.fetcher.get_buffer(-1)
    buffer[: len(data) - 1] = data[:-1]
    assert peer.fetcher.buffer_updated(len(data) - 1) is True
    assert first.told == second.told == [None] and third.told == []
    assert peer.fetcher.waiting_since is not None
    assert peer.fetcher.buffer_updated(0) is False, "what is left is not whole"
    assert third.told == []
    peer.feed(data[-1:])
    assert third.told == [None] and third.seen[:2] == [b"a", b"b"] and third.seen[-1] == b"last"
    assert peer.fetcher.waiting_since is None


def test_time_that_is_up_with_the_last_reply_leaves_nothing(impl):
    peer = Peer(impl, slice_us=0)
    read = peer.fetch(b"1")
    peer.asked()
    data = array([b"row"])
    peer.fetcher.get_buffer(-1)[: len(data)] = data
    assert peer.fetcher.buffer_updated(len(data)) is False
    assert read.told == [None]


def names(*numbers: int) -> list[bytes]:
    return [b"%d" % i for i in numbers]


@pytest.mark.parametrize(
    ("calls", "sizes"),
    [
        ([names(1, 2), names(2, 3)], [3]),
        ([names(1, 1, 1)], [1]),
        ([names(*range(100))], [100]),
        ([names(*range(101))], [100, 1]),
        ([names(*range(250))], [100, 100, 50]),
        ([names(*range(150)), names(120, 0, 120, 0)], [100, 50]),
        ([names(*range(5_000)), names(*range(6_000))], [100] * 60),
    ],
)
def test_a_tick_asks_each_key_once_at_most_100_in_a_command(impl, calls, sizes):
    peer = Peer(impl)
    reads = [peer.fetch(*keys) for keys in calls]
    assert peer.fetcher.queued == sum(sizes) and peer.woken == 1
    asked = peer.asked()
    assert [len(keys) for keys in asked] == sizes and peer.fetcher.queued == 0
    for keys in asked:
        peer.feed(array([b"row " + key for key in keys]))
    for read, keys in zip(reads, calls, strict=True):
        assert read.told == [None]
        assert read.seen == [b"row " + key for key in keys]
        assert read.batch.fetched_us() == [7] * len(keys) and read.batch.missing == 0


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.none() | st.binary(max_size=60), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 400), max_size=20),
)
def test_torn_anywhere_the_rows_are_the_same(impl, rows, cuts):
    oracle = hiredis.Reader()
    oracle.feed(array(rows))
    assert oracle.gets() == rows
    peer = Peer(impl)
    reads = [peer.fetch(*names(*range(len(rows)))) for _ in range(2)]
    late = peer.fetch(b"other", b"0")
    peer.asked()
    peer.feed(array([*rows, b"o"]), cuts)
    for read in reads:
        assert (read.told, read.seen) == ([None], rows)
        assert read.batch.states() == [ABSENT if row is None else FOUND for row in rows]
    assert late.seen == [b"o", rows[0]]


PIECES = [
    *(b"*2\r\n", b"*1\r\n", b"$-1\r\n", b"$1\r\na\r\n", b"$2\r\n\r\n\r\n", b"-E x\r\n", b"$0\r\n\r\n"),
    *(b":1\r\n", b"+OK\r\n", b"\r", b"\n", b"$", b"*", b"-", b"9", b"\x00"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.integers(1, 40), max_size=4))
def test_no_rows_but_those_that_hiredis_reads(impl, parts, cuts):
    data = b"".join(parts)
    oracle = hiredis.Reader()
    oracle.feed(data)
    try:
        reply = oracle.gets()
    except hiredis.ProtocolError:
        reply = None
    peer = Peer(impl)
    read = peer.fetch(b"a", b"b")
    peer.asked()
    try:
        peer.feed(data, cuts)
    except CodecError:
        peer.fetcher.fail_sent(lambda: StoreTimeoutError("gone"))
    if read.told == [None]:
        assert read.seen == reply
    else:
        assert read.batch.states() == [UNKNOWN] * 2
        well_formed = isinstance(reply, list) and all(row is None or type(row) is bytes for row in reply)
        assert not (well_formed and len(reply) == 2 and data.startswith(array(reply)))
    if isinstance(reply, hiredis.ReplyError):
        assert len(read.told) == 1 and str(reply) in str(read.told[0])


NO_REPLIES = [
    *(b"+OK\r\n", b":1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00", b"$1\r\na\r\n", b"*-1\r\n"),
    *(
        b"*1\r\n$1\r\na\r\n",
        b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
        b"*99999999999999999999\r\n",
        b"*1x\r\n",
        b"*\r\n",
    ),
    *(b"*2\r\n*0\r\n$-1\r\n", b"*2\r\n:1\r\n$-1\r\n", b"*2\r\n-ERR x\r\n$-1\r\n", b"*2\r\n$-2\r\n"),
    *(b"*2\r\n$-0\r\n\r\n$-1\r\n", b"*2\r\n$01\r\na\r\n$-1\r\n", b"*02\r\n$-1\r\n$-1\r\n"),
    *(b"*2\r\n$99999999999999999999\r\n", b"*2\r\n$1x\r\na\r\n", b"*2\r\n$-1\r\n$-1\r\n*"),
]


@pytest.mark.parametrize("data", NO_REPLIES)
def test_what_is_no_reply_ends_the_connection(impl, data):
    peer = Peer(impl)
    read = peer.fetch(b"a", b"b")
    peer.asked()
    with pytest.raises(CodecError):
        peer.feed(data, list(range(len(data))))
    peer.fetcher.fail_sent(lambda: StoreUnavailableError("lost"))
    assert len(read.told) == 1 and (read.told == [None]) == data.endswith(b"*")


@pytest.mark.parametrize(
    "data",
    [
        b"*3\r\n",
        b"*2\r\n$536870913\r\n",
        b"-" + b"x" * 5_000,
        b"*2\r\n$1\r\nabc",
        b"*2\rx",
        b"-E\rx",
        b"-E\nx",
        b"*2\r\n*0\r\n",
    ],
)
def test_the_native_parser_refuses_at_once_and_more(data):
    """hiredis waits for more, or looks over it."""
    if os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    peer = Peer(twin("native"))
    peer.fetch(b"a", b"b")
    peer.asked()
    with pytest.raises(CodecError):
        peer.feed(data, list(range(len(data))))


def test_what_nobody_asked_for_is_refused(impl):
    peer = Peer(impl)
    with pytest.raises(CodecError, match="nobody asked"):
        peer.feed(b"*0\r\n")


def test_announced_bytes_are_not_room_made_at_once(impl):
    peer = Peer(impl)
    peer.fetch(b"a")
    peer.asked()
    peer.feed(b"*1\r\n$536870912\r\n")
    assert len(peer.fetcher.get_buffer(-1)) <= 1 << 20
    peer.feed(bytes(60), list(range(60)))
    assert len(peer.fetcher.get_buffer(-1)) <= 1 << 20, "it grew with the reads, not with what came"


def test_rows_of_megabytes_and_the_buffer_after_them(impl):
    peer = Peer(impl)
    for _ in range(2):
        big = [bytes([i]) * (1 << 20) for i in range(3)]
        read = peer.fetch(b"a", b"b", b"c")
        peer.asked()
        peer.feed(array(big), list(range(0, 3 << 20, 50_001)))
        assert read.seen == big
        assert len(peer.fetcher.get_buffer(-1)) <= 1 << 20


def test_a_key_in_flight_is_awaited_and_not_asked_again(impl):
    peer = Peer(impl)
    first = peer.fetch(b"a", b"b", now=5)
    assert peer.asked() == [[b"a", b"b"]]
    second = peer.fetch(b"b", b"c", b"b", now=9)
    assert peer.asked() == [[b"c"]]
    third = peer.fetch(b"c", b"a", now=11)
    assert peer.asked() == [] and peer.woken == 2
    peer.feed(array([b"A", None]))
    assert (first.seen, second.told, third.told) == ([b"A", None], [], [])
    peer.feed(array([b"C"]))
    assert (second.told, second.seen) == ([None], [None, b"C", None])
    assert second.batch.fetched_us() == [5, 9, 5], "a row is as old as the first question for it"
    assert (third.told, third.seen) == ([None], [b"C", b"A"])
    assert peer.fetcher.waiting_since is None
    fourth = peer.fetch(b"a")
    assert peer.asked(3.5) == [[b"a"]] and peer.fetcher.waiting_since == 3.5 and fourth.told == []


def test_a_batch_that_is_complete_needs_no_store(impl):
    peer = Peer(impl)
    for batch in (impl.ReadBatch(), impl.ReadBatch([b"a"])):
        batch.fill([b"x"] * len(batch), 1)
        assert peer.fetcher.fetch(batch, lambda error: pytest.fail("called"), 2) is True
    partly = Read(impl.ReadBatch([b"a", b"b"]))
    partly.batch.fill([b"A", b"B"], 1)
    assert peer.woken == 0 and peer.fetcher.queued == 0


def test_rows_that_wait_for_others_outlive_the_receive_buffer(impl):
    peer = Peer(impl)
    read = peer.fetch(*names(*range(150)))
    one, _ = peer.asked()
    peer.feed(array([key * 20 for key in one]))
    assert read.told == [] and read.batch.missing == 50
    peer.feed(array([b"\xff" * 60] * 50))
    assert read.seen == [key * 20 for key in one] + [b"\xff" * 60] * 50


def test_who_gave_up_is_told_nothing_and_harms_nobody(impl):
    peer = Peer(impl)
    leader, follower = peer.fetch(b"a", b"b"), peer.fetch(b"b", b"a")
    leader.batch.abandon()
    assert peer.asked() == [[b"a", b"b"]]
    peer.feed(array([b"A", b"B"]))
    assert (leader.told, follower.told, follower.seen) == ([], [None], [b"B", b"A"])
    alone = peer.fetch(b"a", b"c")
    alone.batch.abandon()
    assert peer.asked() == [], "nobody wants it, so nobody is asked"
    again = peer.fetch(b"c", b"d")
    peer.asked()
    again.batch.abandon()
    peer.feed(array([b"C", b"D"]))
    assert alone.told == again.told == []


def test_an_error_reply_fails_its_own_command_only(impl):
    peer = Peer(impl)
    both = peer.fetch(*names(*range(150)))
    first, last = peer.fetch(b"0", b"1"), peer.fetch(b"149")
    peer.asked()
    peer.feed(b"-LOADING it loads\r\n" + array([b"row"] * 50))
    for read in (both, first):
        assert len(read.told) == 1 and isinstance(read.told[0], StoreUnavailableError)
        assert "Redis at here answered: LOADING it loads" in str(read.told[0])
        assert set(read.batch.states()) == {UNKNOWN}, "what failed is left alone"
    assert both.told[0] is not first.told[0]
    assert (last.told, last.seen) == ([None], [b"row"])
    peer.fetch(b"0")
    assert peer.asked() == [[b"0"]]


def test_a_lost_connection_fails_what_was_sent_and_not_what_is_queued(impl):
    peer = Peer(impl)
    sent = peer.fetch(b"a", b"b")
    peer.asked()
    both, queued = peer.fetch(b"a", b"c"), peer.fetch(b"c")
    peer.feed(b"*2\r\n$1\r\nA\r\n$5\r\nto")
    peer.fetcher.fail_sent(lambda: StoreUnavailableError("lost"))
    assert [len(read.told) for read in (sent, both, queued)] == [1, 1, 0]
    assert sent.batch.states() == [UNKNOWN] * 2
    assert peer.fetcher.waiting_since is None
    retry = peer.fetch(b"a")
    assert peer.asked() == [[b"c", b"a"]]
    peer.feed(array([b"C", b"A"]))
    assert (queued.seen, retry.seen) == ([b"C"], [b"A"])
    assert (both.batch.states(), len(both.told)) == ([UNKNOWN] * 2, 1)


def test_without_a_connection_all_fail_and_the_next_wakes_again(impl):
    peer = Peer(impl)
    reads = [peer.fetch(b"a", b"b"), peer.fetch(b"b")]
    peer.fetcher.fail_all(lambda: StoreUnavailableError("down"))
    assert [len(read.told) for read in reads] == [1, 1]
    assert peer.asked() == [] and peer.woken == 1
    peer.fetch(b"a")
    assert peer.woken == 2 and peer.asked() == [[b"a"]]


def test_a_closed_one_refuses(impl):
    peer = Peer(impl)
    read = peer.fetch(b"a")
    peer.asked()
    peer.fetcher.close(lambda: StoreUnavailableError("closed"))
    assert len(read.told) == 1
    with pytest.raises(StoreUnavailableError, match="closed"):
        peer.fetch(b"a")


def test_a_changed_key_is_asked_anew_and_its_row_flagged(impl):
    peer = Peer(impl)
    early = peer.fetch(b"a", b"b")
    peer.asked()
    queued = peer.fetch(b"b", b"c")
    peer.fetcher.forget(impl.ReadBatch([b"a", b"b", b"c", b"z"]))
    late = peer.fetch(b"b", b"c", b"a")
    assert peer.asked() == [[b"c", b"b", b"a"]], "what is not sent yet is asked after the change"
    peer.feed(array([b"old", b"older"]) + array([b"C", b"B", b"A"]))
    assert (early.seen, early.batch.flags()) == ([b"old", b"older"], [CHANGED, CHANGED])
    assert (queued.seen, queued.batch.flags()) == ([b"older", b"C"], [CHANGED, 0])
    assert (late.seen, late.batch.flags()) == ([b"B", b"C", b"A"], [0, 0, 0])


async def test_a_reader_that_raises_strands_nobody(impl):
    loop, raised = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
    peer = Peer(impl)
    batch = impl.ReadBatch([b"a"])
    peer.fetcher.fetch(batch, lambda error: 1 / 0, 1)
    other = peer.fetch(b"a")
    peer.asked()
    peer.feed(array([b"A"]))
    assert other.seen == [b"A"] and [type(error) for error in raised] == [ZeroDivisionError]


def test_whoever_is_called_may_ask_and_close(impl):
    peer = Peer(impl)
    more: list[Read] = []

    def ask(error: StoreError | None) -> None:
        more.extend(peer.fetch(b"%d:%d" % (i, len(more))) for i in range(300))

    def close(error: StoreError | None) -> None:
        peer.fetcher.close(lambda: StoreUnavailableError("closed"))

    peer.fetcher.fetch(impl.ReadBatch([b"a"]), ask, 1)
    peer.asked()
    peer.fetcher.fetch(impl.ReadBatch([b"b"]), close, 1)
    waiting = [peer.fetch(b"c"), peer.fetch(b"b", b"c")]
    peer.asked()
    peer.feed(array([b"A"]) + array([b"B", b"C"]))
    assert all(len(read.told) == 1 for read in more + waiting)
    assert waiting[1].seen == [b"B", b"C"] and waiting[0].told == [None]
    assert all(isinstance(read.told[0], StoreUnavailableError) for read in more)


# ---- the twins do the same ---------------------------------------------------------------------

KEYS = st.lists(st.sampled_from(names(*range(8))), min_size=1, max_size=6)
STEPS = st.one_of(
    st.tuples(st.just("fetch"), KEYS),
    st.tuples(st.just("forget"), KEYS),
    st.tuples(st.just("abandon"), st.integers(0, 20)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("reply"), st.integers(0, 3)),
    st.tuples(st.just("error"), st.none()),
    st.tuples(st.just("lose"), st.none()),
)


def play(impl: Any, steps: list[tuple[str, Any]]) -> list[Any]:
    """What happens, step by step."""
    peer, reads, sent = Peer(impl), [], []
    trace: list[Any] = []
    for number, (step, given_) in enumerate(steps):
        if step == "fetch":
            reads.append(peer.fetch(*given_, now=number))
        elif step == "forget":
            peer.fetcher.forget(impl.ReadBatch(given_))
        elif step == "abandon" and reads:
            reads[given_ % len(reads)].batch.abandon()
        elif step == "flush":
            trace.append(asked := peer.asked())
            sent += asked
        elif step == "reply" and sent:
            rows = [b"%s at %d" % (key, number) if int(key) % 3 else None for key in sent.pop(0)]
            peer.feed(array(rows), [given_ * 7, given_ * 11])
        elif step == "error" and sent:
            sent.pop(0)
            peer.feed(b"-ERR no\r\n")
        elif step == "lose":
            sent.clear()
            peer.fetcher.fail_sent(lambda: StoreUnavailableError("lost"))
        trace.append(peer.woken)
        for read in reads:
            one = read.batch
            trace.append((list(map(str, read.told)), one.rows(), one.states(), one.flags(), one.fetched_us()))
    return trace


@pytest.mark.skipif(os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1", reason="a pure-Python install")
@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_the_twins_agree_on_any_course_of_events(steps):
    assert play(twin("native"), steps) == play(twin("py"), steps)
