"""A shut gate: refused at the head, answered at the end of the body, and never heard of by the handler. Both twins."""

from __future__ import annotations

import json

from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from tests.unit.http.peer import Peer, head

GATED = head(path="/gated?x=1", extra=[("x-one", "1")])


def test_refusals_only_for_its_paths_and_only_while_it_is_shut(impl):
    peer = Peer(impl)
    peer.owner.gate.shut = True
    peer.request(1, b"body", GATED)
    peer.request(3, b"body")
    peer.pump()
    refused = peer.answers[1]
    assert refused.status == 429 and refused.ended and refused.headers[b"retry-after"] == b"1"
    assert json.loads(refused.body)["error"]["code"] == "overloaded"
    assert peer.answers[3].status == 200
    assert [stream for stream, _ in peer.owner.requests] == [3]
    assert peer.owner.gate.refused == 1 and peer.session.buffered_body_bytes == 0
    peer.owner.gate.shut = False
    peer.request(5, b"again", GATED)
    peer.pump()
    assert peer.answers[5].body == b"again"
    assert peer.owner.requests[-1][1].headers == [(b"x-one", b"1")]


def test_a_refusal_waits_for_the_end_of_the_body(impl):
    peer = Peer(impl)
    peer.owner.gate.shut = True
    peer.request(1, b"first", GATED, end=False)
    peer.pump()
    assert 1 not in peer.answers
    peer.owner.gate.shut = False  # it was refused when it came
    peer.client.send_data(1, b"last", end_stream=True)
    peer.pump()
    assert peer.answers[1].status == 429 and peer.owner.requests == []
    assert peer.session.in_flight == 0


def test_a_request_that_was_let_in_stays_in(impl):
    peer = Peer(impl)
    peer.request(1, b"first", GATED, end=False)
    peer.pump()
    peer.owner.gate.shut = True
    peer.client.send_data(1, b"last", end_stream=True)
    peer.pump()
    assert peer.answers[1].body == b"firstlast"


def test_refusals_cost_no_tokens_of_the_budget(impl):
    peer = Peer(impl, limits=Limits(control_frame_budget=20))
    peer.owner.gate.shut = True
    for stream in range(1, 401, 2):
        peer.request(stream, b"body", GATED)
        peer.pump()
    assert peer.owner.gate.refused == 200 and not peer.goaways
    assert all(answer.status == 429 for answer in peer.answers.values())


def test_a_gate_without_paths_refuses_nothing():
    gate = Gate()
    gate.shut = True
    assert not gate.refuses("/online-features/batch") and not gate.refuses(None) and not gate.refused
