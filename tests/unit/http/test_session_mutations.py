"""Damaged conversations, random splits, late and repeated answers: no crash, no lost account."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.attack_kinds import FLOODS, flood_bytes
from fastserve.http.limits import Limits
from fastserve.http.message import Response
from tests.unit.http.peer import Owner
from tests.unit.http.test_session_abuse import CONVERSATION, IMPLS

SEEDS = [CONVERSATION, *(CONVERSATION[:300] + flood_bytes(name, 20) for name in FLOODS)]
LIMITS = Limits(
    max_body_bytes=500,
    max_buffered_body_bytes=900,
    max_pending_response_bytes=40_000,
    control_frame_budget=60,
    max_concurrent_streams=4,
)


def damaged(rnd):
    data = bytearray(rnd.choice(SEEDS))
    for _ in range(rnd.randrange(6)):
        at = rnd.randrange(24, len(data))
        match rnd.randrange(3):
            case 0:
                data[at] = rnd.randrange(256)
            case 1:
                del data[at : at + rnd.randrange(30)]
            case _:
                start = rnd.randrange(24, len(data))
                data[at:at] = data[start : start + rnd.randrange(60)]
    return bytes(data)


def answer(rnd):
    match rnd.randrange(5):
        case 0:
            return None
        case 1:
            return Response(200, "a/b\n", b"cannot be sent")
        case _:
            return Response(200, "a/b", bytes(rnd.choice([0, 10, 30_000])))


@pytest.mark.parametrize("cls", IMPLS)
@settings(max_examples=200, deadline=None)
@given(rnd=st.randoms(use_true_random=True))
def test_mutations(cls, rnd):
    data = damaged(rnd)
    owner = Owner(lambda request: answer(rnd), LIMITS)
    session = cls(owner, LIMITS, 1.0)
    while data:
        size = rnd.randrange(1, 200)
        session.feed(data[:size], 1.0)
        data = data[size:]
        if rnd.random() < 0.5:
            session.data_to_send(rnd.choice([1, 1000, 100_000]))
        if rnd.random() < 0.2 and owner.requests:
            session.submit(rnd.choice(owner.requests)[0], Response(200, "a/b", bytes(5000)))
        if rnd.random() < 0.03:
            session.start_drain()
        if rnd.random() < 0.03:
            session.expire(rnd.choice([2.0, 1000.0]))
    while session.data_to_send(100_000):
        pass
    assert session.buffered_body_bytes <= LIMITS.max_buffered_body_bytes
    if not session.in_flight:
        assert session.pending_bytes == session.buffered_body_bytes == 0
    session.close()
