"""The HTTP/2 session: requests in, answers out, on both twins."""

import gc

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame

from fastserve.http.limits import Limits
from fastserve.http.message import CheckedHeaders, Response
from tests.unit.http.peer import Peer, head, parse_frames


def test_request_fields(impl):
    peer = Peer(impl)
    extra = [("x-one", "1"), ("content-type", "application/json")]
    peer.request(1, b"body", head(path="/a%20b?q=1&r=?", extra=extra))
    peer.pump()
    ((stream_id, request),) = peer.owner.requests
    assert stream_id == 1
    assert (request.method, request.path, request.query) == ("POST", "/a%20b", "q=1&r=?")
    assert request.headers == [(b"x-one", b"1"), (b"content-type", b"application/json")]
    assert request.header(b"x-one") == b"1"
    assert request.header(b"none") is None
    assert request.body == b"body" and type(request.body) is bytes
    assert peer.answers[1].status == 200 and peer.answers[1].body == b"body"
    assert peer.session.in_flight == 0


def test_repeated_headers_are_equal_on_every_request(impl):
    peer = Peer(impl)
    for i in range(40):
        extra = [("x-same", "s"), ("x-count", str(i % 7)), ("x-long", "v" * (i * 20))]
        peer.request(2 * i + 1, b"", head("GET", extra=extra))
        peer.pump()
    for i, (_, request) in enumerate(peer.owner.requests):
        assert request.headers == [
            (b"x-same", b"s"),
            (b"x-count", b"%d" % (i % 7)),
            (b"x-long", b"v" * (i * 20)),
        ]


@pytest.mark.parametrize("size", [0, 1, 600, 16384, 16385, 200_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_answer_body(impl, size, kind):
    body = bytes(i % 251 for i in range(size))
    peer = Peer(impl, lambda r: Response(200, "a/b", kind(body), [(b"x-n", b"1")]))
    peer.request(1)
    answer = peer.pump().answers[1]
    assert answer.body == body and answer.ended
    assert answer.headers[b"content-length"] == b"%d" % size
    assert answer.headers[b"content-type"] == b"a/b"
    assert answer.headers[b"x-n"] == b"1"
    assert answer.headers[b"date"].endswith(b"GMT")
    assert peer.session.pending_bytes == 0


def test_checked_headers_are_sent_like_others(impl):
    headers = CheckedHeaders([(b"x-n", b"1"), (b"x-empty", b""), (b"x-long", b"a b" * 200)])
    peer = Peer(impl, lambda r: Response(200, "a/b", b"1", headers))
    for stream in (1, 3):
        peer.request(stream)
        answer = peer.pump().answers[stream]
        assert [answer.headers[name] for name, _ in headers] == [value for _, value in headers]


@pytest.mark.parametrize(
    "pair",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"bad name", b"v"),
        (b"X", b"v"),
        (b"", b"v"),
        (b"x", b" v"),
        (b"x", b"v\t"),
    ],
)
def test_headers_are_checked_when_they_are_made(pair):
    with pytest.raises(ValueError, match="cannot be sent"):
        CheckedHeaders([(b"ok", b"1"), pair])


def test_answer_buffer_is_released(impl):
    body = bytearray(b"x" * 50_000)
    peer = Peer(impl, lambda r: Response(200, "a/b", body))
    peer.request(1)
    peer.pump()
    gc.collect()
    body.append(1)  # BufferError if still borrowed


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_no_body(impl, method, status):
    peer = Peer(impl, lambda r: Response(status, "", b"12345" if status == 200 else b""))
    peer.request(1, headers=head(method))
    answer = peer.pump().answers[1]
    assert answer.ended and answer.body == b""
    expected = {200: b"5", 204: None, 304: b"0"}[status]
    assert answer.headers.get(b"content-length") == expected


def test_answer_later(impl):
    peer = Peer(impl, lambda r: None)
    peer.request(1)
    peer.request(3)
    peer.pump()
    assert peer.session.in_flight == 2
    peer.session.submit(3, Response(200, "a/b", b"three"))
    peer.pump()
    assert peer.answers[3].body == b"three" and 1 not in peer.answers
    peer.session.submit(1, Response(200, "a/b", b"one"))
    peer.pump()
    assert peer.answers[1].body == b"one"
    assert peer.owner.cancelled == []


def test_a_second_answer_is_ignored(impl):
    peer = Peer(impl, lambda r: None)
    peer.request(1)
    peer.pump()
    first = bytes(range(250)) * 1000
    peer.session.submit(1, Response(200, "a/b", first))
    peer.receive(peer.session.data_to_send(20_000))
    peer.session.submit(1, Response(200, "a/b", b"second"))  # the first is still being sent
    assert peer.pump().answers[1].body == first


def test_reset_cancels_and_late_answer_is_dropped(impl):
    peer = Peer(impl, lambda r: None)
    peer.request(1)
    peer.pump()
    peer.client.reset_stream(1, 8)
    peer.pump()
    assert peer.owner.cancelled == [1]
    peer.session.submit(1, Response(200, "a/b", b"late"))
    assert peer.take() == b""
    assert peer.session.in_flight == 0


def test_request_reset_in_the_same_read_is_not_handled(impl):
    peer = Peer(impl)
    peer.request(1, b"", head("GET"))
    peer.client.reset_stream(1, 8)
    peer.pump()
    assert peer.session.in_flight == 0
    peer.request(3)
    assert peer.pump().answers[3].status == 200


@pytest.mark.parametrize(
    "response",
    [
        Response(200, "a/b", b"", [(b"x", b"a\r\nset-cookie: b")]),
        Response(200, "a/b", b"", [(b"bad name", b"v")]),
        Response(200, "a/b", b"", [(b"x", b"v")] * 61),
        Response(99, "a/b", b""),
        Response(200, "a/b\n", b""),
        Response(200, "a/b", 5),
        Response(200, "a/b", memoryview(bytes(8))[::2]),
    ],
)
def test_unsendable_response_becomes_500(impl, response):
    peer = Peer(impl, lambda r: response)
    peer.request(1)
    peer.pump()
    assert peer.answers[1].status == 500
    assert len(peer.owner.failures) == 1
    assert b"internal" in peer.answers[1].body


def test_expect_continue(impl):
    peer = Peer(impl)
    peer.request(1, headers=head(extra=[("expect", "100-continue")]), end=False)
    peer.pump()
    assert peer.answers[1].informational == [b"100"]
    peer.client.send_data(1, b"body", end_stream=True)
    assert peer.pump().answers[1].body == b"body"


def test_trailers_end_a_request(impl):
    peer = Peer(impl)
    peer.request(1, b"body", end=False)
    peer.client.send_headers(1, [("x-trailer", "t")], end_stream=True)
    assert peer.pump().answers[1].body == b"body"


# ---- limits ----


def small(**changes):
    values = {"max_header_bytes": 1000, "max_target_bytes": 100, "max_body_bytes": 5000}
    return Limits(**{**values, **changes})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (head(extra=[("x-long", "v" * 1000)]), 431),
        (head(extra=[(f"x-{i}", "v") for i in range(40)]), 431),
        (head(path="/" + "p" * 100), 414),
        (head(extra=[("content-length", "5001")]), 413),
    ],
)
def test_head_over_a_limit(impl, headers, status):
    peer = Peer(impl, limits=small())
    peer.request(1, headers=headers, body=bytes(5001) if status == 413 else b"")
    peer.pump()
    assert peer.answers[1].status == status and peer.answers[1].ended
    assert peer.owner.requests == [] and peer.owner.stats.rejected == 1
    peer.request(3)
    assert peer.pump().answers[3].status == 200


def test_head_over_a_limit_of_an_endless_request_is_answered_in_the_end(impl):
    peer = Peer(impl, limits=small())
    peer.request(1, headers=head(path="/" + "p" * 100), end=False)
    peer.pump()
    assert 1 not in peer.answers
    for _ in range(6):
        if not peer.answers:
            peer.client.send_data(1, b"x" * 1000)
            peer.pump()
    assert peer.answers[1].status == 414 and peer.answers[1].ended
    assert peer.answers[1].reset == 0


def test_rejected_expectation_is_answered_at_once(impl):
    peer = Peer(impl, limits=small())
    extra = [("expect", "100-continue"), ("content-length", "5001")]
    peer.request(1, headers=head(extra=extra), end=False)
    peer.pump()
    assert peer.answers[1].status == 413 and peer.answers[1].informational == []
    assert peer.answers[1].reset is None
    peer.session.expire(peer.now + 1000)
    peer.pump()
    assert peer.answers[1].reset == 0 and peer.session.in_flight == 0


def test_body_over_the_limit_is_swallowed_and_answered(impl):
    peer = Peer(impl, limits=small())
    peer.request(1, b"x" * 4000, end=False)
    peer.client.send_data(1, b"x" * 1001)
    peer.pump()
    assert peer.session.buffered_body_bytes == 0 and 1 not in peer.answers
    peer.client.send_data(1, b"x" * 3000, end_stream=True)
    peer.pump()
    assert peer.answers[1].status == 413 and peer.answers[1].ended
    assert peer.answers[1].reset is None and peer.session.in_flight == 0


def test_endless_body_is_answered_and_reset(impl):
    peer = Peer(impl, limits=small())
    peer.request(1, b"x" * 5001, end=False)
    peer.pump()
    for _ in range(6):
        if not peer.answers:
            peer.client.send_data(1, b"x" * 1000)
            peer.pump()
    assert peer.answers[1].status == 413 and peer.answers[1].ended
    assert peer.answers[1].reset == 0 and peer.session.in_flight == 0


def test_bodies_of_a_connection_are_bounded(impl):
    peer = Peer(impl, lambda r: None, limits=small(max_buffered_body_bytes=9000))
    for stream_id in (1, 3):
        peer.request(stream_id, b"x" * 4000)
    peer.request(5, b"x" * 1001)
    peer.pump()
    assert peer.answers[5].status == 413
    assert peer.session.buffered_body_bytes == 8000
    peer.session.submit(1, Response(200, "", b""))
    peer.pump()
    assert peer.session.buffered_body_bytes == 4000


def test_too_many_streams_are_refused(impl):
    peer = Peer(impl, lambda r: None, limits=small(max_concurrent_streams=3))
    for stream_id in (1, 3, 5, 7):  # before the client has seen the setting
        peer.request(stream_id, headers=head("GET"))
    peer.pump()
    assert len(peer.owner.requests) == 3
    assert peer.answers[7].reset == 7  # REFUSED_STREAM
    peer.session.submit(1, Response(200, "", b""))
    peer.pump()
    assert peer.answers[1].status == 200


def test_unread_answers_refuse_new_requests(impl):
    limits = small(max_pending_response_bytes=100_000)
    peer = Peer(impl, lambda r: Response(200, "", bytes(200_000)), limits=limits)
    peer.request(1)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    peer.request(3)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    assert len(peer.owner.requests) == 1
    peer.pump()
    assert peer.answers[3].reset == 7
    assert len(peer.answers[1].body) == 200_000


def test_connect_is_not_implemented(impl):
    peer = Peer(impl)
    peer.request(1, headers=[(":method", "CONNECT"), (":authority", "host:1")])
    peer.pump()
    assert peer.answers[1].status == 501


# ---- output ----


def test_output_is_bounded_and_streams_take_turns(impl):
    peer = Peer(impl, lambda r: Response(200, "", bytes(400_000)), window=2**30)
    peer.client.update_settings({4: 2**30})
    for stream_id in (1, 3, 5):
        peer.request(stream_id)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    turns = []
    while chunk := peer.session.data_to_send(40_000):
        assert len(chunk) <= 40_000 + 16384 + 9
        peer.output += chunk
    turns = [f.stream_id for f in parse_frames(peer.output) if isinstance(f, DataFrame)]
    assert sorted(set(turns)) == [1, 3, 5]
    first = turns[: len(turns) // 2]
    counts = [first.count(s) for s in (1, 3, 5)]
    assert max(counts) - min(counts) <= 2


def test_flow_control_is_respected(impl):
    peer = Peer(impl, lambda r: Response(200, "", bytes(200_000)))
    peer.request(1)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    sent = sum(len(f.data) for f in parse_frames(peer.take()) if isinstance(f, DataFrame))
    assert sent == 65535
    assert peer.session.pending_bytes == 200_000 - 65535


# ---- time and end ----


def test_overdue_body_is_408(impl):
    peer = Peer(impl, limits=Limits(body_timeout_s=5, header_timeout_s=5))
    peer.request(1, b"part", end=False)
    peer.request(3)
    peer.pump()
    peer.session.expire(peer.now + 4.9)
    peer.pump()
    assert 1 not in peer.answers
    peer.session.expire(peer.now + 5.1)
    peer.pump()
    assert peer.answers[1].status == 408 and peer.goaways == []
    assert peer.answers[1].reset == 0 and peer.session.in_flight == 0


@pytest.mark.parametrize("cut", [3, 23, -5])
def test_overdue_head_ends_the_connection(impl, cut):
    peer = Peer(impl, limits=Limits(header_timeout_s=5))
    peer.request(1, headers=head("GET"))
    sent = peer.client.data_to_send()
    peer.session.feed(sent[:cut], peer.now)
    peer.session.expire(peer.now + 4.9)
    assert not peer.session.terminated
    peer.session.expire(peer.now + 5.1)
    assert peer.session.terminated
    frames = parse_frames(peer.take())
    assert isinstance(frames[-1], GoAwayFrame) and frames[-1].error_code == 11
    assert peer.session.closed


def test_drain_finishes_what_is_in_flight(impl):
    peer = Peer(impl, lambda r: None)
    peer.request(1)
    peer.pump()
    peer.session.start_drain()
    first = [f for f in parse_frames(peer.take()) if isinstance(f, GoAwayFrame)]
    assert [(f.last_stream_id, f.error_code) for f in first] == [(2**31 - 1, 0)]
    peer.client.send_headers(3, head("GET"), end_stream=True)  # crossed the first GOAWAY: taken
    ack = bytes.fromhex("000008060100000000") + bytes(8)
    peer.session.feed(peer.client.data_to_send() + ack, peer.now)
    last = [f for f in parse_frames(peer.take()) if isinstance(f, GoAwayFrame)]
    assert [(f.last_stream_id, f.error_code) for f in last] == [(3, 0)]
    assert len(peer.owner.requests) == 2 and not peer.session.closed
    for stream_id in (1, 3):
        peer.session.submit(stream_id, Response(200, "", b"done"))
    peer.receive(peer.take())
    assert peer.answers[1].body == peer.answers[3].body == b"done"
    assert peer.session.closed


def test_drain_of_an_idle_connection_without_an_answering_client(impl):
    peer = Peer(impl)
    peer.pump()
    peer.session.start_drain()
    peer.take()
    assert not peer.session.closed
    peer.session.finish_drain()
    peer.take()
    assert peer.session.closed


def test_close_drops_everything(impl):
    body = bytearray(100_000)
    peer = Peer(impl, lambda r: Response(200, "", body))
    peer.request(1)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    session = peer.session
    session.close()
    session.submit(1, Response(200, "", b""))
    session.feed(b"anything", peer.now)
    del session, peer
    gc.collect()
    body.append(1)


def test_a_closed_session_tells_nobody(impl):
    """The last GOAWAY, once sent, ends the streams above the one that it names; here the owner is gone by then."""
    peer = Peer(impl, answer=lambda request: None)
    peer.request(1, end=False)
    peer.pump()
    peer.session.finish_drain()
    peer.request(3)
    peer.session.feed(peer.client.data_to_send(), peer.now)
    peer.session.close()
    peer.session.data_to_send(1 << 16)
    assert peer.owner.cancelled == []
