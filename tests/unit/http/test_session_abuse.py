"""Every flood ends the connection within the budget, and honest clients never do."""

import itertools

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.attack_kinds import FLOODS, REQUEST
from fastserve.http.h2_py import Session as PySession
from fastserve.http.limits import Limits
from fastserve.http.message import Response
from tests.unit.http.peer import PREFACE, Owner, Peer, head, parse_frames

try:
    from fastserve._native.h2 import Session as NativeSession
except ImportError:
    NativeSession = None
IMPLS = [PySession] + ([NativeSession] if NativeSession else [])

BUDGET = 300


@pytest.mark.parametrize("read_size", [1, 7, 4000, 256 * 1024])
@pytest.mark.parametrize("name", FLOODS)
def test_flood_ends_within_budget(impl, name, read_size):
    limits = Limits(control_frame_budget=BUDGET, max_concurrent_streams=100)
    owner = Owner(lambda request: None, limits)
    session = impl(owner, limits, 100.0)
    start = PREFACE + SettingsFrame(0, {}).serialize()
    session.feed(start, 100.0)
    frames, output, batch, n_batch = 0, b"", b"", 0
    for data, n in FLOODS[name](Encoder()):
        batch += data
        n_batch += n
        if len(batch) < read_size and n_batch < BUDGET + 200:
            continue
        session.feed(batch, 100.0)
        frames += n_batch
        batch, n_batch = b"", 0
        output += session.data_to_send(1 << 16)
        assert session.in_flight <= 101
        assert session.buffered_body_bytes <= BUDGET + 200
        if session.terminated or session.closed:
            break
        assert frames <= BUDGET + 200, f"{session.budget} tokens left"
    while more := session.data_to_send(1 << 16):
        output += more
    assert session.closed
    if impl is PySession and name == "goaways":
        return  # the client has ended it
    (goaway,) = (f for f in parse_frames(output) if isinstance(f, GoAwayFrame))
    assert goaway.error_code != 0
    assert owner.stats.protocol_errors == 1
    assert len(owner.requests) <= BUDGET + 200


def test_calm_is_what_a_budget_overrun_says(impl):
    peer = Peer(impl, limits=Limits(control_frame_budget=5))
    peer.pump()
    out = peer.raw(WindowUpdateFrame(0, window_increment=1).serialize() * 10)
    (goaway,) = parse_frames(out)
    assert isinstance(goaway, GoAwayFrame) and goaway.error_code == 11


def test_long_frames_cost_by_their_length(impl):
    peer = Peer(impl)
    peer.pump()
    before = peer.session.budget
    peer.raw((4096).to_bytes(3) + b"\xbe\x00" + (0).to_bytes(4) + bytes(4096))  # a type that nobody knows
    assert peer.session.budget == before - 65


def test_a_head_that_is_all_work_and_no_request_costs_by_its_length(impl):
    """Changes of the table's size (RFC 7541 4.2): 16 KiB of them take 0.1 ms, and leave nothing."""
    peer = Peer(impl)
    peer.pump()
    frames = [data for data, _ in itertools.islice(FLOODS["table_sizes"](Encoder()), 20)]
    before = peer.session.budget
    peer.raw(frames[0])
    cost = before - peer.session.budget
    if peer.session.terminated:  # as `h2` does
        return
    assert cost >= len(frames[0]) // 64
    peer.raw(b"".join(frames[1:]))
    assert peer.session.terminated
    assert peer.session.budget > -2 * cost  # it was looked at between them: most were never read


def test_work_pays_for_control_frames(impl):
    """A client that updates both windows after every answer and never stops is no attacker."""
    peer = Peer(impl, limits=Limits(control_frame_budget=20))
    update = WindowUpdateFrame(0, window_increment=100).serialize()
    for i in range(300):
        peer.request(2 * i + 1, b"x" * 100)
        peer.pump()
        peer.raw(update * 3)
    assert not peer.session.terminated
    assert all(answer.status == 200 for answer in peer.answers.values())


def test_a_long_download_pays_for_its_window_updates(impl):
    body = bytes(5_000_000)
    peer = Peer(impl, lambda r: Response(200, "", body), limits=Limits(control_frame_budget=20))
    peer.client.max_outbound_frame_size = 16384
    peer.request(1)
    peer.pump()
    assert len(peer.answers[1].body) == len(body) and not peer.session.terminated


def test_time_pays(impl):
    peer = Peer(impl, limits=Limits(control_frame_budget=10))
    peer.pump()
    before = peer.session.budget
    peer.raw(WindowUpdateFrame(0, window_increment=1).serialize() * 5)
    assert peer.session.budget == before - 5
    peer.session.grant(2)
    assert peer.session.budget == before - 3
    peer.session.grant(100)
    assert peer.session.budget == 10


def test_header_bomb_ends_the_connection(impl):
    """4 KiB in the HPACK table, referred to by one byte: 16 KiB become 64 MiB."""
    peer = Peer(impl)
    encoder = Encoder()
    block = encoder.encode([*REQUEST, ("x-bomb", "v" * 4000)]) + b"\xbe" * 16000
    data = HeadersFrame(1, block[:16384]).serialize()
    data += ContinuationFrame(1, block[16384:], flags=["END_HEADERS"]).serialize()
    peer.pump()
    peer.raw(data)
    assert peer.session.terminated and peer.session.closed
    assert peer.owner.requests == []


def test_oversized_frame_ends_the_connection_before_it_is_buffered(impl):
    peer = Peer(impl)
    peer.pump()
    out = peer.raw((2**24 - 1).to_bytes(3) + b"\x00\x00" + (1).to_bytes(4) + b"x" * 100)
    assert parse_frames(out)[-1].error_code == 6  # FRAME_SIZE_ERROR
    assert peer.session.closed


def test_not_http2(impl):
    limits = Limits()
    session = impl(Owner(lambda r: None, limits), limits, 0.0)
    session.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 0.0)
    assert session.terminated
    while session.data_to_send(1 << 16):
        pass
    assert session.closed


@pytest.mark.parametrize("cls", IMPLS)
@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda kind, flags, stream, body: (
                    len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body
                ),
                st.integers(0, 12),
                st.integers(0, 255),
                st.integers(0, 9),
                st.binary(max_size=30),
            ),
        ),
        max_size=20,
    )
)
def test_garbage_never_raises(cls, data):
    limits = Limits()
    owner = Owner(lambda request: Response(200, "a/b", b"ok"), limits)
    session = cls(owner, limits, 0.0)
    session.feed(PREFACE + SettingsFrame(0, {}).serialize(), 0.0)
    for piece in data:
        session.feed(piece, 0.0)
        while session.data_to_send(1 << 16):
            pass
    session.expire(1e9)
    session.close()


# ---- any split of the same bytes is the same conversation ----


def conversation():
    """Client bytes of a few requests, with bodies, padding, trailers, a reset and a large header."""
    peer = Peer(PySession)
    client = peer.client
    peer.request(1, b"first" * 10)
    peer.request(3, b"", head("GET", "/get?x=1", extra=[("x-long", "v" * 3000)]))
    client.send_headers(5, head(path="/later"), end_stream=False)
    client.send_data(5, b"a" * 700, pad_length=9)
    peer.request(7, b"to be reset", end=False)
    client.send_data(5, b"b" * 900, end_stream=False)
    client.reset_stream(7)
    client.send_headers(5, [("x-trailer", "t")], end_stream=True)
    client.ping(b"12345678")
    peer.request(9, b"", head("HEAD"))
    return client.data_to_send()


CONVERSATION = conversation()


def play(cls, pieces):
    limits = Limits()
    owner = Owner(lambda r: Response(200, "a/b", r.method.encode() + r.body[::-1]), limits)
    session = cls(owner, limits, 0.0)
    out = b""
    for piece in pieces:
        session.feed(piece, 0.0)
        out += session.data_to_send(1 << 20)
    seen = [(i, r.method, r.path, r.query, tuple(r.headers), r.body) for i, r in owner.requests]
    answers = {}
    for frame in parse_frames(out):
        if frame.stream_id:
            kind = type(frame).__name__
            size = len(frame.data) if kind == "DataFrame" else 0
            answers.setdefault(frame.stream_id, []).append((kind, sorted(frame.flags), size))
    return seen, answers, session.budget


@pytest.mark.parametrize("cls", IMPLS)
@settings(max_examples=80, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_chunks_do_not_matter(cls, cuts):
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[a:b] for a, b in itertools.pairwise(edges)]
    assert play(cls, pieces) == play(cls, [CONVERSATION])


@pytest.mark.parametrize("cls", IMPLS)
def test_byte_by_byte(cls):
    pieces = [CONVERSATION[i : i + 1] for i in range(len(CONVERSATION))]
    assert play(cls, pieces) == play(cls, [CONVERSATION])


@pytest.mark.skipif(NativeSession is None, reason="the native session is not built")
def test_twins_agree():
    native, twin = play(NativeSession, [CONVERSATION]), play(PySession, [CONVERSATION])
    assert native[0] == twin[0]
    assert native[2] == twin[2]
    assert [s for s, _ in sorted(native[1].items())] == [s for s, _ in sorted(twin[1].items())]


def test_small_data_costs_and_useful_data_does_not(impl):
    """64 bytes, or the end of the request, are worth a frame; padding is not."""
    peer = Peer(impl, lambda r: None)
    peer.client.send_headers(1, head(), end_stream=False)
    peer.pump()
    before = peer.session.budget
    for size, pad, cost in ((64, None, 0), (63, None, 1), (0, None, 1), (1, 200, 1), (64, 9, 0)):
        peer.client.send_data(1, b"x" * size, pad_length=pad)
        peer.pump()
        assert peer.session.budget == before - cost, (size, pad)
        before = peer.session.budget
    peer.client.send_data(1, b"x", end_stream=True)
    peer.pump()
    assert peer.session.budget == before and len(peer.owner.requests) == 1


def test_a_request_turned_away_costs_and_earns_nothing(impl):
    peer = Peer(impl, limits=Limits(max_body_bytes=10))
    peer.pump()
    before = peer.session.budget
    peer.request(1, b"x" * 100)
    peer.pump()
    assert peer.answers[1].status == 413
    assert peer.session.budget == before - 1


def test_why_it_ended(impl):
    peer = Peer(impl, limits=Limits(control_frame_budget=5))
    peer.pump()
    assert peer.session.end_reason == ""
    peer.raw(WindowUpdateFrame(0, window_increment=1).serialize() * 10)
    assert peer.session.end_reason == "frame_budget"
    peer = Peer(impl)
    peer.pump()
    peer.session.expire(1e9)
    assert peer.session.end_reason == ""
    peer.raw(HeadersFrame(1, b"").serialize())
    peer.session.expire(1e9)
    assert peer.session.end_reason == "slow_head"
    peer = Peer(impl)
    peer.pump()
    peer.raw(HeadersFrame(2, b"", flags=["END_HEADERS"]).serialize())
    assert peer.session.end_reason == "protocol_error"
