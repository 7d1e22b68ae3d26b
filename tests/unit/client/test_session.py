"""The HTTP/2 client session, both twins, against the `h2` library as a server. No sockets."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from fastserve.client.session import CONNECTION_WINDOW, TOO_LARGE

HEAD = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h:1"), (b":path", b"/p?q=1")]
REFUSED, CANCEL, INTERNAL = 7, 8, 2


class Pair:
    """A session and the server it talks to; `pump` moves bytes until both are silent."""

    def __init__(
        self, impl: type, *, chunk: int = 1 << 16, max_answer: int = 1 << 24, **settings: int
    ) -> None:
        self.answers: dict[int, tuple[int, dict[bytes, bytes], bytes]] = {}
        self.failed: dict[int, tuple[int, bool]] = {}
        self.chunk = chunk
        self.requests: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.resets: dict[int, int] = {}
        self.pings = 0
        self.hold_windows = False
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        values = {SettingCodes[name]: value for name, value in settings.items()}
        self.server.local_settings = Settings(client=False, initial_values=values)
        self.server.initiate_connection()
        self.session = impl(self, max_answer)

    def on_answer(self, stream_id: int, status: int, headers: Any, body: Any) -> None:
        assert stream_id not in self.answers and stream_id not in self.failed
        self.answers[stream_id] = (status, dict(headers), bytes(body))

    def on_failed(self, stream_id: int, error_code: int, processed: bool) -> None:
        assert stream_id not in self.answers and stream_id not in self.failed
        self.failed[stream_id] = (error_code, processed)

    def pump(self) -> None:
        while True:
            out = self.session.data_to_send(1 << 16)
            self.take(out)
            back = self.server.data_to_send()
            for i in range(0, len(back), self.chunk):
                self.session.feed(back[i : i + self.chunk])
            if not out and not back:
                return

    def take(self, data: bytes) -> None:
        for event in self.server.receive_data(data):
            match event:
                case RequestReceived(stream_id=sid):
                    self.requests[sid] = list(event.headers)
                    self.bodies[sid] = b""
                case DataReceived(stream_id=sid):
                    self.bodies[sid] += event.data
                    if not self.hold_windows:
                        self.server.acknowledge_received_data(event.flow_controlled_length, sid)
                case StreamEnded(stream_id=sid):
                    self.ended.append(sid)
                case StreamReset(stream_id=sid):
                    self.resets[sid] = event.error_code
                case PingReceived():
                    self.pings += 1
                case _:
                    pass

    def answer(self, stream_id: int, body: bytes = b"", status: int = 200) -> None:
        self.server.send_headers(
            stream_id, [(b":status", b"%d" % status), (b"x-a", b"1")], end_stream=not body
        )
        at = 0
        while at < len(body):
            size = min(self.server.local_flow_control_window(stream_id), 16384, len(body) - at)
            if size == 0:
                self.pump()
                continue
            self.server.send_data(stream_id, body[at : at + size], end_stream=at + size == len(body))
            at += size

    def goaway(self, last: int, code: int = 0) -> None:
        self.session.feed(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
@pytest.mark.parametrize("size", [0, 1, 20_000])
def test_a_request_and_its_answer(impl: type, chunk: int, size: int) -> None:
    pair = Pair(impl, chunk=chunk)
    body = bytes(i % 251 for i in range(size))
    sid = pair.session.request([*HEAD, (b"x-b", b"2")], body)
    pair.pump()
    assert pair.requests[sid] == [*HEAD, (b"x-b", b"2")] and pair.bodies[sid] == body and pair.ended == [sid]
    assert pair.session.in_flight == 1
    pair.answer(sid, body)
    pair.pump()
    assert pair.answers == {sid: (200, {b"x-a": b"1"}, body)} and not pair.failed
    assert pair.session.in_flight == 0 and not pair.session.draining and not pair.session.broken


def test_many_answers_in_any_order(impl: type) -> None:
    pair = Pair(impl)
    sids = [pair.session.request(HEAD, b"%d" % i) for i in range(50)]
    pair.pump()
    for sid in reversed(sids):
        pair.answer(sid, b"to " + pair.bodies[sid])
    pair.pump()
    assert [pair.answers[sid][2] for sid in sids] == [b"to %d" % i for i in range(50)]


def test_bodies_wait_for_the_servers_window_and_take_turns(impl: type) -> None:
    pair = Pair(impl, INITIAL_WINDOW_SIZE=1000)
    pair.pump()
    pair.hold_windows = True
    first, second = (pair.session.request(HEAD, bytes(5000)) for _ in range(2))
    pair.pump()
    assert len(pair.bodies[first]) == len(pair.bodies[second]) == 1000
    pair.hold_windows = False
    for sid in (first, second):
        pair.server.acknowledge_received_data(1000, sid)
        pair.server.increment_flow_control_window(10_000, sid)
    pair.pump()
    assert len(pair.bodies[first]) == len(pair.bodies[second]) == 5000 and sorted(pair.ended) == [
        first,
        second,
    ]


def test_an_answer_larger_than_the_windows(impl: type) -> None:
    pair = Pair(impl, max_answer=1 << 30)
    sid = pair.session.request(HEAD, b"")
    pair.pump()
    body = bytes(CONNECTION_WINDOW + 1_000_000)
    pair.answer(sid, body)
    pair.pump()
    assert pair.answers[sid][2] == body


def test_informational_heads_and_trailers_are_not_the_answer(impl: type) -> None:
    pair = Pair(impl)
    sid = pair.session.request(HEAD, b"")
    pair.pump()
    pair.server.send_headers(sid, [(b":status", b"103"), (b"link", b"x")])
    pair.server.send_headers(sid, [(b":status", b"200"), (b"x-a", b"1")])
    pair.server.send_data(sid, b"body")
    pair.server.send_headers(sid, [(b"x-trailer", b"t")], end_stream=True)
    pair.pump()
    assert pair.answers == {sid: (200, {b"x-a": b"1"}, b"body")}


@pytest.mark.parametrize(("code", "processed"), [(REFUSED, False), (INTERNAL, True), (0, True)])
def test_a_reset_says_whether_it_was_processed(impl: type, code: int, processed: bool) -> None:
    pair = Pair(impl)
    sid = pair.session.request(HEAD, b"x")
    pair.pump()
    pair.server.reset_stream(sid, code)
    pair.pump()
    assert pair.failed == {sid: (code, processed)} and pair.session.in_flight == 0


def test_goaway_refuses_what_is_above_it_and_lets_the_rest_finish(impl: type) -> None:
    pair = Pair(impl)
    first, second, third = (pair.session.request(HEAD, b"x") for _ in range(3))
    pair.pump()
    pair.goaway(2**31 - 1)
    assert pair.session.draining and not pair.failed, "the first GOAWAY is only a notice"
    pair.goaway(second)
    assert pair.failed == {third: (REFUSED, False)} and pair.session.in_flight == 2
    pair.answer(first, b"1")
    pair.answer(second, b"2")
    pair.pump()
    assert {sid: a[2] for sid, a in pair.answers.items()} == {first: b"1", second: b"2"}
    assert pair.session.in_flight == 0


def test_a_goaway_that_meets_an_unsent_request(impl: type) -> None:
    """It is not sent, and known to be undone; or it is sent and answered."""
    pair = Pair(impl)
    pair.pump()
    sid = pair.session.request(HEAD, b"x")
    pair.goaway(2**31 - 1)
    pair.pump()
    if pair.ended:
        pair.answer(sid)
        pair.pump()
        assert pair.answers[sid][0] == 200
    else:
        assert pair.failed == {sid: (REFUSED, False)}
    assert pair.session.draining and pair.session.in_flight == 0


def test_an_early_answer_stops_the_body(impl: type) -> None:
    pair = Pair(impl, INITIAL_WINDOW_SIZE=100)
    pair.pump()
    pair.hold_windows = True
    sid = pair.session.request(HEAD, bytes(50_000))
    pair.pump()
    pair.answer(sid, b"too large", 413)
    pair.pump()
    assert pair.answers[sid][0] == 413 and pair.resets == {sid: CANCEL}
    other = pair.session.request(HEAD, b"")
    pair.pump()
    pair.answer(other)
    pair.pump()
    assert pair.answers[other][0] == 200 and pair.session.in_flight == 0


@pytest.mark.parametrize("sent", [False, True])
def test_cancel(impl: type, sent: bool) -> None:
    pair = Pair(impl)
    sid = pair.session.request(HEAD, bytes(100_000))
    other = pair.session.request(HEAD, b"y")
    if sent:
        pair.pump()
    pair.session.cancel(sid)
    pair.session.cancel(sid)
    assert pair.session.in_flight == 1
    pair.pump()
    if sent:
        assert pair.resets == {sid: CANCEL}
    pair.answer(other, b"z")
    pair.pump()
    assert not pair.failed and list(pair.answers) == [other] and pair.session.in_flight == 0


def test_an_answer_above_the_limit_is_given_up(impl: type) -> None:
    pair = Pair(impl, max_answer=1000)
    sid, other = pair.session.request(HEAD, b""), pair.session.request(HEAD, b"")
    pair.pump()
    pair.server.send_headers(sid, [(b":status", b"200")])
    pair.server.send_data(sid, bytes(1001))
    pair.pump()
    assert pair.failed == {sid: (TOO_LARGE, True)} and pair.resets == {sid: CANCEL}
    pair.answer(other, bytes(1000))
    pair.pump()
    assert pair.answers[other][2] == bytes(1000)


def test_max_streams_is_what_the_server_says(impl: type) -> None:
    pair = Pair(impl, MAX_CONCURRENT_STREAMS=3)
    assert pair.session.max_streams == 100
    pair.pump()
    assert pair.session.max_streams == 3


def test_ping_asks_for_a_sign_of_life(impl: type) -> None:
    pair = Pair(impl)
    pair.pump()
    pair.session.ping()
    pair.pump()
    assert pair.pings == 1


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, bytes(9)])
def test_what_is_no_http2_breaks_the_connection(impl: type, junk: bytes) -> None:
    pair = Pair(impl)
    pair.session.request(HEAD, b"x")
    pair.session.data_to_send(1 << 16)
    pair.session.feed(junk)
    pair.session.data_to_send(1 << 16)
    assert pair.session.broken and not pair.answers


def test_after_close_nothing_is_told_and_nothing_is_kept(impl: type) -> None:
    pair = Pair(impl)
    sid = pair.session.request(HEAD, bytes(200_000))
    pair.pump()
    pair.answer(sid, b"late")
    late = pair.server.data_to_send()
    pair.session.close()
    pair.session.feed(late)
    assert pair.session.data_to_send(1 << 16) == b"" and pair.session.in_flight == 0
    assert not pair.answers and not pair.failed
    body = bytearray(10)
    del pair, late
    gc.collect()
    body.append(1)
