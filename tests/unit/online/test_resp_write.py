"""The bytes of writes and the reading of their replies, both twins."""

from __future__ import annotations

import importlib
import os
from itertools import pairwise
from typing import Any

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.batch import batch_py
from fastserve.errors import CodecError
from fastserve.online import resp_write_py

NATIVE = os.environ.get("FASTSERVE_NO_EXTENSIONS") != "1"
CHANNEL = b"!there"


@pytest.fixture(params=["py", "native"], scope="module")
def impl(request: pytest.FixtureRequest) -> Any:
    return twin(request.param)


def twin(name: str) -> Any:
    """(module, ReadBatch)"""
    if name == "py":
        return resp_write_py, batch_py.ReadBatch
    if not NATIVE:
        pytest.skip("a pure-Python install")
    native = importlib.import_module("fastserve._native.resp_write")
    return native, importlib.import_module("fastserve._native.batch").ReadBatch


def batch_of(impl: Any, pairs: list[tuple[bytes, bytes]]) -> Any:
    batch = impl[1]([key for key, _ in pairs])
    batch.fill([row for _, row in pairs], 0)
    return batch


def commands(data: bytes) -> list[list[bytes]]:
    """As the server reads them."""
    reader = hiredis.Reader()
    reader.feed(data)
    found = []
    while (command := reader.gets()) is not False:
        found.append(command)
    assert not reader.has_data()
    return found


PAIRS = st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=300)), min_size=1, max_size=30)
LIVES = st.lists(st.integers(0, 10**15), min_size=30, max_size=30)


def message(keys: list[bytes]) -> bytes:
    return b"".join(len(key).to_bytes(2, "little") + key for key in keys)


@given(pairs=PAIRS, lives=st.none() | LIVES, data=st.data())
def test_a_script_run(impl, pairs, lives, data):
    start = data.draw(st.integers(0, len(pairs) - 1))
    stop = data.draw(st.integers(start + 1, len(pairs)))
    px = None if lives is None else np.array(lives[: len(pairs)], np.int64)
    head = (b"EVALSHA", b"abc")
    sent = impl[0].encode_script(head, batch_of(impl, pairs), start, stop, px, CHANNEL)
    keys, rows = [k for k, _ in pairs[start:stop]], [r for _, r in pairs[start:stop]]
    lifetimes = [] if px is None else [b"%d" % n for n in px[start:stop]]
    count = b"%d" % (stop - start)
    assert commands(sent) == [[*head, count, *keys, *rows, CHANNEL, message(keys), *lifetimes]]


@given(pairs=PAIRS, lives=st.none() | LIVES, data=st.data())
def test_a_fresh_transaction(impl, pairs, lives, data):
    start = data.draw(st.integers(0, len(pairs) - 1))
    px = None if lives is None else np.array(lives[: len(pairs)], np.int64)
    sent = commands(impl[0].encode_fresh(batch_of(impl, pairs), start, len(pairs), px, CHANNEL))
    written = pairs[start:]
    if px is None:
        middle = [[b"MSETNX", *(part for pair in written for part in pair)]]
    else:
        middle = [
            [b"SET", key, row, b"NX", *([b"PX", b"%d" % life] if life else [])]
            for (key, row), life in zip(written, px[start:].tolist(), strict=True)
        ]
    publish = [b"PUBLISH", CHANNEL, message([key for key, _ in written])]
    assert sent == [[b"MULTI"], *middle, publish, [b"EXEC"]]


@given(pairs=PAIRS, more=PAIRS, rows=st.booleans())
def test_a_command_of_batches(impl, pairs, more, rows):
    sent = commands(
        impl[0].encode_command([b"MSET", b"x"], [batch_of(impl, pairs), batch_of(impl, more)], rows=rows)
    )
    both = [*pairs, *more]
    assert sent == [
        [b"MSET", b"x", *((part for pair in both for part in pair) if rows else (k for k, _ in both))]
    ]
    published = commands(impl[0].encode_publish(CHANNEL, [batch_of(impl, pairs), batch_of(impl, more)]))
    assert published == [[b"PUBLISH", CHANNEL, message([k for k, _ in both])]]


def test_a_command_without_batches(impl):
    assert commands(impl[0].encode_command([b"MULTI"], [], rows=True)) == [[b"MULTI"]]
    assert commands(impl[0].encode_publish(CHANNEL, [])) == [[b"PUBLISH", CHANNEL, b""]]


def test_a_row_that_is_not_there_is_not_written(impl):
    with pytest.raises(CodecError, match="row 0 is not there"):
        impl[0].encode_command([b"MSET"], [impl[1]([b"a"])], rows=True)


def test_a_key_too_long_for_a_message_is_left_out_of_it(impl):
    keys = [b"a", b"b" * 65_535, b"c" * 65_536]
    batch = batch_of(impl, [(key, b"row") for key in keys])
    for sent in (
        commands(impl[0].encode_fresh(batch, 0, 3, None, CHANNEL))[2][2],
        commands(impl[0].encode_script((b"EVALSHA", b"x"), batch, 0, 3, None, CHANNEL))[0][-1],
    ):
        assert sent == message(keys[:2])


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20),
    keys=st.integers(1, 8),
    most=st.integers(1, 90),
)
def test_where_a_command_ends(impl, sizes, keys, most):
    batch = batch_of(impl, [(b"%d" % i, bytes(size)) for i, size in enumerate(sizes)])
    start = 0
    while start < len(sizes):
        end = impl[0].rows_end(batch, start, keys, most)
        taken = sizes[start:end]
        assert 1 <= len(taken) <= keys and (len(taken) == 1 or sum(taken) <= most)
        if end < len(sizes) and len(taken) < keys:
            assert sum(sizes[start : end + 1]) > most
        start = end


# ---- replies -----------------------------------------------------------------------------------

FULL = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:3\r\n"
MIXED = b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n+OK\r\n$-1\r\n+OK\r\n:0\r\n"
ABORTED = b"+OK\r\n-OOM no room\r\n+QUEUED\r\n-EXECABORT discarded\r\n"
REFUSED = b"-NOPERM multi\r\n:1\r\n:0\r\n-ERR EXEC without MULTI\r\n"
CONVERSATION = [
    (0, b":100\r\n", 100),
    (2, FULL, 1),
    (0, b"-NOSCRIPT no\r\n", "NOSCRIPT no"),
    (4, MIXED, 2),
    (2, ABORTED, "OOM no room"),
    (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n:0\r\n", 0),
    (2, REFUSED, "NOPERM multi"),
    (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n-WRONGTYPE of it\r\n:0\r\n", "WRONGTYPE of it"),
]


def feed(replies: Any, data: bytes) -> None:
    while data:
        buffer = replies.get_buffer(-1)
        n = min(len(buffer), len(data))
        buffer[:n] = data[:n]
        replies.buffer_updated(n)
        data = data[n:]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_replies_torn_anywhere(impl, cuts):
    replies, found = impl[0].Replies(), []
    data = b"".join(reply for _, reply, _ in CONVERSATION)
    wanted = [outcome for *_, outcome in CONVERSATION]
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(places):
        feed(replies, data[start:end])
        while len(found) < len(wanted) and (outcome := replies.take(CONVERSATION[len(found)][0])) is not None:
            found.append(outcome)
    assert found == wanted and replies.rest == 0


@pytest.mark.parametrize(
    ("queued", "data"),
    [
        (0, b"+OK\r\n"),
        (0, b":\r\n"),
        (0, b":1x\r\n"),
        (0, b":-1\r\n"),
        (0, b":12345678901\r\n"),
        (0, b"hello\r\n"),
        (0, b"\r\n"),
        (0, b"$3\r\nabc\r\n"),
        (0, b"-" + b"x" * 5_000),
        (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n:0\r\n"),
        (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n:1\r\n:0\r\n"),
        (2, b":1\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:0\r\n"),
        (2, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n:0\r\n"),
    ],
)
def test_what_is_no_reply(impl, queued, data):
    replies = impl[0].Replies()
    feed(replies, data)
    with pytest.raises(CodecError):
        replies.take(queued)


def test_another_connection_begins_anew(impl):
    replies = impl[0].Replies()
    feed(replies, b"+OK\r\n-OOM\r\n+QUE")
    assert replies.take(2) is None
    replies.clear()
    feed(replies, FULL)
    assert replies.take(2) == 1 and replies.rest == 0


LINES = st.sampled_from(b"+OK +QUEUED :1 :0 $-1 *2 -ERR :x $1 ?".replace(b" ", b"\r\n ").split(b" "))


@pytest.mark.skipif(not NATIVE, reason="a pure-Python install")
@given(
    lines=st.lists(LINES | st.binary(max_size=6), max_size=14),
    queued=st.lists(st.sampled_from([0, 2, 3]), max_size=6),
)
def test_the_twins_agree_on_anything(lines, queued):
    outcomes = []
    for name in ("py", "native"):
        replies = twin(name)[0].Replies()
        feed(replies, b"".join(lines))
        found: list[object] = []
        for n in queued:
            try:
                found.append(replies.take(n))
            except CodecError:
                found.append("broken")
                break
            if found[-1] is None:
                break
        outcomes.append(found)
    assert outcomes[0] == outcomes[1]
