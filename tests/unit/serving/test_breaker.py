"""The circuit breaker, by a clock of its own."""

from __future__ import annotations

from fastserve.errors import StoreUnavailableError
from fastserve.serving.breaker import FAILURES, LONGEST_PAUSE_US, Breaker

DOWN = StoreUnavailableError("connection refused")


def opened(at: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.refusal(at) == ""
        breaker.failed(DOWN, at)
    return breaker


def test_single_failures_do_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES):
        breaker.failed(DOWN, 0)
        breaker.succeeded()
    assert not breaker.is_open and breaker.refusal(0) == ""


def test_it_opens_and_says_why() -> None:
    breaker = opened()
    assert breaker.is_open and breaker.opened == 1
    assert "connection refused" in breaker.refusal(1)


def test_after_a_pause_one_read_tries_and_an_answer_closes_it() -> None:
    breaker = opened()
    assert breaker.refusal(300_000) == ""
    assert breaker.refusal(300_001), "only one"
    breaker.succeeded()
    assert not breaker.is_open and breaker.refusal(300_002) == ""


def test_pauses_grow_to_a_bound() -> None:
    breaker, at, pauses = opened(), 0, []
    for _ in range(12):
        begun = at
        while breaker.refusal(at):
            at += 10_000
        pauses.append(at - begun)
        breaker.failed(DOWN, at)
    assert pauses[0] <= 250_000 < pauses[3] and max(pauses) <= 1.21 * LONGEST_PAUSE_US
    assert breaker.opened == 1


def test_failures_of_reads_asked_before_it_opened_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    for _ in range(1_000):
        breaker.failed(DOWN, 10)
    assert breaker.refusal(300_000) == ""


def test_a_try_that_is_never_heard_of_does_not_block_it_for_ever() -> None:
    breaker = opened()
    assert breaker.refusal(300_000) == ""
    assert breaker.refusal(600_000) == "", "the next one tries"
